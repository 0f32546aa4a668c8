"""The figures: what they show, what they say, and that they survive anything a record may hold."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from reports.charts import Figure, figures
from reports.rankings.comparison import compare
from suite.results.records.record import Record
from tests.reports.drawn_figures import drawn, measured_figures, rows_of
from tests.reports.synthetic import PERPLEXITY, failed_record, make_record
from tests.reports.synthetic_measured import measured_record

HOSTILE = "</script><b>\"'\\[0].x: {{7*7}} ${y} (a, b)\n\u202e-0shot"


@pytest.fixture(scope="module")
def measured() -> dict[str, Figure]:
    return measured_figures()


@pytest.fixture(scope="module")
def sparser() -> list[Record]:
    """Four unstructured sparsities and 2:4, three tasks."""
    tasks = ("cloze", "agreement", "next")
    records = [measured_record("dense", tasks=tasks)]
    for i, pattern in enumerate(("0.5", "0.6", "0.7", "0.8", "2:4")):
        records += [
            measured_record(kind, pattern, tasks=tasks, ppl_factor=1 + i)
            for kind in ("wanda", "sparsegpt", "barber-wanda", "barber-magnitude")
        ]
    return records


def test_all_that_was_measured_is_drawn_in_the_order_of_the_questions(measured) -> None:
    assert list(measured) == ["time", "memory", "quality", "recovery", "flips", "moved", "error", "phases"]
    assert len({figure.tab for figure in measured.values()}) == len(measured)


def test_every_figure_has_a_title_a_note_and_data_to_read(measured, sparser) -> None:
    for figure in [*measured.values(), *drawn(sparser).values()]:
        assert figure.title and "nan" not in figure.title.lower()
        assert "better" in figure.note and "interval" in figure.note
        assert len(figure.data) > 0
        assert not figure.data.isna().all().any()
        assert all(re.fullmatch(r"[\w ×%]+", name) for name in figure.data.columns)
        text = json.dumps(figure.chart.to_dict(), allow_nan=False)
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) == set()  # colours are the page's variables


def test_nothing_to_show_is_no_figure() -> None:
    assert figures(compare([make_record("dense")]).rankings) == []
    assert figures(compare([make_record("dense"), failed_record()]).rankings) == []
    one = drawn([make_record("dense"), make_record("wanda")])
    assert not {"quality", "recovery", "flips", "moved", "error"} & one.keys()


def test_quality_is_over_dense_at_the_target_sparsities(sparser) -> None:
    figure = drawn(sparser)["quality"]
    assert "1.61 times dense at 50\u00a0% unstructured" in figure.title
    assert "6.45 at 80\u00a0% unstructured" in figure.title
    rows = [row for row in rows_of(figure) if row.get("method")]
    assert {row["x"] for row in rows if row["joined"]} == {50, 60, 70, 80}
    assert {row["x"] for row in rows if not row["joined"]} == {50}
    assert "hollow" in figure.note
    dense = {w.protocol: w for w in sparser[0].windows}
    for row in figure.data.to_dict("records"):
        nll = dense[row["protocol"]].nll
        base = math.exp(sum(v for v in nll if v is not None) / len(nll))
        assert row["× dense"] * base == pytest.approx(row["perplexity"])


def test_quality_without_dense_is_perplexity_itself() -> None:
    records = [make_record(kind, p) for kind in ("wanda", "sparsegpt") for p in ("0.5", "2:4")]
    figure = drawn(records)["quality"]
    assert "perplexity" in figure.data.columns and "× dense" not in figure.data.columns
    assert "sparsegpt has the lowest perplexity: 40.30 at 50" in figure.title
    assert "dashed" not in figure.note


def test_a_method_has_one_name_at_all_patterns(measured) -> None:
    for name in ("quality", "phases", "time"):
        at_24 = measured[name].data[measured[name].data["pattern"] == "2:4"]
        assert "wanda [seed=0]" in set(at_24["method"])


def test_layers_say_where_and_by_how_much(measured) -> None:
    data = measured["error"].data
    fell = sum(int((data[f"{b} after"] < data[f"{b} before"]).sum()) for b in ("attention", "mlp"))
    assert f"lowered the block error in {fell} of {2 * len(data)} blocks" in measured["error"].title
    values = [point for row in rows_of(measured["moved"]) for point in row["value"]]
    assert f"{max(values):.2g} % of the weights" in measured["moved"].title
    assert len(values) == 2 * len(measured["moved"].data)


def test_panels_beyond_the_first_are_counted_and_stay_in_the_table() -> None:
    records = [measured_record("dense", parts=("tasks",))]
    records += [measured_record("wanda", f"0.{i}", parts=("tasks",)) for i in range(41, 71)]
    found = drawn(records)
    for name, n_panels in {"time": 30, "recovery": 60, "flips": 60, "phases": 30}.items():
        figure = found[name]
        assert len(figure.chart.to_dict()["facet"]["sort"]) == 24
        assert f"{n_panels - 24} further panels are not drawn" in figure.note
        assert len(figure.data) == n_panels


def test_rows_beyond_the_first_are_counted_and_points_on_each_other_share_their_label() -> None:
    seeds = [make_record("wanda", seed=seed) for seed in range(30)]
    found = drawn([make_record("dense"), make_record("sparsegpt"), *seeds])
    assert "9 further methods not drawn" in found["phases"].note
    assert len(rows_of(found["phases"])) == 22 and len(found["phases"].data) == 31
    assert {row["digits"] for row in rows_of(found["time"]) if row.get("digits")} == {"1", "2 … 31"}


def test_one_window_has_points_and_no_intervals() -> None:
    records = [make_record(kind, p, n_windows=1) for kind in ("wanda", "sparsegpt") for p in ("0.5", "2:4")]
    for name in ("time", "quality"):
        figure = drawn(records)[name]
        assert not {"low", "high"} & set(figure.data.columns)
        assert len(figure.data) in (4, 8)


@pytest.mark.parametrize("where", ["setting", "task", "corpus", "method"])
def test_hostile_names_are_values_and_nothing_else(where: str) -> None:
    changes: dict[str, Any] = {"tasks": (HOSTILE, "x")} if where == "task" else {}
    if where == "corpus":
        changes["corpora"] = (HOSTILE, "b")
    records = [measured_record("dense", **changes)]
    for kind in ("wanda", "barber-wanda"):
        for pattern in ("0.5", "2:4"):
            own = dict(changes)
            if where == "setting":
                own["settings"] = {"initial": HOSTILE, "granularity": kind}
            record = measured_record(kind, pattern, **own)
            if where == "method" and kind == "wanda":
                cell = record.cell.model_copy(update={"method": HOSTILE})
                record = record.model_copy(update={"cell": cell}).sealed()
            records.append(record)
    found = drawn(records)
    assert {"time", "quality", "recovery", "flips", "error", "phases"} <= found.keys()
    for figure in found.values():
        spec = figure.chart.to_dict()
        read = [*_strings(spec, "field"), *_strings(spec, "labelExpr"), *_strings(spec, "calculate")]
        read += [*_strings(spec, "filter"), *_strings(spec, "expr"), *_strings(spec, "title")]
        assert read and not any("7*7" in text for text in read)
        assert "\u202e" not in json.dumps(spec, ensure_ascii=False)


def _strings(part: Any, key: str) -> list[str]:
    """Every string beneath `key`, apart from the data."""
    if isinstance(part, list):
        return [text for one in part for text in _strings(one, key)]
    if not isinstance(part, dict):
        return []
    own = [part[key]] if isinstance(part.get(key), str) else []
    return own + [text for name, one in part.items() if name != "datasets" for text in _strings(one, key)]


def test_the_lowest_perplexity_is_not_called_close_to_dense() -> None:
    records = [make_record("dense"), *(make_record("wanda", p, ppl_factor=0.3) for p in ("0.5", "2:4"))]
    records += [make_record("sparsegpt", p, ppl_factor=0.62) for p in ("0.5", "2:4")]
    title = drawn(records)["quality"].title
    assert (
        title.startswith("wanda has the lowest perplexity: 0.59 times dense at 50") and "close" not in title
    )


def test_who_is_tied_with_the_lowest_is_said() -> None:
    base = PERPLEXITY["wanda"]
    alike = {k: 1.001 * base / PERPLEXITY[k] for k in ("sparsegpt", "barber-wanda", "barber-magnitude")}
    records = [make_record("dense"), *(make_record("wanda", p) for p in ("0.5", "2:4"))]
    records += [make_record("sparsegpt", "2:4", ppl_factor=alike["sparsegpt"])]
    two = drawn(records)["quality"].title
    assert two.endswith("2.65 at 2:4 (tied with sparsegpt)") and "unstructured (tied" not in two
    records += [make_record(k, "2:4", ppl_factor=f) for k, f in alike.items() if k != "sparsegpt"]
    four = drawn(records)["quality"].title
    assert re.search(r"\(tied with [^,]+, .+ and 1 other\)$", four)
