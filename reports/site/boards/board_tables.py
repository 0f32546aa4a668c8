"""Boards as tables: the ranking, and the recovery of a method on every model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reports.site.boards.board import Board, Entrant, Result, Subject
from reports.site.boards.cost import cost_columns, cost_of, machines_note
from reports.site.files.links import board_page, method_page, record_page
from reports.site.files.listing import Block, block
from reports.site.records.site_record import SiteRecord
from reports.tables import MARKS, Column, TableCell, numbers, words
from reports.wording import MISSING, NBSP, counted, decimal, interval, visible

MODEL_COLUMNS = 4
"""Maximum number of models with their own column on a board; method pages always have all."""

BOARD = "ranking board"
"""CSS classes of a board's table."""

RULE = (
    "A method's recovery on a model is the dense model's perplexity divided by the pruned model's, on the "
    "same windows of text and for the same weights: 1 is as good as dense, 0 means that nothing is left, "
    "and higher is better. Its score is the mean recovery over all models of the board. A model it was not "
    "measured on counts as 0, so leaving out a hard model never raises a score. A board has one sparsity "
    "pattern, one text with its limit and one dtype. Calibration seeds of one configuration are averaged, "
    "window by window. Only consistent records are ranked, and a model only if its dense record is here."
)
TIES = (
    "best: the highest score; tied with best: the 95 % interval of the difference of the two scores, from "
    "windows paired on every model, includes 0. Intervals are over the windows of the text, not over other "
    "texts, models or seeds."
)


def board_block(board: Board) -> Block:
    """Builds the ranking of a board, best first: the quality of each method, its cost, and its trust."""
    # With one model, its own column would repeat the score.
    several = board.n_models > 1
    columns = board.subjects if several and len(board.subjects) <= MODEL_COLUMNS else ()
    names = subject_names(board.subjects)
    costs = [cost_of(entrant.records) for entrant in board.entrants]
    entrants = board.entrants
    shown = [
        words("Method", map(_name, entrants), "with its settings"),
        _score_column(board),
        *cost_columns(costs),
        words("Trust", [trust_cell(e.records) for e in entrants], "of its records"),
    ]
    if several:
        shown.append(
            numbers("Models", [str(len(e.results)) for e in entrants], f"measured, of {board.n_models}")
        )
    for subject in columns:
        results = [entrant.results.get(subject) for entrant in entrants]
        column = numbers(f"{names[subject]}{NBSP}↑", map(_recovery, results), _model_detail(subject))
        shown.append(column.linked(map(_page, results)))
    if any(entrant.accuracy is not None for entrant in entrants):
        shown.append(
            numbers(
                "Accuracy × dense ↑",
                map(_accuracy, entrants),
                "mean over tasks\nnot ranked by\nhigher is better",
            )
        )
    machines = machines_note(held for entrant in entrants for held in entrant.records)
    notes = [
        f"Revision of the text: {visible(board.key.corpus_revision)}.",
        *([machines] if machines else []),
    ]
    notes += [f"Counts as 0 for every method, as nobody measured it: {visible(m)}." for m in board.absent]
    return block(board.title, shown, tuple(notes), kind=BOARD)


def method_block(board: Board, method: str) -> Block:
    """Builds a table of recovery and cost of every variant of a method on every model of a board."""
    entrants = [entrant for entrant in board.entrants if entrant.method == method]
    pairs = [(entrant, subject) for entrant in entrants for subject in board.subjects]
    results = [entrant.results.get(subject) for entrant, subject in pairs]
    names = subject_names(board.subjects)
    columns = (
        words(
            "Method",
            [
                TableCell(entrant.label, _seeds(result), link=_page(result))
                for (entrant, _), result in zip(pairs, results, strict=True)
            ],
            "with its settings",
        ),
        words("Model", [TableCell(names[s], counted(s.n_windows, "window")) for _, s in pairs]),
        numbers("Recovery ↑", map(_recovery, results), "paired 95\u00a0% interval\nhigher is better"),
        numbers(
            "Perplexity ↓",
            [decimal(result.perplexity) if result else MISSING for result in results],
            f"{visible(board.key.protocol)}\nlower is better",
        ),
        *cost_columns([cost_of(_records(result)) for result in results]),
        numbers("Rank", [str(entrant.rank) for entrant, _ in pairs], f"of {len(board.entrants)}"),
        words("Trust", [trust_cell(_records(result)) for result in results]),
    )
    machines = machines_note(held for entrant in entrants for held in entrant.records)
    link = board_page(board.key.name)
    return block(board.title, columns, (machines,) if machines else (), more=(link, "The whole board"))


def subject_names(subjects: Sequence[Subject]) -> dict[Subject, str]:
    """Returns the models' names, with the start of the weights' digest if a name is used several times."""
    taken = Counter(subject.model for subject in subjects)
    names = {}
    for subject in subjects:
        name = visible(subject.model)
        if taken[subject.model] > 1:
            name += f" [{visible(subject.weight_digest[:8])}, text {visible(subject.corpus_digest[:8])}]"
        names[subject] = name
    return names


def trust_cell(records: Sequence[SiteRecord]) -> TableCell:
    """Shows `rerun` or `verified`, or counts of each; a single record is linked."""
    if not records:
        return TableCell(MISSING)
    found = Counter(held.trust for held in records)
    link = record_page(records[0].digest) if len(records) == 1 else ""
    if len(found) == 1:
        n = counted(len(records), "record") if len(records) > 1 else ""
        return TableCell(next(iter(found)), n, link=link)
    return TableCell(", ".join(f"{n} {trust}" for trust, n in sorted(found.items())))


def _name(entrant: Entrant) -> TableCell:
    return TableCell(f"{entrant.rank}. {entrant.label}", link=method_page(entrant.method))


def _score_column(board: Board) -> Column:
    if board.n_models > 1:
        about = f"mean of {board.n_models} models\n95\u00a0% interval\nhigher is better"
        details = [interval(e.low, e.high, 3) or "no interval" for e in board.entrants]
    else:
        (subject,) = board.subjects
        about = f"{visible(subject.model)}\n{_model_detail(subject)}"
        details = [_recovery(e.results[subject]).detail for e in board.entrants]
    cells = [
        TableCell(decimal(entrant.score, 3), detail, MARKS[entrant.mark])
        for entrant, detail in zip(board.entrants, details, strict=True)
    ]
    return numbers("Recovery ↑", cells, about)


def _accuracy(entrant: Entrant) -> TableCell:
    n_tasks = counted(entrant.n_tasks, "task") if entrant.n_tasks else "not comparable"
    return TableCell(decimal(entrant.accuracy, 3), n_tasks)


def _recovery(result: Result | None) -> TableCell:
    if result is None:
        return TableCell(decimal(0.0, 3), "not measured:\ncounts as 0")
    if result.status != "ok":
        detail = visible(result.status)
    else:
        detail = interval(result.low, result.high, 3) or "no interval"
    return TableCell(decimal(result.recovery, 3), detail)


def _records(result: Result | None) -> tuple[SiteRecord, ...]:
    return result.records if result else ()


def _page(result: Result | None) -> str:
    return record_page(result.records[0].digest) if result else ""


def _seeds(result: Result | None) -> str:
    return f"mean of {len(result.records)} seeds" if result and len(result.records) > 1 else ""


def _model_detail(subject: Subject) -> str:
    n = counted(subject.n_windows, "window")
    return f"n = {n}\npaired 95\u00a0% interval\nhigher is better"
