"""Two results trees are the same to the bit, or what differs is named."""

import numpy as np
import pytest

from benchmarks.same_numbers import main
from suite.results import ResultStore
from tests.suite.results.consistent import dense_record, pruned_record, rows, with_metric


@pytest.fixture
def told(tmp_path, capsys):
    """Writes two trees, compares them, and gives the exit code and what was printed."""

    def compare(before, after):
        for name, records in (("before", before), ("after", after)):
            for record, items in records:
                ResultStore(tmp_path / name).write(record, items)
        code = main([str(tmp_path / "before"), str(tmp_path / "after")])
        return code, capsys.readouterr().out.splitlines()

    return compare


def stored(record):
    return record, rows(record)


def test_times_and_dates_may_differ(told):
    again = with_metric(pruned_record(created="2026-05-05T00:00:00+00:00"), "prune_seconds", value=9.0)
    code, lines = told(
        [stored(dense_record()), stored(pruned_record())], [stored(dense_record()), stored(again)]
    )
    n_items = len(rows(dense_record())) + len(rows(pruned_record()))
    assert (code, lines) == (0, [f"the same to the bit: 2 cells, 1 mask digests, {n_items} items"])


def test_other_masks_are_named(told):
    code, (line,) = told([stored(pruned_record())], [stored(pruned_record(mask_digest="0" * 64))])
    assert code == 1
    assert line.endswith(": mask_digest differs")


def test_the_last_bit_of_one_item_counts(told):
    record = pruned_record()
    items = rows(record)
    moved = items.copy()
    moved.loc[3, "value"] = np.nextafter(items.loc[3, "value"], np.inf)
    code, (line,) = told([(record, items)], [(record, moved)])
    assert code == 1
    assert line.endswith(": the side file differs")


def test_so_does_that_of_a_metric(told):
    record = pruned_record()
    value = record.metric("kl_divergence").value
    moved = with_metric(record, "kl_divergence", value=float(np.nextafter(value, 1)))
    code, (line,) = told([stored(record)], [stored(moved)])
    assert code == 1
    assert line.endswith(": metrics differs")


def test_a_cell_that_one_tree_lacks_is_named(told):
    both = [stored(dense_record()), stored(pruned_record())]
    code, (line,) = told(both, both[:1])
    assert code == 1
    assert line.endswith(": finished only before")


def test_a_tree_without_records_is_wrong_input(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), str(tmp_path)])
    assert ended.value.code == 2
    assert "holds no finished records" in capsys.readouterr().err
