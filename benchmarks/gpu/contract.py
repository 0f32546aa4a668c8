"""Stage `contract`: checks every method on the device, the repeatability of a prune, and SparseGPT's column
walk against that of the host.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.gpu.ledger import Ledger
from benchmarks.gpu.shapes import Shape
from benchmarks.precision import agreement
from benchmarks.rows import CONTRACT, Row, Setting
from methods.conformance import FAMILIES, Case, Verdict, covering, covering_hard, examine
from methods.conformance.family import Family
from methods.conformance.variants import built_in_variants
from methods.masks.pattern import SemiStructured, UniformPattern, parse_pattern
from methods.registry import build
from methods.updates.inverse_factor import inverse_factor
from methods.updates.sparsegpt_block import block_size, solve_block
from methods.updates.sparsegpt_columns import BlockSolver, block_solver, solve_columns

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPEATED = "llm-barber"
"""The method that is run twice: it includes forwards, backwards and sums over samples."""
REPEATED_PATTERNS = ("0.5", "2:4")
COLUMNS = "solve_columns"
COLUMN_PATTERNS = ("0.5", "2:4", "4:8", "1:4")
LEAST_AGREEMENT = 0.999
"""Least share of a mask on which two devices must agree. They sum in different orders, so a weight whose
score is next to the threshold may be kept or pruned, and later decisions follow from it.
"""


@dataclass(frozen=True)
class DeviceFamily(Family):
    """A family whose models are created on a device.

    Attributes:
        device: name of the device.
    """

    device: str = "cpu"

    @classmethod
    def of(cls, family: Family, device: torch.device) -> DeviceFamily:
        """Returns the same family with its models on `device`."""
        return cls(
            **{entry.name: getattr(family, entry.name) for entry in fields(Family)}, device=str(device)
        )

    def build(self, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """Returns a new model on the device, with the same weights each time."""
        return super().build(dtype).to(self.device)


def run(
    device: torch.device, ledger: Ledger, folder: Path, *, repeated: Shape, limit: int | None = None
) -> None:
    """Makes one row per pattern of the column walk and of the repeated prune, and one per method with its
    settings.

    Also stores the outcome of every case in `contract-cases.json`, so that a later run continues where this
    one stopped.

    Args:
        device: device of the models.
        ledger: takes the rows.
        folder: folder of the stored outcomes.
        repeated: shape of the model that is pruned twice.
        limit: maximum number of cases, spread over all; None for all that cover every pair.
    """
    for pattern in COLUMN_PATTERNS:
        row = Row(CONTRACT, "random matrix", COLUMNS, pattern, dtype="float32")
        ledger.make(row, _on(device, row))
    for pattern in REPEATED_PATTERNS:
        dtype = str(repeated.dtype).removeprefix("torch.")
        row = Row(CONTRACT, f"{repeated.name}, {repeated.n_layers} layers, {dtype}", REPEATED, pattern, dtype)
        ledger.make(row, partial(_twice, repeated, device, row))
    cases = _cases(device, limit)
    outcomes = _Outcomes(folder / "contract-cases.json", ledger.setting)
    for done, case in enumerate(cases):
        if ledger.out_of_time:
            break
        if case.name not in outcomes.by_case:
            outcome = examine(case)
            outcomes.take(case, outcome.verdict, outcome.reason)
        if (done + 1) % 25 == 0:
            _take_rows(ledger, cases, outcomes)
    _take_rows(ledger, cases, outcomes)
    print(f"contract: {len(outcomes.by_case)} of {len(cases)} cases tried", file=sys.stderr)


class _Outcomes:
    """The outcome of each case, on disk."""

    def __init__(self, path: Path, setting: Setting) -> None:
        self._path = path
        self._setting = asdict(setting)
        self.by_case: dict[str, dict[str, str]] = {}
        if path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["setting"] == self._setting:
                found = stored["cases"].items()
                self.by_case = {name: outcome for name, outcome in found if outcome["verdict"] != "broken"}

    def take(self, case: Case, verdict: Verdict, reason: str) -> None:
        self.by_case[case.name] = {"method": case.label, "verdict": verdict.value, "reason": reason}
        content = {"setting": self._setting, "cases": self.by_case}
        staging = self._path.with_suffix(".tmp")
        staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        staging.replace(self._path)


def _cases(device: torch.device, limit: int | None) -> list[Case]:
    """Returns the cases that cover all pairs, in an order in which every prefix is a sample of all."""
    variants, families = built_in_variants(), list(FAMILIES.values())
    cases = [*covering(variants, families), *covering_hard(variants, families)]
    step = next(step for step in (37, 41, 43) if len(cases) % step)
    mixed = [cases[place * step % len(cases)] for place in range(len(cases))]
    return [replace(case, family=DeviceFamily.of(case.family, device)) for case in mixed[:limit]]


def _take_rows(ledger: Ledger, cases: Sequence[Case], outcomes: _Outcomes) -> None:
    """Takes one row per method with its settings, over the cases so far."""
    for label in dict.fromkeys(case.label for case in cases):
        mine = [case for case in cases if case.label == label]
        found = [outcomes.by_case[case.name] for case in mine if case.name in outcomes.by_case]
        if not found:
            continue
        counts = Counter(outcome["verdict"] for outcome in found)
        broken = [outcome["reason"] for outcome in found if outcome["verdict"] == "broken"]
        summary = ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
        row = Row(
            CONTRACT,
            "families of the contract",
            label,
            "all",
            status="broken" if broken else "ok",
            detail=f"{summary}, of {len(mine)} cases" + "".join(f"; {reason}" for reason in broken[:3]),
        )
        ledger.take(row, aloud=bool(broken))


def _twice(shape: Shape, device: torch.device, row: Row) -> Row:
    """Prunes the same model twice and compares the masks bit for bit."""
    first, second = (
        build(row.method).prune(shape.build(device), parse_pattern(row.pattern), shape.calibration())
        for _ in range(2)
    )
    same = first.mask_digest == second.mask_digest
    detail = f"pruned twice on {device.type}: " + (
        "the same masks" if same else f"masks agree on {agreement(first, second):.6%}"
    )
    return replace(row, status="ok" if same else "differs", detail=detail)


def _on(device: torch.device, row: Row) -> Callable[[], Row]:
    """Compares the column walk on the device with the host's, and the kernel with its plain twin."""

    def compare() -> Row:
        generator = torch.Generator().manual_seed(3)
        weight = torch.randn(200, 384, generator=generator)
        inputs = torch.randn(4096, 384, generator=generator) @ torch.randn(384, 384, generator=generator)
        factor, _ = inverse_factor("the test", inputs.T @ inputs, 0.01)
        pattern = parse_pattern(row.pattern)
        width = block_size(pattern, 128)
        here = solve_columns(weight, factor, pattern, width)
        there = solve_columns(weight.to(device), factor.to(device), pattern, width)
        walks = _agreement(here, there)
        detail = f"{device.type} and cpu: {walks}"
        worst = walks.share
        if block_solver(weight.to(device)) is not solve_block:
            blocks = _agreement(
                _one_block(solve_block, weight.to(device), factor.to(device), pattern, width),
                _one_block(
                    block_solver(weight.to(device)), weight.to(device), factor.to(device), pattern, width
                ),
            )
            detail += f"; kernel and twin on {device.type}, one block: {blocks}"
            worst = min(worst, blocks.share)
        return replace(row, status="ok" if worst >= LEAST_AGREEMENT else "differs", detail=detail)

    return compare


@dataclass(frozen=True)
class _Agreement:
    """How closely two results of the column walk agree.

    Attributes:
        share: share of all weights on which the masks agree.
        error: relative distance of the weights that both keep.
    """

    share: float
    error: float

    def __str__(self) -> str:
        return f"masks agree on {self.share:.4%}, weights within {self.error:.1e}"


def _agreement(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> _Agreement:
    keep, weight = (part.cpu() for part in one)
    other_keep, other_weight = (part.cpu() for part in other)
    both = keep & other_keep
    distance = float((weight - other_weight)[both].norm() / weight[both].norm())
    return _Agreement(float((keep == other_keep).float().mean()), distance)


def _one_block(
    solve: BlockSolver, weight: Tensor, factor: Tensor, pattern: UniformPattern, width: int
) -> tuple[Tensor, Tensor]:
    """Returns keep-mask and weights after the first block; unstructured patterns prune every other column of
    it.
    """
    weight = weight.clone()
    keep = torch.ones_like(weight, dtype=torch.bool)
    if not isinstance(pattern, SemiStructured):
        keep[:, 0:width:2] = False
    solve(weight, keep, factor.contiguous(), pattern, 0, width)
    return keep[:, :width], weight[:, :width].masked_fill(~keep[:, :width], 0)


__all__ = ["DeviceFamily", "run"]
