"""The baseline that `make gate` compares with is whole, and is one of its suite."""

from __future__ import annotations

from pathlib import Path

from suite.planning.suite_cells import parse_suite, plan
from suite.results.gate import judge, load_tolerances, read_side
from suite.results.verification import verify

HERE = Path(__file__).parent


def test_every_cell_of_the_suite_has_its_record_and_no_other_has() -> None:
    config = parse_suite((HERE / "suite.toml").read_bytes(), file="suite.toml")
    assert (config.dtype, config.threads) == ("float32", 2), "else it would serve one machine"
    asked = {cell.digest: cell.label for cell in plan(config, dtype="float32")}
    stored = {entry.record.cell.digest for entry in read_side(HERE / "baseline", "baseline").entries}
    assert stored == set(asked)


def test_every_record_is_consistent_and_was_made_by_committed_code() -> None:
    found = verify([HERE / "baseline"], present=lambda cell: None)
    assert len(found.records) == 5
    assert all(record.is_consistent for record in found.records)
    assert all(record.record is not None and record.record.code.git_clean for record in found.records)


def test_it_is_no_regression_of_itself_and_its_times_are_not_compared() -> None:
    side = read_side(HERE / "baseline", "baseline")
    verdict = judge(side, side, load_tolerances(HERE / "tolerances.toml"))
    assert verdict.exit_code == 0
    names = {metric.name for cell in verdict.cells for metric in cell.metrics}
    assert {"perplexity", "kl_divergence", "top1_agreement", "acc", "sparsity"} <= names
    assert "prune_seconds" not in names
