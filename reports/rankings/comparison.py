"""Sorts records into rankings of what may be compared; independent of how they are shown.

Two records are in one ranking only if model weights, dtype, and all perplexity protocols with their corpus
and limit are the same. Anything that differs gets a ranking of its own, and a note explains why. Other
measurements (tasks, answers, speed) may differ: they are compared only between records that have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from reports.rankings.ranking import Protocol, Ranking, Setting, pattern_order, rankings_of
from reports.wording import counted, listed, pattern_name, visible
from suite.results.records.comparability import machine_of
from suite.results.records.items import WindowLosses
from suite.results.records.record import Record


class ReportError(ValueError):
    """There is nothing to report. The message is a single line."""


@dataclass(frozen=True)
class Comparison:
    """Everything a report shows."""

    rankings: tuple[Ranking, ...]
    failed: tuple[Record, ...]
    notes: tuple[str, ...]
    """Facts that a reader must know before comparing, one sentence each."""


def compare(records: Sequence[Record]) -> Comparison:
    """Sorts records into rankings.

    Raises:
        ReportError: there are no records.
    """
    if not records:
        raise ReportError("no records to report: run a suite first, or name a folder that holds its results")
    latest, notes = _latest_of_each_cell(records)
    done: dict[Setting, list[Record]] = {}
    for record in latest:
        if record.status == "complete":
            done.setdefault(_setting(record), []).append(record)
    rankings = [ranking for setting, found in done.items() for ranking in rankings_of(setting, found)]
    rankings.sort(key=lambda r: (r.setting.model, r.setting, pattern_order(r.pattern)))
    notes += _dense_left_out(rankings, [r for r in latest if r.status == "complete" and r.cell.is_dense])
    notes += _incomparable(sorted({r.setting for r in rankings}))
    notes += [note for ranking in rankings for note in _notes_on(ranking)]
    failed = sorted((r for r in latest if r.status == "failed"), key=lambda r: (r.cell.model, r.cell.stem))
    return Comparison(tuple(rankings), tuple(failed), tuple(dict.fromkeys(notes)))


def finished_records(rankings: Sequence[Ranking]) -> list[Record]:
    """Returns every record with numbers once, in the order of the rankings."""
    found: dict[int, Record] = {}
    for ranking in rankings:
        for record in (*ranking.references, *(entry.record for entry in ranking.entries)):
            found[id(record)] = record
    return list(found.values())


def _latest_of_each_cell(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Returns the newest record of each cell, and also its failure if that came later."""
    latest: dict[str, Record] = {}
    failed: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: r.created):
        digest = record.cell.digest
        if record.status == "complete":
            latest[digest] = record
            failed.pop(digest, None)
        else:
            failed[digest] = record
    kept = [*latest.values(), *failed.values()]
    dropped = len(records) - len(kept)
    if not dropped:
        return kept, []
    return kept, [
        f"{counted(dropped, 'record')} left out: the same cell has a newer one here, which is shown."
    ]


def _dense_left_out(rankings: Sequence[Ranking], dense: Sequence[Record]) -> list[str]:
    shown = {id(record) for ranking in rankings for record in ranking.references}
    dropped = sum(id(record) not in shown for record in dense)
    if not dropped:
        return []
    return [f"{counted(dropped, 'dense record')} left out: newer ones of the same setting measured as much."]


def _setting(record: Record) -> Setting:
    model = record.model
    return Setting(
        model=visible(record.cell.model),
        weight_digest=model.weight_digest if model else "",
        dtype=model.dtype if model else record.cell.dtype,
        protocols=_protocols(record),
    )


def _protocols(record: Record) -> tuple[Protocol, ...]:
    """Returns the protocols in the order of the cell's configuration; the first one determines the ranks.

    Only texts count: a task may have a perplexity too, but tasks do not separate rankings.
    """
    found = {w.protocol: _protocol(w) for w in record.windows}
    asked = [name for p in record.cell.perplexity for name in p.protocols]
    for metric in record.metrics:
        if metric.name == "perplexity" and metric.protocol in asked and metric.protocol not in found:
            found[metric.protocol] = Protocol(metric.protocol, "", "", 0, 0, metric.n or 0)
    return tuple(sorted(found.values(), key=lambda p: asked.index(p.name) if p.name in asked else len(asked)))


def _protocol(windows: WindowLosses) -> Protocol:
    return Protocol(
        windows.protocol,
        windows.corpus_digest,
        windows.corpus_revision,
        windows.seqlen,
        windows.limit or 0,
        len(windows.nll),
    )


def _incomparable(settings: list[Setting]) -> list[str]:
    notes = []
    for model, group in groupby(settings, key=lambda s: s.model):
        alike = list(group)
        if len(alike) > 1:
            notes.append(
                f"Not comparable: {model} was measured under {len(alike)} settings, which differ in "
                f"{listed(_differences(alike))}. Each is ranked on its own."
            )
    return notes


def _differences(settings: Sequence[Setting]) -> list[str]:
    views: dict[str, Iterable[object]] = {
        "model weights": (s.weight_digest for s in settings),
        "dtype": (s.dtype for s in settings),
        "protocols": (tuple(p.name for p in s.protocols) for s in settings),
    }
    by_protocol: dict[str, list[Protocol]] = {}
    for protocol in (p for s in settings for p in s.protocols):
        by_protocol.setdefault(protocol.name, []).append(protocol)
    for name, found in by_protocol.items():
        views[f"corpus of {visible(name)}"] = ((p.corpus_digest, p.corpus_revision) for p in found)
        views[f"token limit of {visible(name)}"] = ((p.limit, p.n, p.seqlen) for p in found)
    return [view for view, values in views.items() if len(set(values)) > 1]


def _notes_on(ranking: Ranking) -> list[str]:
    where = f"{ranking.setting.model}, {pattern_name(ranking.pattern)}"
    notes = []
    if ranking.dense is None:
        notes.append(f"{where}: no dense record under this setting, so there is no ratio to dense.")
    if not ranking.setting.protocols:
        notes.append(f"{where}: no perplexity was measured, so nothing is ranked.")
    machines = {machine_of(e.record) for e in ranking.entries}
    if len(machines) > 1:
        notes.append(
            f"{where}: the records come from {len(machines)} kinds of machine, thread counts or placements; "
            "times and memory are comparable only within one of them."
        )
    return notes
