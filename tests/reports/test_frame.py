"""Records as tidy tables."""

from __future__ import annotations

import pytest

from reports import metrics_frame, modules_frame, phases_frame
from reports.rankings.frame import METRIC_COLUMNS, MODULE_COLUMNS, PHASE_COLUMNS, blocks_frame
from tests.reports.synthetic import N_LAYERS, TARGETS, failed_record, make_record


def test_one_row_a_metric_with_protocol_n_and_direction() -> None:
    record = make_record("wanda")
    frame = metrics_frame([record])
    assert tuple(frame.columns) == METRIC_COLUMNS
    assert len(frame) == len(record.metrics)
    row = frame[(frame["metric"] == "perplexity") & (frame["protocol"] == "wiki-sample-token-s512")].iloc[0]
    assert row["value"] == pytest.approx(49.0)
    assert (row["n"], row["direction"], row["pattern"]) == (20, "lower", "0.5")


def test_one_row_a_phase() -> None:
    frame = phases_frame([make_record("wanda")])
    assert tuple(frame.columns) == PHASE_COLUMNS
    assert frame["seconds"].sum() == pytest.approx(3.2 + 1.9 + 6.1 + 1.2 + 5.0 + 0.6 + 41.0)
    assert frame["peak_device_bytes"].isna().all()


def test_modules_sum_to_blocks() -> None:
    record = make_record("barber-magnitude")
    modules = modules_frame([record])
    assert tuple(modules.columns) == MODULE_COLUMNS
    assert len(modules) == N_LAYERS * len(TARGETS)
    blocks = blocks_frame(modules)
    assert len(blocks) == N_LAYERS * 2
    attention = [m for m in record.modules if m.layer == 3 and m.block == "attention"]
    row = blocks[(blocks["layer"] == 3) & (blocks["block"] == "attention")].iloc[0]
    swaps, weights = sum(m.swaps or 0 for m in attention), sum(m.n_weights for m in attention)
    assert row["moved"] == pytest.approx(2 * swaps / weights)
    assert row["error_before"] == attention[0].error_before
    assert row["sparsity"] == pytest.approx(0.5)


def test_what_was_not_measured_is_missing_not_zero() -> None:
    blocks = blocks_frame(modules_frame([make_record("wanda")]))
    assert blocks["moved"].isna().all()
    assert blocks["error_before"].isna().all()
    assert blocks["error_after"].notna().all()


def test_empty_records_give_empty_frames_with_their_columns() -> None:
    failed = failed_record()
    assert metrics_frame([]).empty and tuple(metrics_frame([]).columns) == METRIC_COLUMNS
    assert modules_frame([failed]).empty
    assert blocks_frame(modules_frame([failed])).empty


def test_invisible_characters_in_names_are_written_out() -> None:
    frame = phases_frame([make_record("dense", model_name="evil\u202egnp.exe\x07")])
    assert set(frame["model"]) == {"evil\\u202egnp.exe\\u0007"}
