"""The ranked table of a report: every cell that was measured the same way, best first, to sort and filter.

Rows of several models share a column only where the text, its revision, its cap and the length of a window
are the same; tokens and the number of windows may differ with the tokenizer. Marks compare within one model,
dtype and pattern.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reports.accuracy import MeanAccuracy, Questions, common_questions, marks_of, mean_accuracy
from reports.rankings.ranking import Entry, Protocol, Ranking, Setting, pattern_order
from reports.rankings.scores import Mark
from reports.rankings.settings import protocol_title, setting_titles
from reports.tables import MARKS, Heading, TableCell, ratio_cell, score_cell
from reports.wording import (
    MISSING,
    SHARE,
    counted,
    gibibytes,
    pattern_name,
    percent,
    seconds,
    target_sparsity,
    visible,
)
from suite.results.records.record import Record

PAGE_ROWS = 100
"""Rows shown at once; more of them are paged."""


@dataclass(frozen=True)
class BoardRow:
    """A measured model.

    Attributes:
        cells: the first names it.
        rank: by the first perplexity, among those of its model, dtype and pattern.
        model: place in the board's `models`.
        method: place in its `methods`.
        pattern: place in its `patterns`.
        sparsity: that its pattern asks for, in per cent.
        is_dense: whether it is what the others are held against; no filter but the model's hides it.
        is_leading: whether it is best or tied with best by any column.
        starts: whether it is the first of its model, dtype and pattern.
    """

    cells: tuple[TableCell, ...]
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
    """A table whose rows may be read against each other.

    Attributes:
        anchor: a word for its place on the page.
        title: the texts that perplexity was measured on.
        caption: a name that no other table of the page has.
        headings: one a column.
        rows: best first, model by model and pattern by pattern.
        models: settings, as the filter names them.
        methods: method families.
        patterns: by sparsity.
    """

    anchor: str
    title: str
    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[BoardRow, ...]
    models: tuple[str, ...]
    methods: tuple[str, ...]
    patterns: tuple[str, ...]


def boards(rankings: Sequence[Ranking], linked: Collection[str] = ()) -> list[Board]:
    """A board a set of perplexity texts.

    Args:
        rankings: of any number of settings.
        linked: the cells (by `cell_id`) whose configuration stands on the page.
    """
    families: dict[tuple[Protocol, ...], list[Ranking]] = {}
    for ranking in rankings:
        families.setdefault(_texts(ranking.setting), []).append(ranking)
    return [_board(place, found, linked) for place, found in enumerate(families.values(), 1)]


def _texts(setting: Setting) -> tuple[Protocol, ...]:
    # The digest is of tokens, so of the tokenizer too; the revision says which text they were made of.
    return tuple(
        Protocol(
            p.name, "" if p.corpus_revision else p.corpus_digest, p.corpus_revision, p.seqlen, p.limit, 0
        )
        for p in setting.protocols
    )


def _board(place: int, rankings: Sequence[Ranking], linked: Collection[str]) -> Board:
    found = (record for ranking in rankings for record in _records(ranking))
    records = list({id(record): record for record in found}.values())
    settings = list(dict.fromkeys(ranking.setting for ranking in rankings))
    models = dict(zip(settings, setting_titles(settings), strict=True))
    columns = _Columns(
        protocols=_texts(rankings[0].setting),
        questions=common_questions(records),
        with_models=len(models) > 1,
        on_device=any(e.peak_device_bytes is not None for r in rankings for e in r.entries),
        linked=frozenset(linked),
    )
    methods = dict.fromkeys(visible(r.cell.method) for r in records if not r.cell.is_dense)
    patterns = sorted({r.pattern for r in rankings if r.pattern is not None}, key=pattern_order)
    choices = _Choices(
        {setting: number for number, setting in enumerate(settings)},
        {method: number for number, method in enumerate(methods)},
        {pattern: number for number, pattern in enumerate(patterns)},
    )
    rows: list[BoardRow] = []
    for number, ranking in enumerate(rankings):
        is_first = number == 0 or rankings[number - 1].setting != ranking.setting
        rows += _rows(ranking, models[ranking.setting], columns, choices, with_dense=is_first)
    title = " and ".join(protocol_title(p) for p in columns.protocols) or "No perplexity"
    return Board(
        anchor=f"board-{place}",
        title=title,
        caption=f"Ranking {place}: {title}",
        headings=tuple(columns.headings(rankings)),
        rows=tuple(rows),
        models=tuple(models.values()),
        methods=tuple(methods),
        patterns=tuple(pattern_name(pattern) for pattern in patterns),
    )


def _rows(
    ranking: Ranking, model: str, columns: _Columns, choices: _Choices, *, with_dense: bool
) -> Iterator[BoardRow]:
    """Those of one ranking; dense stands once a model, ahead of all its patterns."""
    records = [entry.record for entry in ranking.entries]
    means = [mean_accuracy(record, columns.questions) for record in records]
    marks = marks_of(records, means)
    dense = [ranking.dense] if ranking.dense is not None and with_dense else []
    rows: list[tuple[Entry, MeanAccuracy | None, Mark]] = [
        (entry, _dense_accuracy(ranking.references, columns.questions), "") for entry in dense
    ]
    rows += zip(ranking.entries, means, marks, strict=True)
    target = target_sparsity(ranking.pattern)
    for number, (entry, accuracy, mark) in enumerate(rows):
        is_dense = entry.record.cell.is_dense
        pattern = None if is_dense else ranking.pattern
        yield BoardRow(
            cells=tuple(columns.cells(entry, model, pattern, _accuracy_cell(accuracy, mark, entry.record))),
            rank=entry.rank,
            model=choices.models[ranking.setting],
            method=choices.methods.get(visible(entry.record.cell.method), -1),
            pattern=choices.patterns.get(pattern or "", -1),
            sparsity=None if is_dense or target is None else round(100 * target, 4),
            is_dense=is_dense,
            is_leading=mark in LEADING or any(score.mark in LEADING for score in entry.scores),
            starts=number == 0,
        )


def _dense_accuracy(references: Sequence[Record], questions: Questions) -> MeanAccuracy | None:
    """Tasks may have been asked of an older dense record than the one whose perplexity is shown."""
    found = (mean_accuracy(record, questions) for record in references)
    return next((accuracy for accuracy in found if accuracy is not None), None)


LEADING = ("best", "tied", "only", "lowest")
"""Marks of those that nothing measured is better than."""


def _records(ranking: Ranking) -> list[Record]:
    return [*ranking.references, *(entry.record for entry in ranking.entries)]


@dataclass(frozen=True)
class _Choices:
    """What the filters choose from, each with its place."""

    models: Mapping[Setting, int]
    methods: Mapping[str, int]
    patterns: Mapping[str, int]


@dataclass(frozen=True)
class _Columns:
    """Which columns a board has, and what stands in them."""

    protocols: tuple[Protocol, ...]
    questions: Questions
    with_models: bool
    on_device: bool
    linked: frozenset[str]

    def headings(self, rankings: Sequence[Ranking]) -> Iterator[Heading]:
        """One a column, with everything that its numbers need to be read."""
        yield Heading("Method", "with its settings", numeric=False)
        if self.with_models:
            yield Heading("Model", "and dtype", numeric=False)
        yield Heading("Pattern", "and sparsity achieved", numeric=False)
        for place, protocol in enumerate(self.protocols):
            n = _span([r.setting.protocols[place].n for r in rankings])
            cap = f"\nfirst {protocol.limit:,} tokens" if protocol.limit else ""
            yield Heading(
                "Perplexity ↓",
                f"{visible(protocol.name)}{cap}\nn = {n} windows\n95\u00a0% interval\nlower is better",
            )
            yield Heading("× dense ↓", "same windows\npaired 95\u00a0% interval\nlower is better")
        if self.questions:
            tasks = counted(len(self.questions), "task")
            n_items = sum(question.n for question in self.questions)
            yield Heading(
                "Accuracy ↑",
                f"mean of {tasks}\nn = {counted(n_items, 'question')}\n95\u00a0% interval\nhigher is better",
            )
        yield Heading("Prune time ↓", "s, method phases\none run\nlower is better")
        yield Heading("Host memory ↓", "GiB, peak\none run\nlower is better")
        if self.on_device:
            yield Heading("Device memory ↓", "GiB, peak\none run\nlower is better")

    def cells(
        self, entry: Entry, model: str, pattern: str | None, accuracy: TableCell
    ) -> Iterator[TableCell]:
        """One a heading."""
        link = entry.cell if entry.cell in self.linked else ""
        yield TableCell(entry.label, "; ".join(entry.remarks), link=link)
        if self.with_models:
            yield TableCell(model)
        sparsity = entry.record.metric("sparsity")
        achieved = percent(sparsity.value) if sparsity is not None and pattern is not None else ""
        yield TableCell(pattern_name(pattern), achieved)
        for score in entry.scores:
            yield score_cell(score)
            yield ratio_cell(score, is_dense=entry.record.cell.is_dense)
        if self.questions:
            yield accuracy
        yield TableCell(seconds(entry.method_seconds))
        yield TableCell(gibibytes(entry.peak_host_bytes))
        if self.on_device:
            yield TableCell(gibibytes(entry.peak_device_bytes))


def _accuracy_cell(accuracy: MeanAccuracy | None, mark: Mark, record: Record) -> TableCell:
    if accuracy is None:
        return TableCell(MISSING, "other questions" if record.tasks else "not measured")
    spread = SHARE.interval(accuracy.low, accuracy.high)
    return TableCell(SHARE.value(accuracy.value), spread, MARKS[mark])


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


__all__ = ["PAGE_ROWS", "Board", "BoardRow", "boards"]
