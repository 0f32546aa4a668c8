"""The ranked table: who shares it, what a row says, and what its filters choose from."""

from __future__ import annotations

from reports.page.board import Board, boards
from reports.rankings.comparison import compare
from suite.results.records.record import Record
from tests.reports.synthetic import make_record, quickstart
from tests.reports.synthetic_measured import measured_quickstart, measured_record


def board_of(records: list[Record]) -> Board:
    found = boards(compare(records).rankings)
    assert len(found) == 1
    return found[0]


def column(board: Board, heading: str, detail: str = "") -> list[str]:
    """The texts under the one heading that starts so."""
    columns = board.table.columns
    [found] = [c for c in columns if c.text.startswith(heading) and c.detail.startswith(detail)]
    return [cell.text.replace("\u00a0", " ") for cell in found.cells]


def test_dense_stands_once_then_every_pattern_best_first() -> None:
    board = board_of(quickstart())
    assert [row.is_dense for row in board.rows] == [True] + 12 * [False]
    assert [row.rank for row in board.rows] == [None, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    assert [i for i, row in enumerate(board.rows) if row.starts] == [0, 7]
    assert column(board, "Pattern") == ["dense"] + 6 * ["50 % unstructured"] + 6 * ["2:4"]
    assert board.methods == ("sparsegpt", "llm-barber", "wanda", "magnitude")
    assert board.patterns == ("50\u00a0% unstructured", "2:4")


def test_rows_say_what_filters_ask_for() -> None:
    board = board_of(quickstart())
    dense, first, last = board.rows[0], board.rows[1], board.rows[-1]
    assert (dense.method, dense.pattern, dense.sparsity) == (-1, -1, None)
    assert (first.method, first.pattern, first.sparsity, first.is_leading) == (0, 0, 50.0, True)
    assert (last.method, last.pattern, last.sparsity, last.is_leading) == (3, 1, 50.0, False)
    odd = board_of([make_record("wanda", "0.29"), make_record("wanda", "1:4")])
    assert [row.sparsity for row in odd.rows] == [29.0, 75.0]


def test_headings_name_text_cap_n_uncertainty_and_direction() -> None:
    heading = next(h for h in board_of(quickstart()).table.columns if h.text == "Perplexity ↓")
    for piece in (
        "wiki-sample-token-s512",
        "first 10,240 tokens",
        "n = 20 windows",
        "interval",
        "lower is better",
    ):
        assert piece in heading.detail


def test_models_share_a_table_though_their_tokenizers_make_other_windows() -> None:
    records = [
        make_record(kind, model_name=m, n_windows=n) for m, n in (("a", 20), ("b", 17)) for kind in KINDS
    ]
    board = board_of(records)
    assert board.models == ("a, float32", "b, float32")
    assert column(board, "Model") == 3 * ["a, float32"] + 3 * ["b, float32"]
    assert [row.rank for row in board.rows] == [None, 1, 2, None, 1, 2]
    assert "n = 17 to 20 windows" in board.table.columns[3].detail


KINDS = ("dense", "sparsegpt", "wanda")


def test_another_text_or_another_cap_makes_a_table_of_its_own() -> None:
    records = [make_record(kind, max_tokens=cap) for cap in (10_240, 20_480) for kind in KINDS]
    records += [make_record(kind, corpora=("news-sample",)) for kind in KINDS]
    found = boards(compare(records).rankings)
    assert sorted(board.title for board in found) == [
        "news-sample-token-s512, first 10,240 tokens",
        "wiki-sample-token-s512, first 10,240 tokens and news-sample-token-s512, first 10,240 tokens",
        "wiki-sample-token-s512, first 20,480 tokens and news-sample-token-s512, first 20,480 tokens",
    ]
    assert len({board.table.caption for board in found}) == len({board.anchor for board in found}) == 3


def test_accuracy_is_a_column_where_tasks_were_asked_with_its_own_marks() -> None:
    board = board_of(measured_quickstart())
    [place] = [i for i, heading in enumerate(board.table.columns) if heading.text == "Accuracy ↑"]
    assert "mean of 2 tasks" in board.table.columns[place].detail
    rows = list(zip(board.rows, board.table.rows, strict=True))
    marks = {cells[0].text: cells[place].mark for row, cells in rows if row.pattern == 0}
    assert marks["sparsegpt"] == "best" and marks["wanda [seed=0]"] == "tied with best"
    unasked = next(cells for cells in board.table.rows if cells[0].text == "wanda [seed=1]")
    assert unasked[place].detail == "not measured"
    assert not [h for h in board_of(quickstart()).table.columns if h.text.startswith("Accuracy")]


def test_a_name_leads_only_to_what_is_on_the_page() -> None:
    records = quickstart()
    shown = {records[1].cell.digest[:8]}
    [board] = boards(compare(records).rankings, shown)
    assert {cell.link for cell in board.table.columns[0].cells} == {"", *shown}


def test_without_perplexity_there_is_a_table_that_says_so() -> None:
    board = board_of([make_record("wanda", windows=(), metrics=())])
    assert board.title == "No perplexity"
    assert board.rows[0].rank is None and not board.rows[0].is_leading


def asked(record: Record, n: int) -> Record:
    """The record with another number of the same task's questions asked."""
    tasks = tuple(
        t.model_copy(update={"n": n, "limit": n, "items_digest": f"first-{n}", "outcomes": "10" * (n // 2)})
        for t in measured_record("wanda", tasks=("cloze",)).tasks
    )
    return record.model_copy(update={"tasks": tasks})


def accuracy_of(board: Board) -> tuple[str, list[str]]:
    [place] = [i for i, heading in enumerate(board.table.columns) if heading.text == "Accuracy ↑"]
    return board.table.columns[place].detail, [cell.text for cell in board.table.columns[place].cells]


def test_the_pruned_models_say_which_questions_are_common_and_n_is_theirs() -> None:
    pruned = [asked(make_record("wanda", p), 100) for p in ("0.5", "0.6", "2:4")]
    detail, shown = accuracy_of(board_of([asked(make_record("dense"), 200), *pruned]))
    assert "n = 100 questions" in detail
    assert shown == ["–", "50.00\u00a0%", "50.00\u00a0%", "50.00\u00a0%"]


def test_answers_judged_otherwise_share_no_column() -> None:
    one, other = asked(make_record("wanda"), 100), asked(make_record("sparsegpt"), 100)
    judged = tuple(t.model_copy(update={"metric": "acc_norm"}) for t in other.tasks)
    _, shown = accuracy_of(board_of([one, other.model_copy(update={"tasks": judged})]))
    assert sorted(shown) == ["50.00\u00a0%", "–"]


def test_dense_has_the_accuracy_of_whichever_dense_record_was_asked() -> None:
    older = asked(make_record("dense", created="2025-01-01T00:00:00Z"), 100)
    cell = older.cell.model_copy(update={"divergence": True, "tasks": measured_record("wanda").cell.tasks})
    records = [
        older.model_copy(update={"cell": cell}),
        make_record("dense"),
        asked(make_record("wanda"), 100),
    ]
    _, shown = accuracy_of(board_of(records))
    assert shown == ["50.00\u00a0%", "50.00\u00a0%"]


def test_without_windows_to_compare_by_the_first_is_lowest_and_not_best() -> None:
    board = board_of([make_record(kind, windows=()) for kind in ("wanda", "sparsegpt")])
    place = next(i for i, h in enumerate(board.table.columns) if h.text.startswith("Perplexity"))
    assert [cell.mark for cell in board.table.columns[place].cells] == ["lowest", ""]


def test_models_of_other_tokenizers_share_a_table_by_the_revision_of_the_text() -> None:
    records = [make_record("wanda", model_name=m) for m in ("a", "b")]
    other = tuple(w.model_copy(update={"corpus_digest": "other tokens"}) for w in records[1].windows)
    assert board_of([records[0], records[1].model_copy(update={"windows": other})]).models == (
        "a, float32",
        "b, float32",
    )
