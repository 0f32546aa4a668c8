"""One ranking: comparable pruned records, best first, with marks for statistical ties."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reports.rankings.frame import cell_id, value_of
from reports.rankings.scores import Score, scores_of
from reports.wording import counted, target_sparsity, visible
from suite.results.records.record import Record

METHOD_PHASES = ("allocate", "initial", "statistics", "solve", "propagate")
"""Phases of the method itself, including its allocation and an initial prune shared with another cell; all
other phases belong to the surrounding run.
"""


@dataclass(frozen=True, order=True)
class Protocol:
    """A perplexity protocol with everything that has to be equal for two values to be comparable."""

    name: str
    corpus_digest: str
    corpus_revision: str
    seqlen: int
    limit: int
    """The cap on tokens; 0 = the whole corpus."""
    n: int
    """Number of windows measured."""


@dataclass(frozen=True, order=True)
class Setting:
    """What all records of one ranking have in common."""

    model: str
    weight_digest: str
    dtype: str
    protocols: tuple[Protocol, ...]


@dataclass(frozen=True)
class Entry:
    """One row of a ranking."""

    record: Record
    label: str
    rank: int | None
    """None for dense and for entries without perplexity."""
    scores: tuple[Score, ...]
    """One per protocol, in the order of the setting."""
    remarks: tuple[str, ...] = ()

    @cached_property
    def cell(self) -> str:
        """The eight digits that identify its cell on a page and in its file name."""
        return cell_id(self.record)

    @property
    def method_seconds(self) -> float | None:
        """See `method_seconds`."""
        return method_seconds(self.record)

    @property
    def end_to_end_seconds(self) -> float | None:
        """Seconds of the whole prune once the model is loaded; None if dense or not recorded."""
        return value_of(self.record, "prune_seconds")

    @property
    def peak_host_bytes(self) -> float | None:
        """The highest resident memory of the cell, from its metric or else its phases."""
        return self._peak("peak_host_bytes")

    @property
    def peak_device_bytes(self) -> float | None:
        """The highest memory allocated on the accelerator; None without one."""
        return self._peak("peak_device_bytes")

    def _peak(self, name: str) -> float | None:
        value = value_of(self.record, name)
        if value is not None:
            return value
        phases = [getattr(phase, name) for phase in self.record.phases]
        return max((float(p) for p in phases if p is not None), default=None)


@dataclass(frozen=True)
class Ranking:
    """Pruned records of one setting and one pattern, best first."""

    setting: Setting
    pattern: str | None
    """None if only the dense model was measured."""
    dense: Entry | None
    entries: tuple[Entry, ...]
    references: tuple[Record, ...] = ()
    """All dense records of the setting that add something to compare with, newest first: tasks, answers and
    speed may have been measured in another record than `dense`.
    """

    @property
    def with_dense(self) -> tuple[Entry, ...]:
        """The dense entry, if there is one, followed by the others."""
        return (self.dense, *self.entries) if self.dense else self.entries


def method_seconds(record: Record) -> float | None:
    """Returns the seconds in the method's own phases; None if no such phase was recorded."""
    spent = [phase.seconds for phase in record.phases if phase.name in METHOD_PHASES]
    return sum(spent) if spent else None


def pattern_order(pattern: str | None) -> tuple[float, bool, str]:
    """Sort key: dense first, then by sparsity, unstructured before N:M patterns of the same sparsity."""
    target = target_sparsity(pattern)
    return (-1.0 if target is None else target, ":" in (pattern or ""), pattern or "")


def rankings_of(setting: Setting, records: list[Record]) -> list[Ranking]:
    """Returns one ranking per pattern for the records of one setting."""
    references = _references([r for r in records if r.cell.is_dense])
    pruned = [r for r in records if not r.cell.is_dense]
    patterns = sorted({r.cell.pattern for r in pruned}, key=pattern_order) or [None]
    return [
        _ranking(setting, pattern, references, [r for r in pruned if r.cell.pattern == pattern])
        for pattern in patterns
    ]


def _references(dense: list[Record]) -> tuple[Record, ...]:
    """Keeps the newest dense record, and older ones that measured something which newer ones did not."""
    kept: list[Record] = []
    seen: set[object] = set()
    for record in sorted(dense, key=lambda r: r.created, reverse=True):
        cell = record.cell
        measured = {*cell.tasks, *(spec for spec in (cell.answers, cell.speed) if spec is not None)}
        if not kept or measured - seen:
            kept.append(record)
            seen |= measured
    return tuple(kept)


def _ranking(
    setting: Setting, pattern: str | None, references: tuple[Record, ...], pruned: list[Record]
) -> Ranking:
    dense = references[0] if references else None
    names = [p.name for p in setting.protocols]
    newest = max((r.created, r.code.source_digest) for r in [*pruned, *([dense] if dense else [])])[1]
    labels = distinct_labels(pruned)
    by_protocol = [scores_of(pruned, name, dense) for name in names]
    scored = [tuple(scores[i] for scores in by_protocol) for i in range(len(pruned))]
    rows = sorted(zip(scored, labels, pruned, strict=True), key=lambda row: (_rank_value(row[0]), row[1]))
    ranked = [
        Entry(
            record,
            label,
            place if math.isfinite(_rank_value(scores)) else None,
            scores,
            _remarks(record, newest),
        )
        for place, (scores, label, record) in enumerate(rows, 1)
    ]
    dense_entry = None
    if dense is not None:
        scores = tuple(scores_of([dense], name, None)[0].unmarked for name in names)
        dense_entry = Entry(dense, "dense", None, scores, _remarks(dense, newest))
    return Ranking(setting, pattern, dense_entry, tuple(ranked), references)


def _rank_value(scores: Sequence[Score]) -> float:
    value = scores[0].value if scores else None
    return math.inf if value is None else value


def distinct_labels(records: Sequence[Record]) -> list[str]:
    """Returns the variant of each record; equal ones are extended by what distinguishes them.

    That is their settings or, if these are the same, what else was measured.
    """
    labels = _told_apart([visible(r.cell.variant) for r in records], [_facts(r) for r in records])
    return _told_apart(labels, [{"measured": _measured(r)} for r in records])


def without_seed(record: Record, **alike: object) -> Record:
    """Reduces its cell to what determines the pruning and the perplexity, except for the seed.

    Args:
        record: any record.
        **alike: fields of its cell to set to these values, too.
    """
    calibration = record.cell.calibration and record.cell.calibration.model_copy(update={"seed": 0})
    same = {"calibration": calibration, "divergence": False, "tasks": (), "answers": None, "speed": None}
    return record.model_copy(update={"cell": record.cell.model_copy(update={**same, **alike})})


def by_seed(records: Sequence[Record]) -> list[dict[int, Record]]:
    """Groups the cells that differ only in the calibration seed and were run by the same code.

    Returns:
        For each family a map from seed to the newest record with it, lowest seed first; seed 0 if not
        calibrated.
    """
    families: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        families.setdefault((without_seed(record).cell.digest, record.code.source_digest), []).append(record)
    return [
        {_seed(record): record for record in sorted(family, key=lambda r: (_seed(r), r.created))}
        for family in families.values()
    ]


def _seed(record: Record) -> int:
    return record.cell.calibration.seed if record.cell.calibration else 0


def _told_apart(labels: Sequence[str], facts: Sequence[Mapping[str, object]]) -> list[str]:
    full = []
    for label, own in zip(labels, facts, strict=True):
        twins = [theirs for theirs, other in zip(facts, labels, strict=True) if other == label]
        apart = [f"{key}={value}" for key, value in own.items() if any(t.get(key) != value for t in twins)]
        full.append(f"{label} [{visible(', '.join(apart))}]" if apart else label)
    return full


def _facts(record: Record) -> dict[str, object]:
    cell = record.cell
    calibration = cell.calibration.model_dump() if cell.calibration else {}
    code = {"trust_remote_code": cell.trust_remote_code, "revision": cell.revision}
    allocation = cell.allocation.settings if cell.allocation else {}
    settings = {k: str(v) for k, v in {**cell.settings, **allocation}.items()}
    source = {"checkpoint": cell.checkpoint} if cell.checkpoint is not None else {}
    return {**settings, **calibration, **code, **source}


def _measured(record: Record) -> str:
    """Describes what was measured besides perplexity."""
    cell = record.cell
    parts = ["divergence"] if cell.divergence else []
    parts += [f"task {t.name}" + (f" (first {t.limit})" if t.limit else "") for t in cell.tasks]
    parts += [name for name in ("answers", "speed") if getattr(cell, name) is not None]
    return " and ".join(parts) or "perplexity alone"


def _remarks(record: Record, newest_code: str) -> tuple[str, ...]:
    remarks = []
    if record.code.source_digest != newest_code:
        remarks.append("made by other code than the newest row: rerun before trusting the order")
    if record.body_digest and not record.is_intact:
        remarks.append("changed after it was sealed: its digest no longer fits")
    if record.checkpoint is not None:
        remarks += _on_checkpoint(record, record.checkpoint.name)
    if record.warnings:
        remarks.append(counted(len(record.warnings), "warning"))
    return tuple(remarks)


def _on_checkpoint(record: Record, name: str) -> list[str]:
    """Returns remarks that apply only to a finished checkpoint, not to a model pruned here."""
    sparsity, took = record.metric("sparsity"), record.metric("prune_seconds")
    remarks = [f"finished checkpoint {visible(name)}"]
    if sparsity is not None and sparsity.protocol == "zeros":
        remarks.append("sparsity counted from zeros")
    if took is not None and took.protocol:
        remarks.append(f"prune time as {visible(took.protocol)} has it")
    return remarks
