"""`python -m benchmarks.executors [SUITE]`: do all executors give the same masks and numbers for one suite?

Runs the suite with the command line in four ways, as a user would: in one process, in two, on Ray on this
machine with two workers, and in two shards whose trees are copied into one. Verifies the trees, then compares
all masks and all metrics that are not costs, exactly. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from suite.results import ResultStore

WAYS: dict[str, list[list[str]]] = {
    "local": [["--out", "{tree}"]],
    "processes": [["--out", "{tree}", "--workers", "2"]],
    "ray": [["--out", "{tree}", "--executor", "ray", "--workers", "2"]],
    "shards": [["--out", "{tree}-1", "--shard", "1/2"], ["--out", "{tree}-2", "--shard", "2/2"]],
}
COSTS = ("seconds", "bytes", "joules", "per_second")
"""Endings of names of metrics that depend on machine and time."""
SUITE = Path(__file__).with_name("executors.toml")
REPOSITORY = Path(__file__).parent.parent

Numbers = dict[str, tuple[object, ...]]
"""Maps the digest of a cell to its label, masks, threads and all metrics that are not costs."""


def run_way(suite: Path, way: str, folder: Path) -> Numbers:
    """Runs a suite in one of the ways, in `folder`; returns the numbers of its records.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """
    tree = folder / way
    for arguments in WAYS[way]:
        prunebench(folder, "run", str(suite), *(argument.format(tree=tree) for argument in arguments))
    if way == "shards":
        parts = [folder / f"{way}-{n}" for n in (1, 2)]
        prunebench(folder, "verify", *map(str, parts))
        for part in parts:
            for model in (path for path in part.iterdir() if path.is_dir()):
                shutil.copytree(model, tree / model.name, dirs_exist_ok=True)
    prunebench(folder, "verify", str(tree))
    return numbers(tree)


def numbers(tree: Path) -> Numbers:
    """Returns the numbers of the records of a tree, without costs."""
    return {
        record.cell.digest: (
            record.cell.label,
            record.mask_digest,
            record.initial_mask_digest,
            record.environment.threads,
            *((m.name, m.protocol, m.value) for m in record.metrics if not m.name.endswith(COSTS)),
        )
        for record in (stored.record for stored in ResultStore(tree).records().records)
    }


def prunebench(folder: Path, *arguments: str) -> str:
    """Runs the command in `folder`, with a scratch folder in it; returns its stderr.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "suite.cli", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PRUNEBENCH_SCRATCH": str(folder / "scratch"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()
    return done.stderr


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the suite in all ways, prints a table, and exits with 1 if anything differs."""
    asked = _parser().parse_args(arguments)
    differs = False
    with tempfile.TemporaryDirectory(dir=".", prefix=".executors-") as name:
        folder = Path(name).resolve()
        print("| executor | seconds | cells | masks and metrics |\n|---|---|---|---|")
        expected: Numbers | None = None
        for way in asked.ways:
            start = time.perf_counter()
            found = run_way(asked.suite.resolve(), way, folder)
            seconds = time.perf_counter() - start
            expected = found if expected is None else expected
            same = found == expected
            differs = differs or not same
            print(
                f"| {way} | {seconds:.0f} | {len(found)} | {'the same' if same else 'OTHERS'} |", flush=True
            )
            for digest in expected.keys() | found.keys():
                if expected.get(digest) != found.get(digest):
                    print(f"{expected.get(digest)}\n{found.get(digest)}", file=sys.stderr)
    if differs:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executors", description=__doc__)
    parser.add_argument("suite", type=Path, nargs="?", default=SUITE, help="with `threads` and `dtype` fixed")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    return parser


if __name__ == "__main__":
    main()
