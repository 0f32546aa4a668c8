"""Times methods on a model that is on the device as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.gpu.ledger import Ledger
from benchmarks.gpu.shapes import Shape, fill
from benchmarks.machine import measuring
from benchmarks.sizes import workload
from benchmarks.timing import Bench, empty_row, expected_seconds, time_method
from methods.base import Placement
from methods.errors import InputError


def run(
    stage: str,
    shape: Shape,
    runs: Sequence[tuple[str, str]],
    device: torch.device,
    ledger: Ledger,
    *,
    repeats: int = 1,
) -> None:
    """Makes one row per method and pattern.

    Args:
        stage: stage of the rows.
        shape: shape of the model.
        runs: method and pattern, in the order in which they are timed.
        device: device of the model.
        ledger: takes the rows.
        repeats: number of repeats of each prune.
    """
    model = shape.build(device)
    placement = Placement()
    bench = Bench(
        stage=stage,
        name=shape.name,
        model=model,
        restore=partial(fill, model),
        calibration=shape.calibration(),
        placement=placement,
        load=workload(model, shape.n_samples, shape.seqlen, placement),
        rates=measuring(model, shape.n_samples, shape.seqlen),
        device=device,
    )
    make_rows(bench, runs, ledger, repeats=repeats)


def make_rows(bench: Bench, runs: Sequence[tuple[str, str]], ledger: Ledger, *, repeats: int) -> None:
    """Times each method and pattern for which there is time."""
    rates = bench.rates()
    for method, pattern in runs:
        try:
            expected = repeats * expected_seconds(bench, method, rates)
        except InputError:  # no such method, or no floor for it: the row will contain the error
            expected = 0
        ledger.make(
            empty_row(bench, method, pattern),
            partial(time_method, bench, method, pattern, repeats=repeats),
            expected,
        )


__all__ = ["make_rows", "run"]
