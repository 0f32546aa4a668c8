"""What one part adds to a recipe, from pairs of cells that differ only in that part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp
from statistics import fmean

from reports.rankings.ranking import Protocol, Ranking, by_seed, distinct_labels, without_seed
from reports.wording import visible
from suite.results.records.record import RecipePart, Record
from suite.results.statistics.perplexity import paired_log_ratio
from suite.results.statistics.single import PairedEstimate

ROLES = ("allocation", "score", "refinement", "second pass", "update")
"""Kinds of parts, in the order in which they are shown."""

_Losses = tuple[float | None, ...]


@dataclass(frozen=True)
class Addition:
    """The effect of one part that only one of two otherwise equal cells has, on one text.

    Attributes:
        part: the added part.
        base: label of the recipe that it was added to, without the seed.
        record: record of the base with the lowest seed.
        pattern: the pattern of both cells.
        protocol: protocol of the perplexities.
        seeds: calibration seeds that both were run with; empty if neither is calibrated.
        before: perplexity without the part, the geometric mean over seeds.
        after: perplexity with the part, likewise.
        ratio: `after` over `before`, with its interval over windows, whose losses are means over seeds.
        lowest: the lowest ratio of one seed.
        highest: the highest ratio of one seed.
    """

    part: RecipePart
    base: str
    record: Record
    pattern: str | None
    protocol: Protocol
    seeds: tuple[int, ...]
    before: float
    after: float
    ratio: PairedEstimate
    lowest: float
    highest: float

    @property
    def title(self) -> str:
        """The part, worded for a heading."""
        text = visible(self.part.text)
        return f"{text}, in a second pass" if self.part.role == "second pass" else text


def additions(rankings: Sequence[Ranking]) -> list[Addition]:
    """Returns all additions of one setting, sorted by part, by pattern, best base first."""
    found: list[tuple[int, Addition]] = []
    for order, ranking in enumerate(rankings):
        families = by_seed([entry.record for entry in ranking.entries if entry.record.parts])
        labels = distinct_labels([without_seed(_first(family)) for family in families])
        for (label, base), other in product(zip(labels, families, strict=True), families):
            part = _added(_first(base).parts, _first(other).parts)
            pairs = [] if part is None else _pairs(base, other)
            if part is None or not pairs:
                continue
            each = (_addition(part, label, pairs, protocol) for protocol in ranking.setting.protocols)
            found += [(order, addition) for addition in each if addition is not None]
    found.sort(key=lambda one: (ROLES.index(one[1].part.role), one[1].title, one[0], one[1].before))
    return [addition for _, addition in found]


def _first(family: Mapping[int, Record]) -> Record:
    return next(iter(family.values()))


def _added(fewer: Sequence[RecipePart], more: Sequence[RecipePart]) -> RecipePart | None:
    """Returns the one part that only `more` has; None if they differ in anything else."""
    if len(more) != len(fewer) + 1:
        return None
    for place, part in enumerate(more):
        if (*more[:place], *more[place + 1 :]) == tuple(fewer):
            return part if part.role in ROLES else None
    return None


def _pairs(base: Mapping[int, Record], other: Mapping[int, Record]) -> list[tuple[Record, Record]]:
    """Pairs the records by seed; a base that is not calibrated is paired with each of the other's records."""
    first, second = without_seed(_first(base)), without_seed(_first(other))
    if _question(first) != _question(second):
        return []
    if first.cell.calibration not in (None, second.cell.calibration):
        return []
    if first.cell.calibration is None:
        return [(_first(base), record) for record in other.values()]
    return [(base[seed], other[seed]) for seed in base if seed in other]


def _question(record: Record) -> str:
    """Returns a digest of what a cell measures, independent of how it is pruned."""
    return without_seed(record, method="", settings={}, allocation=None, calibration=None).cell.digest


def _addition(
    part: RecipePart, label: str, pairs: Sequence[tuple[Record, Record]], protocol: Protocol
) -> Addition | None:
    """Returns None if one of the two has no finite losses on the text."""
    before, after = (list(_losses(side, protocol.name)) for side in zip(*pairs, strict=True))
    if len(before) < len(pairs) or len(after) < len(pairs):
        return None
    ratio = paired_log_ratio(_mean_losses(after), _mean_losses(before))
    each = [paired_log_ratio(b, a).value for a, b in zip(before, after, strict=True)]
    of_seeds = [value for value in each if value is not None]
    if ratio.value is None or len(of_seeds) < len(pairs):
        return None
    base = pairs[0][0]
    level = exp(fmean(x for x in _mean_losses(before) if x is not None))
    seeds = tuple(r.cell.calibration.seed for _, r in pairs if r.cell.calibration is not None)
    return Addition(
        part,
        label,
        base,
        base.cell.pattern,
        protocol,
        seeds,
        level,
        level * ratio.value,
        ratio,
        min(of_seeds),
        max(of_seeds),
    )


def _losses(records: Sequence[Record], protocol: str) -> Iterator[_Losses]:
    for record in records:
        yield from (w.nll for w in record.windows if w.protocol == protocol)


def _mean_losses(of_seeds: Sequence[_Losses]) -> list[float | None]:
    """Returns the mean over seeds, `[n_windows]`; None for a window that a seed has no loss for."""
    return [
        None if any(x is None for x in window) else fmean(x for x in window if x is not None)
        for window in zip(*of_seeds, strict=True)
    ]


__all__ = ["ROLES", "Addition", "additions"]
