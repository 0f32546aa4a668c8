"""Boards as tables: the ranking, and what a method keeps of every model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from reports.site.board import Board, Entrant, Result, Subject, protocol_of
from reports.site.holdings import Held
from reports.site.links import board_page, method_page, record_page
from reports.site.listing import Block
from reports.tables import MARKS, Heading, Table, TableCell
from reports.wording import MISSING, counted, decimal, interval, pattern_name, visible

MODEL_COLUMNS = 6
"""Up to so many models have a column of their own on a board; the method pages have all."""

RULE = (
    "A method's recovery on a model is the dense model's perplexity over its own, on the same windows of "
    "text and the same weights: 1 is as good as dense, 0 is nothing left, and higher is better. Its score "
    "is the mean recovery over all models of the board. A model it was not measured on counts as 0, so "
    "leaving out a hard model never raises a score. A board has one sparsity pattern, one text with its "
    "limit and one dtype. Calibration seeds of one configuration are averaged, window by window. Only "
    "records that are consistent are ranked, and a model only where its dense record is here."
)
TIES = (
    "best: the highest score; tied with best: the 95 % interval of the difference of the two scores, from "
    "windows paired on every model, includes 0. Intervals are over the windows of the text, not over other "
    "texts, models or seeds."
)


def board_block(board: Board) -> Block:
    """The ranking of a board, best first."""
    columns = board.subjects if len(board.subjects) <= MODEL_COLUMNS else ()
    names = subject_names(board.subjects)
    n = counted(board.n_models, "model")
    headings = [
        Heading("Method", "with its settings", numeric=False),
        Heading("Recovery ↑", f"mean of {n}\n95\u00a0% interval\nhigher is better"),
        Heading("Models", f"measured, of {board.n_models}"),
        *(Heading(f"{names[s]} ↑", _model_detail(s)) for s in columns),
    ]
    has_tasks = any(entrant.accuracy is not None for entrant in board.entrants)
    if has_tasks:
        headings.append(Heading("Accuracy × dense ↑", "mean over tasks\nnot ranked by\nhigher is better"))
    headings.append(Heading("Trust", "of its records", numeric=False))
    rows = tuple(_row(board, entrant, columns, has_tasks=has_tasks) for entrant in board.entrants)
    heading = f"{pattern_name(board.key.pattern)}: {protocol_of(board.key)}"
    notes = [f"Revision of the text: {visible(board.key.corpus_revision)}."]
    notes += [f"Counts as 0 for every method, as nobody measured it: {visible(m)}." for m in board.absent]
    return Block(heading, Table(heading, tuple(headings), rows), tuple(notes))


def method_block(board: Board, method: str) -> Block:
    """What every variant of a method keeps of every model of a board."""
    headings = (
        Heading("Method", "with its settings", numeric=False),
        Heading("Model", numeric=False),
        Heading("Recovery ↑", "paired 95\u00a0% interval\nhigher is better"),
        Heading("Perplexity ↓", f"{visible(board.key.protocol)}\nlower is better"),
        Heading("Rank", f"of {len(board.entrants)}"),
        Heading("Trust", numeric=False),
    )
    names = subject_names(board.subjects)
    rows = []
    for entrant in board.entrants:
        if entrant.method != method:
            continue
        for subject in board.subjects:
            result = entrant.results.get(subject)
            if result is None:
                missing = "not measured: counts as 0"
                kept, perplexity, trust, link = TableCell(decimal(0.0, 3), missing), MISSING, MISSING, ""
            else:
                kept, perplexity = _recovery(result), decimal(result.perplexity)
                trust, link = trust_of(result.records), record_page(result.records[0].digest)
            rows.append(
                (
                    TableCell(entrant.label, _seeds(result), link=link),
                    TableCell(names[subject]),
                    kept,
                    TableCell(perplexity),
                    TableCell(str(entrant.rank)),
                    TableCell(trust),
                )
            )
    heading = f"{pattern_name(board.key.pattern)}: {protocol_of(board.key)}"
    link = board_page(board.key.name)
    return Block(heading, Table(heading, headings, tuple(rows)), (), (link, "The whole board"))


def subject_names(subjects: Sequence[Subject]) -> dict[Subject, str]:
    """The models' names, with the start of the weights' digest where one name has several."""
    taken = Counter(subject.model for subject in subjects)
    names = {}
    for subject in subjects:
        name = visible(subject.model)
        if taken[subject.model] > 1:
            name += f" [{visible(subject.weight_digest[:8])}, text {visible(subject.corpus_digest[:8])}]"
        names[subject] = name
    return names


def trust_of(records: Iterable[Held]) -> str:
    """`rerun`, `verified`, or how many of several are which."""
    found = Counter(held.trust for held in records)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{n} {trust}" for trust, n in sorted(found.items()))


def _row(
    board: Board, entrant: Entrant, columns: Sequence[Subject], *, has_tasks: bool
) -> tuple[TableCell, ...]:
    spread = interval(entrant.low, entrant.high, 3)
    cells = [
        TableCell(f"{entrant.rank}. {entrant.label}", link=method_page(entrant.method)),
        TableCell(decimal(entrant.score, 3), spread or "no interval", MARKS[entrant.mark]),
        TableCell(f"{len(entrant.results)}"),
    ]
    for subject in columns:
        result = entrant.results.get(subject)
        if result is None:
            cells.append(TableCell(decimal(0.0, 3), "not measured"))
        else:
            cells.append(_recovery(result))
    if has_tasks:
        told = counted(entrant.n_tasks, "task") if entrant.n_tasks else "not comparable"
        cells.append(TableCell(decimal(entrant.accuracy, 3), told))
    return (*cells, TableCell(trust_of(entrant.records)))


def _recovery(result: Result) -> TableCell:
    if result.status != "ok":
        detail = visible(result.status)
    else:
        detail = interval(result.low, result.high, 3) or "no interval"
    return TableCell(decimal(result.recovery, 3), detail, link=record_page(result.records[0].digest))


def _seeds(result: Result | None) -> str:
    return f"mean of {len(result.records)} seeds" if result and len(result.records) > 1 else ""


def _model_detail(subject: Subject) -> str:
    n = counted(subject.n_windows, "window")
    return f"n = {n}\npaired 95\u00a0% interval\nhigher is better"
