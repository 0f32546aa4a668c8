"""What pruning took, as the boards, the methods' pages and the first page tell it."""

from __future__ import annotations

from pathlib import Path

from reports.site.boards.board_tables import board_block, method_block
from reports.site.boards.scoring import boards_of
from reports.site.pages.overview import overview
from reports.site.records.site_record import read_holdings
from suite.results.records.record import Record
from tests.reports.synthetic_site import dense_record, failed, site_record, write

GOOD, BAD = (3.1, 3.3, 2.9, 3.1), (4.5, 4.7, 4.3, 4.5)


def answers(root: Path, *records: Record) -> dict[str, str]:
    write(root, *records)
    holdings = read_holdings([root])
    return dict(overview(holdings, boards_of(holdings.ranked)).answers)


def columns(root: Path, *records: Record) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Of the only board: by the column's name, the cells with what qualifies them; and the notes."""
    write(root, *records)
    (board,) = boards_of(read_holdings([root]).ranked).boards
    block = board_block(board)
    assert block.table is not None
    names = [heading.text for heading in block.table.columns]
    cells = [[f"{cell.text}|{cell.detail}" for cell in row] for row in block.table.rows]
    return {name: [row[n] for row in cells] for n, name in enumerate(names)}, block.table.notes


def test_a_row_has_the_median_of_its_runs_their_range_and_their_number(tmp_path: Path) -> None:
    seeds = [site_record("sparsegpt", nll=GOOD, seed=n, seconds=took) for n, took in enumerate((8, 9, 40))]
    found, _ = columns(tmp_path, dense_record(), *seeds, site_record("magnitude", nll=BAD))
    assert found["Prune time ↓"] == ["9.0|8.0 to 40.0\nn = 3 runs", "–|not recorded"]
    assert found["Host memory ↓"] == ["0.50|n = 3 runs", "–|not recorded"]
    assert "Device memory ↓" not in found


def test_machines_are_named_because_their_times_do_not_compare(tmp_path: Path) -> None:
    ours, theirs = site_record(nll=GOOD, seconds=1), site_record("magnitude", nll=BAD, seconds=2)
    _, alone = columns(tmp_path / "one", dense_record(), ours)
    assert any(note.endswith("one kind of machine: cpu, a processor, 2 cores, 2 threads.") for note in alone)
    other = theirs.environment.model_copy(update={"processor": "another"})
    _, both = columns(
        tmp_path / "two", dense_record(), ours, theirs.model_copy(update={"environment": other})
    )
    assert any("2 kinds of machine and are comparable only on the same one" in note for note in both)


def test_with_one_model_the_score_is_its_own_and_nothing_stands_twice(tmp_path: Path) -> None:
    found, _ = columns(tmp_path, dense_record("org/alpha"), site_record("wanda", "org/alpha"))
    assert list(found) == ["Method", "Recovery ↑", "Prune time ↓", "Host memory ↓", "Trust"]
    (board,) = boards_of(read_holdings([tmp_path]).ranked).boards
    (entrant,) = board.entrants
    (result,) = entrant.results.values()
    assert (entrant.low, entrant.high) == (result.low, result.high)


def test_the_page_of_a_method_has_the_cost_on_each_model(tmp_path: Path) -> None:
    write(tmp_path, dense_record("easy"), dense_record("hard"), site_record("magnitude", "hard", nll=BAD))
    write(tmp_path, site_record("wanda", "easy", seconds=3))
    (board,) = boards_of(read_holdings([tmp_path]).ranked).boards
    table = method_block(board, "wanda").table
    assert table is not None
    place = [heading.text for heading in table.columns].index("Prune time ↓")
    told = {row[1].text: (row[place].text, row[place].detail) for row in table.rows}
    assert told == {"easy": ("3.0", "n = 1 run"), "hard": ("–", "")}


def test_the_first_page_answers_which_method_at_what_cost_and_whether_to_trust_it(tmp_path: Path) -> None:
    found = answers(
        tmp_path,
        dense_record(),
        site_record("sparsegpt", nll=GOOD, seconds=100),
        site_record("magnitude", nll=BAD, seconds=1.5),
        failed("wanda"),
    )
    which, cost, trust = (text.replace("\u00a0", " ") for text in found.values())
    assert which.startswith("At 50 % unstructured, sparsegpt keeps most: recovery 0.905 (95 % interval ")
    assert "on news-sample-token-s8" in which and "the mean over 1 model" in which
    assert cost == (
        "sparsegpt prunes a model in 100.0 s, 0.50 GiB of host memory (one run). "
        "The fastest, magnitude, takes 1.5 s and keeps 0.223."
    )
    assert trust.startswith("4 records: 3 verified and 1 failed. Verified: whole and consistent")


def test_no_method_is_called_fastest_by_another_machine_or_by_fewer_models(tmp_path: Path) -> None:
    best = site_record("sparsegpt", "one", nll=GOOD, seconds=100)
    quick = site_record("magnitude", "one", nll=BAD, seconds=1.5)
    other = quick.environment.model_copy(update={"processor": "another"})
    records = (dense_record("one"), best, quick.model_copy(update={"environment": other}).sealed())
    elsewhere = answers(tmp_path / "elsewhere", *records)
    assert elsewhere["What does it cost?"].endswith(
        "(one run). Times of 2 kinds of machine are not comparable."
    )
    more = (dense_record("two"), site_record("sparsegpt", "two", nll=GOOD, seconds=300))
    fewer = answers(tmp_path / "fewer", dense_record("one"), best, quick, *more)
    assert "fastest" not in fewer["What does it cost?"] and "median of 2 runs" in fewer["What does it cost?"]


def test_what_the_records_do_not_say_is_not_made_up(tmp_path: Path) -> None:
    found = answers(tmp_path, dense_record(), site_record("wanda"))
    assert found["What does it cost?"] == "The records of wanda do not contain its cost."
    assert answers(tmp_path / "none", failed())["Which method?"] == "Nothing is ranked."
