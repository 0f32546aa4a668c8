"""The method of docs/adding-a-method.md as a user's own package, and suites of it that run in seconds."""

import os
import sys
from pathlib import Path

from tests.e2e.test_adding_a_method import PAGE, files_of
from tests.tiny import write_suite

SCORES = "scores = (weight * (weight @ problem.gram)).abs()"


def install(site: Path) -> Path:
    """Puts the module and its entry point into a folder, as pip would; gives the module's file."""
    metadata = site / "prunebench_gram-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: prunebench-gram\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[prunebench.methods]\ngram = prunebench_gram:Gram\n")
    module = site / "prunebench_gram.py"
    module.write_text(files_of(PAGE.read_text())["prunebench_gram.py"])
    return module


def turn_around(module: Path) -> None:
    """The method keeps what it should prune, and says nothing of it: its `version` stays."""
    text = module.read_text()
    assert text.count(SCORES) == 1
    module.write_text(text.replace(SCORES, SCORES.replace("= ", "= -")))


def write_own_suite(folder: Path, methods: str = "gram") -> Path:
    """A suite of the method on the tiny model, with what tells a good prune from a bad one there."""
    path = write_suite(folder, methods, patterns=["0.5"])
    path.write_text(path.read_text().replace("dtype =", "threads = 1\ndivergence = true\ndtype ="))
    return path


def environment(site: Path) -> dict[str, str]:
    """In which the package is found, and the command beside this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    return {**kept, "PATH": path, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"}
