"""The ranked table of a report: all cells that were measured the same way, best first, to sort and filter.

Rows of several models share a column only if the text, its revision, its cap and the window length are the
same; tokens and the number of windows may differ with the tokenizer. Marks compare within one model, dtype
and pattern.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reports.accuracy import MeanAccuracy, Questions, common_questions, marks_of, mean_accuracy
from reports.rankings.comparison import finished_records
from reports.rankings.frame import value_of
from reports.rankings.ranking import Entry, Protocol, Ranking, Setting, pattern_order
from reports.rankings.scores import Mark
from reports.rankings.settings import protocol_title, setting_titles
from reports.tables import (
    MARKS,
    Column,
    Table,
    TableCell,
    cost_columns,
    numbers,
    perplexity_columns,
    words,
)
from reports.wording import MISSING, SHARE, counted, pattern_name, target_sparsity, visible
from suite.results.records.record import Record

PAGE_ROWS = 100
"""Maximum number of rows per page of the table."""


@dataclass(frozen=True)
class BoardRow:
    """A row of a board, besides its cells.

    Attributes:
        rank: rank by the first perplexity, among rows of its model, dtype and pattern.
        model: index in the board's `models`.
        method: index in the board's `methods`.
        pattern: index in the board's `patterns`.
        sparsity: target sparsity of its pattern, in per cent.
        is_dense: whether it is the reference of the others; only the model filter hides it.
        is_leading: whether it is best or tied with best in any column.
        starts: whether it is the first row of its model, dtype and pattern.
    """

    rank: int | None
    model: int
    method: int
    pattern: int
    sparsity: float | None
    is_dense: bool
    is_leading: bool
    starts: bool


@dataclass(frozen=True)
class Board:
    """A table whose rows may be compared with each other.

    Attributes:
        anchor: a word that identifies it on the page.
        title: the texts that perplexity was measured on.
        table: its table, with a caption that is unique on the page; sorted by model, by pattern, best first.
        rows: further data of each row.
        models: the settings, as named in the filter.
        methods: method families.
        patterns: sorted by sparsity.
    """

    anchor: str
    title: str
    table: Table
    rows: tuple[BoardRow, ...]
    models: tuple[str, ...]
    methods: tuple[str, ...]
    patterns: tuple[str, ...]


def boards(rankings: Sequence[Ranking], linked: Collection[str] = ()) -> list[Board]:
    """Builds one board per set of perplexity texts.

    Args:
        rankings: rankings of any number of settings.
        linked: the cells (by `cell_id`) whose configuration is on the page.
    """
    families: dict[tuple[Protocol, ...], list[Ranking]] = {}
    for ranking in rankings:
        families.setdefault(_texts(ranking.setting), []).append(ranking)
    return [_board(place, found, linked) for place, found in enumerate(families.values(), 1)]


def _texts(setting: Setting) -> tuple[Protocol, ...]:
    # The digest is of tokens, so it depends on the tokenizer; the revision identifies the text itself.
    return tuple(
        Protocol(
            p.name, "" if p.corpus_revision else p.corpus_digest, p.corpus_revision, p.seqlen, p.limit, 0
        )
        for p in setting.protocols
    )


@dataclass(frozen=True)
class _Measured:
    """A measured model, the data for its row of the board."""

    entry: Entry
    setting: Setting
    pattern: str | None
    """None for dense."""
    accuracy: MeanAccuracy | None
    mark: Mark
    """The mark of the accuracy."""
    starts: bool

    @property
    def is_dense(self) -> bool:
        return self.entry.record.cell.is_dense


def _board(place: int, rankings: Sequence[Ranking], linked: Collection[str]) -> Board:
    records = finished_records(rankings)
    questions = common_questions(records)
    settings = list(dict.fromkeys(ranking.setting for ranking in rankings))
    models = dict(zip(settings, setting_titles(settings), strict=True))
    methods = list(dict.fromkeys(visible(r.cell.method) for r in records if not r.cell.is_dense))
    patterns = sorted({r.pattern for r in rankings if r.pattern is not None}, key=pattern_order)
    firsts = {ranking.setting: ranking for ranking in reversed(rankings)}
    measured = [one for r in rankings for one in _measured(r, questions, with_dense=r is firsts[r.setting])]
    texts = _texts(rankings[0].setting)
    title = " and ".join(map(protocol_title, texts)) or "No perplexity"
    return Board(
        anchor=f"board-{place}",
        title=title,
        table=Table(
            f"Ranking {place}: {title}", tuple(_columns(measured, rankings, models, questions, linked))
        ),
        rows=tuple(
            BoardRow(
                rank=one.entry.rank,
                model=settings.index(one.setting),
                method=-1 if one.is_dense else methods.index(visible(one.entry.record.cell.method)),
                pattern=-1 if one.pattern is None else patterns.index(one.pattern),
                sparsity=_asked(one.pattern),
                is_dense=one.is_dense,
                is_leading=not {one.mark, *(score.mark for score in one.entry.scores)}.isdisjoint(LEADING),
                starts=one.starts,
            )
            for one in measured
        ),
        models=tuple(models.values()),
        methods=tuple(methods),
        patterns=tuple(pattern_name(pattern) for pattern in patterns),
    )


def _measured(ranking: Ranking, questions: Questions, *, with_dense: bool) -> Iterator[_Measured]:
    """Yields the models of one ranking; the dense one only once per model, before all its patterns."""
    records = [entry.record for entry in ranking.entries]
    means = [mean_accuracy(record, questions) for record in records]
    found = zip(ranking.entries, means, marks_of(records, means), strict=True)
    rows: list[tuple[Entry, MeanAccuracy | None, Mark]] = [*found]
    if ranking.dense is not None and with_dense:
        rows.insert(0, (ranking.dense, _dense_accuracy(ranking.references, questions), ""))
    for number, (entry, accuracy, mark) in enumerate(rows):
        pattern = None if entry.record.cell.is_dense else ranking.pattern
        yield _Measured(entry, ranking.setting, pattern, accuracy, mark, starts=number == 0)


def _columns(
    rows: Sequence[_Measured],
    rankings: Sequence[Ranking],
    models: Mapping[Setting, str],
    questions: Questions,
    linked: Collection[str],
) -> Iterator[Column]:
    """Yields the columns of a board, with all details needed to read their numbers."""
    entries = [row.entry for row in rows]
    names = [
        TableCell(e.label, "; ".join(e.remarks), link=e.cell if e.cell in linked else "") for e in entries
    ]
    yield words("Method", names, "with its settings")
    if len(models) > 1:
        yield words("Model", [models[row.setting] for row in rows], "and dtype")
    yield words("Pattern", map(_pattern_cell, rows), "and sparsity achieved")
    yield from perplexity_columns(
        entries, [_about(rankings, place) for place in range(len(rankings[0].setting.protocols))]
    )
    if questions:
        n_items = counted(sum(question.n for question in questions), "question")
        yield numbers(
            "Accuracy ↑",
            map(_accuracy_cell, rows),
            f"mean of {counted(len(questions), 'task')}\nn = {n_items}\n95\u00a0% interval\nhigher is better",
        )
    yield from cost_columns(entries)


def _about(rankings: Sequence[Ranking], place: int) -> str:
    """Describes a text on which all rows of a board were measured."""
    found = [ranking.setting.protocols[place] for ranking in rankings]
    cap = f"\nfirst {found[0].limit:,} tokens" if found[0].limit else ""
    return f"{visible(found[0].name)}{cap}\nn = {_span([protocol.n for protocol in found])} windows"


def _asked(pattern: str | None) -> float | None:
    """Returns the target sparsity of a pattern, in per cent."""
    target = target_sparsity(pattern)
    return None if target is None else round(100 * target, 4)


def _pattern_cell(row: _Measured) -> TableCell:
    achieved = None if row.pattern is None else value_of(row.entry.record, "sparsity")
    return TableCell(pattern_name(row.pattern), "" if achieved is None else SHARE.value(achieved))


def _dense_accuracy(references: Sequence[Record], questions: Questions) -> MeanAccuracy | None:
    """Returns the first accuracy: tasks may have been measured on an older record than perplexity."""
    found = (mean_accuracy(record, questions) for record in references)
    return next((accuracy for accuracy in found if accuracy is not None), None)


LEADING = ("best", "tied", "only", "lowest")
"""Marks of rows than which nothing measured is better."""


def _accuracy_cell(row: _Measured) -> TableCell:
    accuracy = row.accuracy
    if accuracy is None:
        return TableCell(MISSING, "other questions" if row.entry.record.tasks else "not measured")
    spread = SHARE.interval(accuracy.low, accuracy.high)
    return TableCell(SHARE.value(accuracy.value), spread, MARKS[row.mark])


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


__all__ = ["PAGE_ROWS", "Board", "BoardRow", "boards"]
