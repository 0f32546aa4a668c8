"""What a terminal shows: a bar with the time left, a line per cell, the ranked table at the end."""

from __future__ import annotations

import io

from rich.console import Console

from reports.terminal import main_numbers, ranked_tables
from suite.commands.output.progress import ProgressBars
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import measured_quickstart, measured_record


def shown(width: int, records: list, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    for table in ranked_tables(records):
        console.print(table)
    return console.file.getvalue()


def test_the_table_is_ranked_and_names_best_and_tied() -> None:
    lines = shown(120, [r for r in measured_quickstart() if r.cell.pattern in (None, "0.5")]).splitlines()
    names = [line.split("  ")[0] for line in lines]
    assert names[2] == "dense"
    assert names[3].startswith("1. sparsegpt")
    assert "best" in lines[3]
    assert lines[0].startswith("50 % unstructured, ".replace(" %", "\u00a0%"))
    assert "Pattern" not in lines[1]
    assert any("tied" in line for line in lines[4:9])


def test_the_best_is_bold_and_nothing_is_cut_on_a_narrow_terminal() -> None:
    text = shown(80, measured_quickstart(), force_terminal=True, color_system="standard")
    assert "\x1b[1m" in text
    plain = shown(80, measured_quickstart())
    assert "…" not in plain
    assert max(map(len, plain.splitlines())) <= 80
    assert "Pattern" in plain


def test_several_patterns_are_set_apart() -> None:
    lines = shown(120, quickstart()).splitlines()
    assert "" in [line.strip() for line in lines[2:-1]]
    assert sum("best" in line for line in lines[:-1]) == 2


def test_a_line_has_what_was_measured_of_the_cell() -> None:
    told = main_numbers(measured_record("wanda"))
    assert told.startswith("perplexity 49.0")
    assert "accuracy" in told and "pruned in 12.3 s" in told
    assert "pruned" not in main_numbers(make_record("dense", None))


def bars(n_cells: int, width: int, clock: list[float], *, terminal: bool = True) -> ProgressBars:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False)
    return ProgressBars(n_cells, console, main_numbers, clock=lambda: clock[0])


def test_the_time_left_is_what_the_cells_took_so_far() -> None:
    clock = [100.0]
    shown = bars(4, 100, clock)
    with shown:
        assert shown.seconds_left() is None
        shown.cell_started(make_record("wanda").cell)
        clock[0] += 60
        shown.cell_ended(make_record("wanda").cell, "complete")
        assert shown.seconds_left() == 180
        clock[0] += 30
        assert shown.seconds_left() == 150
        clock[0] += 300
        assert shown.seconds_left() == 0, "a cell that takes longer than the others"
        for _ in range(3):
            shown.cell_ended(make_record("wanda").cell, "complete")
        assert shown.seconds_left() is None
    text = shown._console.file.getvalue()
    assert "4 of 4 cells" in text


def test_the_phase_of_the_cell_stands_below_the_bar() -> None:
    shown = bars(2, 100, [0.0])
    with shown:
        cell = make_record("wanda").cell
        shown.cell_started(cell)
        shown.phase_started("prune", 210)
        shown.stepped(100)
        assert shown.lines() == [f"{cell.label}: prune, 100/210"]


def test_numbers_take_a_line_of_their_own_where_the_terminal_is_narrow() -> None:
    record = measured_record("barber-wanda")
    for terminal, n_lines in ((True, 2), (False, 1)):
        shown = bars(1, 80, [0.0], terminal=terminal)
        shown.cell_ended(record.cell, "complete", record)
        assert len(shown._console.file.getvalue().splitlines()) == n_lines
    failed = failed_record()
    shown = bars(1, 80, [0.0])
    shown.cell_ended(failed.cell, "failed: prune: no", failed)
    assert shown._console.file.getvalue().strip() == f"failed: prune: no  {failed.cell.label}"
