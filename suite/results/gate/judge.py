"""Judges a candidate against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from suite.results.gate.costs import judge_costs
from suite.results.gate.gate_inputs import Entry, Side, pair_cells
from suite.results.gate.quality import JudgedItems, by_significance, by_size
from suite.results.gate.remarks import codes_of, remarks_on
from suite.results.gate.tolerances import Tolerances, load_tolerances
from suite.results.gate.verdict import CellVerdict, Verdict
from suite.results.records.comparability import model_difference
from suite.results.records.state import describe_failure
from suite.results.statistics.pairing import pair_items


def judge(
    baseline: Side, candidate: Side, tolerances: Tolerances | None = None, across: Sequence[str] = ()
) -> Verdict:
    """Compares a candidate's records with a baseline's.

    A metric counts as worse if it changed beyond its tolerance and, for metrics with per-item values, the
    change is significant in a paired test, adjusted by Holm over all comparisons of the run.

    Args:
        baseline: the side to compare with.
        candidate: the side to judge.
        tolerances: how far each metric may change; None = the built-in tolerances.
        across: keys in which paired cells may differ (`suite.results.gate.gate_inputs.pair_cells`).

    Raises:
        InputError: the sides have no cell in common, a side has a cell twice, or a side file that is needed
            cannot be read.
    """
    tolerances = tolerances or load_tolerances()
    pairing = pair_cells(baseline, candidate, across)
    cells, judged = [], []
    for one, other in pairing.pairs:
        cell, items = _begin(one, other, tolerances)
        cells.append(cell)
        judged.append(items)
    verdicts = iter(by_significance([one for items in judged for one in items], tolerances.significance))
    cells = [
        replace(cell, metrics=(*(next(verdicts) for _ in items), *cell.metrics))
        for cell, items in zip(cells, judged, strict=True)
    ]
    for entry, reason in pairing.missing:
        cells.append(CellVerdict(entry.record.cell, reason=reason, whole="not comparable"))
    order = {entry.record.cell.digest: place for place, entry in enumerate(baseline.entries)}
    return Verdict(
        baseline=baseline.name,
        candidate=candidate.name,
        cells=tuple(sorted(cells, key=lambda cell: order[cell.cell.digest])),
        new=tuple(entry.record.cell for entry in pairing.new),
        tolerances=tolerances.origin,
        significance=tolerances.significance,
        baseline_code=codes_of(baseline),
        candidate_code=codes_of(candidate),
        remarks=tuple(remarks_on(baseline, candidate, tolerances)),
    )


def _begin(one: Entry, other: Entry, tolerances: Tolerances) -> tuple[CellVerdict, list[JudgedItems]]:
    """Judges a cell as far as possible, and returns the items that need the significance test of the run."""
    baseline, candidate = one.record, other.record
    verdict = CellVerdict(baseline.cell, candidate.cell)
    if candidate.status == "failed":
        known = baseline.status == "failed"
        reason = f"{'still fails' if known else 'failed'}: {describe_failure(candidate)}"
        return replace(verdict, whole="same" if known else "newly failing", reason=reason), []
    if baseline.status == "failed":
        reason = f"the baseline failed: {describe_failure(baseline)}"
        return replace(verdict, whole="better", reason=reason), []
    if (difference := model_difference(baseline, candidate)) is not None:
        return replace(verdict, whole="not comparable", reason=difference), []
    if baseline.mask_digest is not None and candidate.mask_digest is not None:
        verdict = replace(verdict, same_masks=baseline.mask_digest == candidate.mask_digest)
    paired = pair_items(baseline, candidate, first_items=one.item_values, second_items=other.item_values)
    costs = tuple(judge_costs(baseline, candidate, tolerances))
    return replace(verdict, metrics=costs), by_size(paired, tolerances)


__all__ = ["judge"]
