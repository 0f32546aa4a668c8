"""`python -m benchmarks.executors [SUITE]`: one suite through every executor; are masks and numbers the same?

Each way runs by the command, as a user would run it: in one process, in two, on a Ray of this machine's own
with two workers, and in two shards whose trees are copied into one. Trees are verified, then all masks and
all metrics that are no costs are compared, exactly. Ends with 1 where anything differs.
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
"""How the names of metrics end that belong to a machine and a moment."""
SUITE = Path(__file__).with_name("executors.toml")
REPOSITORY = Path(__file__).parent.parent

Numbers = dict[str, tuple[object, ...]]
"""Digest of a cell -> label, masks, threads and every metric that is no cost."""


def run_way(suite: Path, way: str, folder: Path) -> Numbers:
    """Runs a suite one way, in `folder`, and gives what its records hold.

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
    """What the records of a tree hold, costs aside."""
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
    """Runs the command in `folder`, with a scratch of its own there; gives what it said on stderr.

    Raises:
        subprocess.CalledProcessError: it failed.
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
    """Runs all ways, prints a table, and ends with 1 where anything differs."""
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
