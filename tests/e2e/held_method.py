"""A method of a user's own package that waits until a test lets it go on, and says that it has begun."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import PATIENCE_S
from tests.e2e.own_method import environment
from tests.tiny import write_suite

MODULE = '''"""Magnitude pruning that waits for a file before it ends."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from methods.base import Placement, ignore_layer
from methods.scores.magnitude import Magnitude


@dataclass(frozen=True)
class Held:
    gate: str = ""

    name: ClassVar[str] = "held"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = False

    @property
    def reconstructs(self):
        return False

    def comparison_group(self, shape, pattern):
        return Magnitude().comparison_group(shape, pattern)

    def prune(self, model, pattern, calibration, *, placement=Placement(), on_layer=ignore_layer):
        result = Magnitude().prune(model, pattern, None, placement=placement, on_layer=on_layer)
        gate = Path(self.gate)
        (gate / f"begun-{os.getpid()}").touch()
        while not (gate / "open").exists():
            time.sleep(0.01)
        return result
'''


def install(site: Path) -> dict[str, str]:
    """Puts the method where `prunebench` finds it; gives the environment for that."""
    metadata = site / "prunebench_held-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: prunebench-held\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[prunebench.methods]\nheld = prunebench_held:Held\n")
    (site / "prunebench_held.py").write_text(MODULE)
    return environment(site)


def write_held_suite(folder: Path) -> Path:
    """Cells that run in a moment around one that waits for the file `open` in the folder `gate`."""
    gate = folder / "gate"
    gate.mkdir()
    path = write_suite(folder, "magnitude", patterns=["0.3", "0.5", "0.7"])
    held = f'[[methods]]\nname = "held"\npatterns = ["0.5"]\nsettings = {{ gate = "{gate}" }}\n'
    late = '[[methods]]\nname = "wanda"\npatterns = ["0.3", "0.5"]\n'
    path.write_text("threads = 1\n" + path.read_text() + held + late)
    return path


@contextmanager
def starting(
    suite: Path, folder: Path, environment: dict[str, str]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Gives what runs a suite in `folder`, with more arguments; what still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "suite.cli", "run", str(suite), "--out", "runs", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate()


def begun(folder: Path, *, but: frozenset[int] = frozenset(), seconds: float = PATIENCE_S) -> int:
    """The process that has begun the cell that waits, other than some; waits for it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for file in (folder / "gate").glob("begun-*"):
            if (process := int(file.name.partition("-")[2])) not in but:
                return process
        time.sleep(0.05)
    raise AssertionError("the cell that waits was never begun")


def let_go(folder: Path) -> None:
    """The cell that waits goes on."""
    (folder / "gate" / "open").touch()


def is_gone(process: int, seconds: float = PATIENCE_S) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
