"""Over a tree of records, how each task moves with log-perplexity."""

import pytest

from benchmarks.task_correlation import correlations, main
from methods.errors import InputError
from suite.results import ResultStore
from suite.results.records.record import Metric
from tests.suite.results.examples import make_cell, make_record

TEXT = "wiki-sample-token-s2048"


def record(perplexity, accuracy, **cell):
    metrics = (
        Metric(name="perplexity", protocol=TEXT, value=perplexity, direction="lower"),
        Metric(name="acc", protocol="mine-0shot", value=accuracy, direction="higher"),
    )
    return make_record(make_cell(**cell), metrics=metrics)


def test_a_task_that_falls_as_perplexity_rises_correlates_downwards(tmp_path, capsys):
    pruned = [record(10.0 + 9 * n, 0.9 - 0.05 * n + 0.06 * (n == 3), pattern=f"0.{n + 1}") for n in range(6)]
    records = [record(8.0, 0.95, method="dense", pattern=None), *pruned]
    (row,) = correlations(records)
    assert (row.dense, row.correlation.n) == (0.95, 6)
    # One pair of neighbours changes places: 1 - 6 * 2 / (6 * 35).
    assert row.correlation.value == pytest.approx(-(1 - 12 / 210))
    store = ResultStore(tmp_path)
    for one in records:
        store.write(one)
    main([str(tmp_path)])
    assert "| acc | mine-0shot | 0.95 | -0.94 |" in capsys.readouterr().out


def test_without_pruned_cells_there_is_nothing_to_say(tmp_path):
    with pytest.raises(InputError, match="holds no pruned cells"):
        main([str(tmp_path)])
