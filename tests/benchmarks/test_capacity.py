"""The tables of docs/scale.md are those that are worked out."""

from pathlib import Path

import pytest

from benchmarks.capacity import cell_table, leaderboard_table, memory_table, onload_table

PAGE = (Path(__file__).parent.parent.parent / "docs" / "scale.md").read_text()


@pytest.mark.parametrize("table", [memory_table, onload_table, cell_table, leaderboard_table])
def test_the_page_has_the_table(table):
    assert "\n".join(table()) in PAGE
