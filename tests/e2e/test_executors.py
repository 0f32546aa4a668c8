"""One suite through every executor: the same masks and numbers, each cell once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from suite.results import ResultStore
from tests.tiny import write_suite

REPOSITORY = Path(__file__).parent.parent.parent
COSTS = ("seconds", "bytes", "joules", "per_second")
RUNS = {
    "local": [["--out", "runs"]],
    "processes": [["--out", "runs", "--workers", "2"]],
    "ray": [["--out", "runs", "--executor", "ray", "--workers", "2"]],
    "shards": [["--out", "one", "--shard", "1/2"], ["--out", "two", "--shard", "2/2"]],
}


def run(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "suite.cli", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PRUNEBENCH_SCRATCH": str(folder / "scratch"),
            "PYTHONPATH": str(REPOSITORY),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr


def numbers(tree: Path) -> dict[str, tuple[object, ...]]:
    """Of each cell its masks, and every metric that is no cost."""
    contents = ResultStore(tree).records()
    assert not contents.unreadable
    return {
        record.cell.digest: (
            record.mask_digest,
            record.initial_mask_digest,
            record.environment.threads,
            *((m.name, m.value) for m in record.metrics if not m.name.endswith(COSTS)),
        )
        for record in (stored.record for stored in contents.records)
    }


@pytest.mark.parametrize("how", ["processes", "ray", "shards"])
def test_executors_give_the_same_masks_and_numbers(tmp_path, how):
    if how == "ray":
        pytest.importorskip("ray")
    suite = write_suite(tmp_path, "magnitude wanda sparsegpt llm-barber", patterns=["0.5"])
    suite.write_text("divergence = true\nthreads = 1\n" + suite.read_text())
    found = {}
    for name in ("local", how):
        for arguments in RUNS[name]:
            run(tmp_path, "run", str(suite), *arguments)
        if name == "shards":
            run(tmp_path, "verify", "one", "two")
            for part in ("one", "two"):
                for tree in (tmp_path / part).iterdir():
                    if tree.is_dir():
                        shutil.copytree(tree, tmp_path / "runs" / tree.name, dirs_exist_ok=True)
        run(tmp_path, "verify", "runs")
        found[name] = numbers(tmp_path / "runs")
        shutil.move(tmp_path / "runs", tmp_path / name)
    assert len(found["local"]) == 5
    assert found[how] == found["local"], "to the bit: threads, batches and code are the same"
    assert {entry[2] for entry in found[how].values()} == {1}
    assert not list((tmp_path / "scratch").glob("shared-*")), "a finished plan leaves nothing"
