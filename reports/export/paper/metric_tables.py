"""Tables of per-item metrics: a row per method, a column per pattern, with value and standard error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reports.chapters.chapter import usual_n
from reports.export.paper.measures import (
    Measure,
    answer_measures,
    divergence_measures,
    speed_measures,
    task_measures,
)
from reports.export.paper.quantity import Quantity
from reports.rankings.comparison import Comparison
from reports.rankings.ranking import Entry, Protocol, Ranking, Setting, distinct_labels
from reports.tables import Table, TableCell, numbers, words
from reports.wording import BETTER, MISSING, counted, listed, pattern_name, visible
from suite.results.records.record import Metric, Record
from suite.results.records.state import describe_failure
from suite.results.statistics.perplexity import perplexity_from_nll

Grid = Mapping[str, Mapping[str | None, Entry]]
"""Maps row label and pattern to an entry."""


@dataclass(frozen=True)
class _Subject:
    """The rankings of one setting, with the data that their tables share."""

    title: str
    rankings: Sequence[Ranking]
    grid: Grid
    failures: Mapping[tuple[str, str | None], str]


def metric_tables(rankings: Sequence[Ranking], comparison: Comparison, title: str) -> dict[str, Table]:
    """Builds the tables of one setting that have something to show, by name.

    Args:
        rankings: all rankings of the setting.
        comparison: the comparison that they come from, with the failed cells.
        title: title of the setting, for captions.
    """
    subject = _Subject(title, rankings, _grid(rankings), _failures(comparison, rankings[0].setting))
    tables = {
        f"perplexity-{p.name}": _table(subject, "Perplexity", [_perplexity(p)], p)
        for p in rankings[0].setting.protocols
    }
    divergences: dict[str, list[Measure]] = {}
    for measure in divergence_measures(rankings):
        divergences.setdefault(f"divergence-{measure.protocol}", []).append(measure)
    for name, what, measures in (
        *((name, "Divergence from the dense model", found) for name, found in divergences.items()),
        ("tasks", "Tasks", list(task_measures(rankings))),
        ("answers", "Greedy answers", list(answer_measures(rankings))),
        ("speed", "Speed", list(speed_measures(rankings))),
    ):
        if measures:
            tables[name] = _table(subject, what, measures)
    return tables


def calibration_note(records: Sequence[Record]) -> str:
    """Lists the calibration sets of the records, with their seeds."""
    sets: dict[str, list[int]] = {}
    for record in records:
        if (used := record.calibration) is not None:
            text = f"{visible(used.source)}, {counted(used.n_samples, 'sequence')} of {used.seqlen:,} tokens"
            if used.first_token:
                text += ", the tokenizer's first token before each"
            seeds = sets.setdefault(text, [])
            if used.seed is not None and used.seed not in seeds:
                seeds.append(used.seed)
    if not sets:
        return ""
    parts = [
        text + (f", {'seed' if len(seeds) == 1 else 'seeds'} {listed([str(s) for s in sorted(seeds)])}")
        if seeds
        else text
        for text, seeds in sets.items()
    ]
    return f"Calibration: {'; '.join(parts)}."


def perplexity_quantity(record: Record, protocol: str) -> Quantity | None:
    """Returns a record's perplexity; a missing standard error is computed from its windows."""
    metric = record.metric("perplexity", protocol)
    if metric is None or metric.value is None:
        return None
    return Quantity(metric.value, _perplexity_error(record, metric))


def _perplexity_error(record: Record, metric: Metric) -> float | None:
    if metric.stderr is not None:
        return metric.stderr
    losses = next((w.nll for w in record.windows if w.protocol == metric.protocol), None)
    return None if losses is None else perplexity_from_nll(losses).stderr


def _perplexity(protocol: Protocol) -> Measure:
    def metric(record: Record) -> Metric | None:
        found = record.metric("perplexity", protocol.name)
        if found is None or found.value is None:
            return found
        return found.model_copy(update={"stderr": _perplexity_error(record, found)})

    return Measure("perplexity", "", protocol.name, "window", metric)


def _table(
    subject: _Subject, what: str, measures: Sequence[Measure], ranked_by: Protocol | None = None
) -> Table:
    """Builds one table; with `ranked_by`, the marks of the rankings determine what is best."""
    patterns = [ranking.pattern for ranking in subject.rankings]
    dense = [_dense_record(subject.rankings, measure) for measure in measures]
    found = [m.metric(e.record) for m in measures for row in subject.grid.values() for e in row.values()]
    metrics = [metric for metric in found if metric is not None] + [
        metric
        for measure, record in zip(measures, dense, strict=True)
        if record is not None and (metric := measure.metric(record)) is not None
    ]
    usual = usual_n(metrics)
    names = [TableCell(name, "\n".join(_remarks(row.values()))) for name, row in subject.grid.items()]
    columns = [words("Method", [TableCell("dense"), *names] if any(dense) else names)]
    for measure, record in zip(measures, dense, strict=True):
        reference = _cell(None if record is None else measure.metric(record), measure, usual)
        for pattern in patterns:
            cells = _cells(subject, measure, pattern, usual, ranked_by)
            column = numbers(pattern_heading(pattern), [reference, *cells] if any(dense) else cells)
            columns.append(replace(column, group=measure.heading))
    item = measures[0].item
    directions = list(dict.fromkeys(metric.direction for metric in metrics))
    # Questions are named in their headings and in a note; so are several protocols.
    shared = {measure.protocol for measure in measures} if item != "question" else set()
    where = shared.pop() if len(shared) == 1 else ""
    caption = f"{what} of {subject.title}" + (f" on {visible(where)}" if where else "")
    if len(directions) == 1:
        caption += f"; {BETTER[directions[0]]}"
    notes = [
        f"n = {counted(usual, item)}." if usual is not None else "",
        *(_ways(measures, metrics) if len(directions) > 1 else ()),
        *(_asked(measures) if item == "question" else ()),
        f"Value and standard error over {item}s." if any(_has_error(m) for m in metrics) else "",
        "One sequence at a time, on one machine (b1; p: prompt tokens, g: generated tokens)."
        if item == "repeat"
        else "",
        _marks_note(item) if any(cell.mark for column in columns for cell in column.cells) else "",
        _text_note(ranked_by) if ranked_by else "",
        calibration_note([e.record for row in subject.grid.values() for e in row.values()]),
    ]
    return Table(caption, tuple(columns), tuple(filter(None, notes)), n_dense=int(any(dense)))


def _cells(
    subject: _Subject, measure: Measure, pattern: str | None, usual: int | None, ranked_by: Protocol | None
) -> list[TableCell]:
    here = [(i, row[pattern]) for i, row in enumerate(subject.grid.values()) if pattern in row]
    if ranked_by is not None:
        place = subject.rankings[0].setting.protocols.index(ranked_by)
        best = {i for i, entry in here if entry.scores[place].mark in ("best", "tied")}
    else:
        best = {here[k][0] for k in measure.best([entry.record for _, entry in here])}
    cells = []
    for i, (label, row) in enumerate(subject.grid.items()):
        if pattern in row:
            metric = measure.metric(row[pattern].record)
            cells.append(_cell(metric, measure, usual, is_best=i in best, missing="not measured"))
        else:
            failure = subject.failures.get((label, pattern), "")
            cells.append(TableCell(MISSING, f"failed: {failure}" if failure else "not run"))
    return cells


def _cell(
    metric: Metric | None, measure: Measure, usual: int | None, *, is_best: bool = False, missing: str = ""
) -> TableCell:
    if metric is None:
        return TableCell(MISSING, missing)
    if metric.value is None:
        return TableCell(MISSING, visible(metric.status))
    stderr = None if metric.stderr is None else measure.factor * metric.stderr
    note = f"n = {metric.n:,}" if metric.n is not None and metric.n != usual else ""
    return Quantity(measure.factor * metric.value, stderr).cell(is_best=is_best, note=note)


def _grid(rankings: Sequence[Ranking]) -> Grid:
    """Orders rows as in the first ranking that has them; names repeated in one ranking are numbered.

    The names distinguish records of all patterns, so each row is exactly one configuration.
    """
    entries = [(ranking.pattern, entry) for ranking in rankings for entry in ranking.entries]
    labels = distinct_labels([entry.record for _, entry in entries])
    grid: dict[str, dict[str | None, Entry]] = {}
    seen: Counter[tuple[str, str | None]] = Counter()
    for label, (pattern, entry) in zip(labels, entries, strict=True):
        seen[label, pattern] += 1
        number = f" #{seen[label, pattern]}" if seen[label, pattern] > 1 else ""
        grid.setdefault(label + number, {})[pattern] = entry
    return grid


def _failures(comparison: Comparison, setting: Setting) -> dict[tuple[str, str | None], str]:
    return {
        (visible(r.cell.variant), r.cell.pattern): visible(describe_failure(r))
        for r in comparison.failed
        if visible(r.cell.model) == setting.model and r.cell.dtype == setting.dtype
    }


def _dense_record(rankings: Sequence[Ranking], measure: Measure) -> Record | None:
    references = rankings[0].references
    return next((r for r in references if measure.metric(r) is not None), None)


def _has_error(metric: Metric) -> bool:
    return metric.value is not None and metric.stderr is not None


def _ways(measures: Sequence[Measure], metrics: Sequence[Metric]) -> list[str]:
    """States which direction is better, for each measure."""
    ways = {metric.name: metric.direction for metric in metrics}
    by_way: dict[str, list[str]] = {}
    for measure in measures:
        if (direction := ways.get(measure.name)) is not None:
            headings = by_way.setdefault(BETTER[direction], [])
            headings += [measure.heading] if measure.heading not in headings else []
    return [f"{listed(headings)}: {way}." for way, headings in by_way.items()]


def _asked(measures: Sequence[Measure]) -> list[str]:
    return [f"{'; '.join(dict.fromkeys(measure.protocol for measure in measures))}."]


def _marks_note(item: str) -> str:
    if item == "question":
        return "Bold: the best of its column and those not different from it by McNemar's exact test (5 %)."
    return (
        f"Bold: the best of its column and those whose paired 95 % interval on the same {item}s includes it."
    )


def _text_note(protocol: Protocol) -> str:
    if not protocol.seqlen:
        return ""
    part = f"the first {protocol.limit:,} tokens" if protocol.limit else "the whole text"
    return (
        f"Windows of {protocol.seqlen:,} tokens, {part}, corpus revision {visible(protocol.corpus_revision)}."
    )


def _remarks(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(remark for entry in entries for remark in entry.remarks))


def pattern_heading(pattern: str | None) -> str:
    """Formats a pattern for a narrow column: `50 %`, `2:4`."""
    return pattern_name(pattern).removesuffix(" unstructured")
