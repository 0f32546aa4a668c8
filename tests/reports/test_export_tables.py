"""The CSV and Markdown exports: every number, read back, and text that stays text."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from reports import ReportError
from reports.export import export_csv, export_markdown
from tests.reports.export_examples import HOSTILE, named
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import measured_quickstart


def read(text: str) -> pd.DataFrame:
    # As text: each number is then read to the bit, whatever parser this pandas has.
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


def test_the_csv_has_every_metric_to_the_bit() -> None:
    records = measured_quickstart()
    frame = read(export_csv(records))
    metrics = [(r, m) for r in records for m in r.metrics]
    assert len(frame) == len(metrics) > 100
    for row, (record, metric) in zip(frame.to_dict("records"), metrics, strict=True):
        assert (row["cell_digest"], row["record_digest"]) == (record.cell.digest, record.body_digest)
        assert (row["metric"], row["protocol"], row["direction"]) == (
            metric.name,
            metric.protocol,
            metric.direction,
        )
        for name in ("value", "stderr", "low", "high", "n"):
            stored = getattr(metric, name)
            assert row[name] == "" if stored is None else float(row[name]) == stored
        if record.calibration is not None:
            assert (row["calibration_seed"], row["calibration_digest"]) == (
                str(record.calibration.seed),
                record.calibration.digest,
            )
    windows = frame[frame["metric"] == "perplexity"]
    assert set(windows["corpus_limit"]) == {"10240"}


def test_a_failed_record_is_a_row_that_says_why() -> None:
    frame = read(export_csv([make_record("wanda"), failed_record()]))
    (row,) = frame[frame["status"] == "failed"].to_dict("records")
    assert "SingularHessianError in phase solve" in row["failure"]
    assert row["value"] == ""


def test_hostile_text_survives_csv() -> None:
    frame = read(export_csv(named(HOSTILE)))
    seen = HOSTILE.replace("\u202e", "\\u202e").replace("\x00", "\\u0000").replace("\x07", "\\u0007")
    assert seen in set(frame["model"])


def test_nothing_to_export_is_said() -> None:
    with pytest.raises(ReportError, match="no records"):
        export_csv([])
    with pytest.raises(ReportError, match="no records"):
        export_markdown([], title="t")


def test_markdown_has_the_answer_the_tables_and_the_failures() -> None:
    text = export_markdown(
        [*quickstart(), failed_record("wanda", "4:8")], title="Four ways", problems=["x is broken"]
    )
    assert text.startswith("# Four ways\n\nOn smollm2-135m, perplexity stays lowest with sparsegpt")
    assert "| 1. sparsegpt | **40.30** (35.87 to 45.28), best |" in text
    assert "- x is broken" in text and "SingularHessianError in phase solve" in text
    assert "wiki-sample-token-s512, n = 20 windows, 95 % interval, lower is better" in text.replace(
        "\u00a0", " "
    )


def test_a_markdown_table_has_as_many_cells_in_every_row() -> None:
    for records in (measured_quickstart(), named(HOSTILE), named("a|b\n|c `d` [e](f) <img src=x> **g**")):
        text = export_markdown(records, title=HOSTILE)
        tables = [block for block in text.split("\n\n") if block.startswith("| ")]
        assert tables
        for table in tables:
            widths = {len(line.replace("\\|", "").split("|")) for line in table.splitlines()}
            assert len(widths) == 1


def test_markup_in_names_stays_text() -> None:
    text = export_markdown(named("[e](f) <img src=x> **g** `h`"), title="t")
    assert "\\[e\\](f) \\<img src=x\\> \\*\\*g\\*\\* \\`h\\`" in text
    assert "<img" not in text.replace("\\<img", "")
