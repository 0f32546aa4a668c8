"""The scripts of docs/scale.md do what they say: an array's tasks run a plan, and their trees become one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from suite.results import ResultStore
from tests import PATIENCE_S
from tests.tiny import write_suite

SCALE = Path(__file__).parent.parent.parent / "docs" / "scale"


def bash(folder: Path, *command: str, **variables: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", *command],
        cwd=folder,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_array_of_two_tasks_becomes_one_tree(tmp_path):
    suite = write_suite(tmp_path, "magnitude wanda", patterns=["0.5", "2:4"])
    suite.write_text("threads = 1\n" + suite.read_text())
    (tmp_path / "disk").mkdir()
    for task in ("1", "2"):
        bash(
            tmp_path,
            *(str(SCALE / "array.sbatch"), str(suite), "results"),
            SLURM_ARRAY_TASK_ID=task,
            SLURM_ARRAY_TASK_COUNT="2",
            SLURM_JOB_ID=f"7{task}",
            SLURM_CPUS_PER_TASK="1",
            SLURM_TMPDIR=str(tmp_path / "disk"),
        )
    assert not list((tmp_path / "disk").iterdir()), "a task takes its temporary files with it"
    bash(tmp_path, str(SCALE / "merge.sh"), "results", "merged")
    records = ResultStore(tmp_path / "merged").records()
    assert len(records.records) == 5 and not records.unreadable
    assert (tmp_path / "merged" / "report.html").is_file()


def test_the_directives_are_slurms():
    lines = (SCALE / "array.sbatch").read_text().splitlines()
    directives = [line.removeprefix("#SBATCH --").partition("=")[0] for line in lines if "#SBATCH" in line]
    known = {"job-name", "gpus-per-task", "cpus-per-task", "mem", "time", "output", "signal"}
    assert set(directives) == known
    first_command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(n for n, line in enumerate(lines) if "#SBATCH" in line) < first_command, "read only before it"
