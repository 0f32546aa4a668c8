"""`python -m benchmarks.reuse MODEL`: time of many rebuilds of one initial mask, with and without sharing it.

Runs a dense cell and several LLM-Barber cells that differ only in their rebuild, alternately with the initial
prune stored in a shared folder and with each cell pruning for itself; the initial prunes are timed. If
sharing costs nothing, the suite with sharing takes the time without it minus the repeated initial prunes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from methods.initial import initial_prunes_from

if TYPE_CHECKING:
    from suite.cell import Cell


@dataclass(frozen=True)
class Turn:
    """One run of the suite both with and without sharing.

    Attributes:
        alone: seconds without sharing.
        initial: seconds of all initial prunes but the first, a part of `alone`.
        shared: seconds with sharing.
        ratio: shared / (alone - initial); 1 means that sharing costs nothing.
        same_masks: whether every cell has the same masks with and without sharing.
    """

    alone: float
    initial: float
    shared: float
    ratio: float
    same_masks: bool


class _Timed:
    """Prunes by initial methods each time, and times it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def prune(
        self, method: Any, model: Any, pattern: Any, calibration: Any, placement: Any, *, weights: bool
    ) -> Any:
        start = time.perf_counter()
        result = method.prune(model, pattern, calibration, placement=placement)
        self.seconds.append(time.perf_counter() - start)
        return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, and writes all numbers to `--out`."""
    asked = _parser().parse_args(arguments)
    cells = _cells(asked)
    turns = [turn(cells, asked.device, shared_first=bool(n % 2)) for n in range(asked.repeats)]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps([asdict(row) for row in turns], indent=1) + "\n")
    print(
        f"{len(cells) - 1} rebuilds of one {asked.initial} mask, {asked.n_samples} x {asked.seqlen} "
        "tokens\n\n"
        "| alone, s | repeated initial prunes, s | shared, s | shared / (alone - repeated) | same masks |\n"
        "|---|---|---|---|---|"
    )
    for row in turns:
        print(
            f"| {row.alone:.1f} | {row.initial:.1f} | {row.shared:.1f} | {row.ratio:.3f} | "
            f"{'yes' if row.same_masks else 'NO'} |"
        )
    print(f"\nmedian ratio {statistics.median(row.ratio for row in turns):.3f}")
    if not all(row.same_masks for row in turns):
        sys.exit("a shared initial mask changed what was decided")


def turn(cells: Sequence[Cell], device: str, *, shared_first: bool) -> Turn:
    """Runs the cells both ways in the given order: warming up or throttling favours one of them."""
    timed = _Timed()
    if shared_first:
        shared, masks = _run(cells, device, share=True)
    with initial_prunes_from(timed):
        alone, masks_alone = _run(cells, device, share=False)
    if not shared_first:
        shared, masks = _run(cells, device, share=True)
    repeated = sum(timed.seconds[1:])
    return Turn(alone, repeated, shared, shared / (alone - repeated), masks == masks_alone)


def _run(cells: Sequence[Cell], device: str, *, share: bool) -> tuple[float, list[str | None]]:
    """Returns the seconds of all cells, including loading the model, and their masks."""
    from suite.planning.preflight import preflight
    from suite.running.model_session import ModelSession
    from suite.running.run_cell import run_cell
    from suite.sharing import SharedWork, wanted_initials
    from suite.sharing.folder import SharedFolder

    inputs = preflight(cells)
    with _folder() as folder:
        start = time.perf_counter()
        work = SharedWork(SharedFolder(folder), wanted_initials(cells)) if share else None
        bench = ModelSession(torch.device(device), inputs, shared=work)
        records = [run_cell(cell, bench)[0] for cell in cells]
        seconds = time.perf_counter() - start
    for record in records:
        if record.failure is not None:
            sys.exit(f"{record.cell.label}: {record.failure.message}")
    return seconds, [record.mask_digest for record in records]


@contextmanager
def _folder() -> Iterator[Path]:
    # In the working directory, because a folder for temporary files may be in memory.
    folder = Path(tempfile.mkdtemp(prefix=".reuse-", dir="."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cells(asked: argparse.Namespace) -> list[Cell]:
    """Returns a dense cell, and the requested number of rebuilds, each with a different ratio."""
    from suite.machine.devices import resolve_device, resolve_dtype
    from suite.planning.suite_cells import plan
    from suite.planning.suite_file import parse_suite

    granularities = ("output", "layer", "input", "block")
    ratios = [(n + 1) / (2 * asked.settings) for n in range(asked.settings)]
    methods = "".join(
        f'[[methods]]\nname = "llm-barber"\nsettings = {{ initial = "{asked.initial}", '
        f'rebuild_ratio = {ratio}, granularity = "{granularities[n % 4]}" }}\n'
        for n, ratio in enumerate(ratios)
    )
    text = (
        f'name = "reuse"\nmodels = [{json.dumps(asked.model)}]\npatterns = ["{asked.pattern}"]\n'
        f'dtype = "{asked.dtype}"\ndivergence = true\n{methods}'
        f"[calibration]\nsource = {json.dumps(asked.corpus)}\nn_samples = {asked.n_samples}\n"
        f"seqlen = {asked.seqlen}\n[[perplexity]]\ncorpus = {json.dumps(asked.corpus)}\n"
        f"seqlen = {asked.seqlen}\nmax_tokens = {asked.max_tokens}\n"
    )
    config = parse_suite(text.encode(), file="reuse")
    return plan(config, dtype=resolve_dtype(config.dtype, resolve_device(asked.device)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reuse", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--settings", type=int, default=8, help="number of rebuilds")
    parser.add_argument("--initial", default="sparsegpt")
    parser.add_argument("--pattern", default="0.5")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--corpus", default="wiki-sample")
    parser.add_argument("--n-samples", type=int, default=32)
    parser.add_argument("--seqlen", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=4096, help="tokens of the evaluation")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/reuse.json"))
    return parser


if __name__ == "__main__":
    main()
