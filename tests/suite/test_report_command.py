"""`prunebench report`: which records it takes, and what it says of wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from suite.results import ResultStore
from suite.results.records.record import Record, body_digest
from tests.reports.page_tables import PageTables
from tests.reports.synthetic import failed_record, make_record
from tests.reports.synthetic_measured import measured_record
from tests.suite.conftest import refusal


def store(tree: Path, *records: Record) -> Path:
    for record in records:
        ResultStore(tree).write(record)
    return tree


def ranked(page: Path) -> list[str]:
    """The names in the ranked table, rank first."""
    rows = PageTables(page.read_text(encoding="utf-8")).rows("first 10,240 tokens")
    return [row[0] for row in rows]


def test_several_folders_at_any_depth_make_one_report(prunebench, tmp_path):
    store(tmp_path / "runs" / "first", make_record("dense"), make_record("wanda"))
    store(tmp_path / "runs" / "second", make_record("sparsegpt"))
    store(tmp_path / "more", make_record("magnitude"))
    code, out, _ = prunebench("report", "runs", "more", "--out", "deep/report.html")
    assert (code, out) == (0, "deep/report.html\n")
    page = tmp_path / "deep" / "report.html"
    assert ranked(page) == ["dense", "1sparsegpt", "2wanda", "3magnitude"]
    assert "<title>runs, more</title>" in page.read_text(encoding="utf-8")


def test_only_keeps_the_cells_asked_for_and_their_dense_models(prunebench, tmp_path):
    store(tmp_path / "runs", make_record("dense"), make_record("wanda"), make_record("sparsegpt"))
    store(
        tmp_path / "runs",
        make_record("dense", model_name="other"),
        make_record("magnitude", model_name="other"),
    )
    assert prunebench("report", "runs", "--out", "report.html", "--only", "* sparsegpt *")[0] == 0
    assert ranked(tmp_path / "report.html") == ["dense", "1sparsegpt"]
    assert "matches none of 3 cells" in refusal(
        prunebench("report", "runs", "--out", "r.html", "--only", "wandda")
    )


def test_what_is_shown_in_detail_is_read_whole(prunebench, tmp_path):
    store(tmp_path / "runs", measured_record("dense"), measured_record("barber-wanda"), failed_record())
    assert prunebench("report", "runs", "--out", "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The rebuild lowered" in page and 'class="said"' in page
    assert "record digest" in page and "not sealed" not in page
    assert "SingularHessianError" in page


def test_what_cannot_be_read_or_is_too_new_is_named_beside_what_can(prunebench, tmp_path):
    runs = store(tmp_path / "runs", make_record("wanda"), make_record("magnitude"), make_record("sparsegpt"))
    newer, cut = (next(runs.rglob(f"{name}--*.json")) for name in ("magnitude", "sparsegpt"))
    body = json.loads(newer.read_text(encoding="utf-8"))
    newer.write_text(json.dumps(body | {"schema_version": 99}), encoding="utf-8")
    cut.write_bytes(cut.read_bytes()[:500])
    assert prunebench("report", "runs", "--out", "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ranked(tmp_path / "report.html") == ["1wanda"]
    assert (
        "99" in page[page.index(newer.name) :][:300] and "is cut short" in page[page.index(cut.name) :][:300]
    )


def test_wrong_input_is_one_line(prunebench, tmp_path):
    store(tmp_path / "runs", make_record("dense"))
    assert "no such folder of records" in refusal(prunebench("report", "runs", "gone", "--out", "r.html"))
    assert "is a folder; --out names the HTML file" in refusal(prunebench("report", "runs", "--out", "runs"))
    assert "no pruned record" in refusal(prunebench("report", "runs", "--out", "r.html", "--only", "wanda"))
    (tmp_path / "empty").mkdir()
    assert "holds no records" in refusal(prunebench("report", "empty", "--out", "r.html"))


@pytest.mark.parametrize("times", [1, 1000])
def test_a_record_that_is_replaced_meanwhile_is_read_anew(prunebench, tmp_path, monkeypatch, times):
    import reports.page.html as page

    runs = store(tmp_path / "runs", make_record("wanda"))
    compare, written = page.compare, []

    def compare_while_a_suite_runs(records: list[Record]) -> object:
        if len(written) < times:
            written.append(f"attempt {len(written)}")
            store(runs, make_record("wanda", warnings=(written[-1],)))
        return compare(records)

    monkeypatch.setattr(page, "compare", compare_while_a_suite_runs)
    ended = prunebench("report", "runs", "--out", "r.html")
    if times == 1:
        assert ended[0] == 0
        assert "attempt 0" in (tmp_path / "r.html").read_text(encoding="utf-8")
    else:
        assert "was replaced since it was first read; run the command again" in refusal(ended)
        assert not (tmp_path / "r.html").exists()


def test_a_later_failure_is_shown_beside_the_numbers_that_stand(prunebench, tmp_path):
    runs = store(tmp_path / "runs", make_record("sparsegpt"))
    later = failed_record("sparsegpt", "0.5").model_copy(update={"created": "2027-01-01T00:00:00Z"})
    store(runs, later)
    assert prunebench("report", "runs", "--out", "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ranked(tmp_path / "report.html") == ["1sparsegpt"]
    assert "1 of 2 cells finished" in page and "SingularHessianError" in page


def test_a_record_that_says_a_thing_twice_or_of_nothing_is_left_out_and_named(prunebench, tmp_path):
    runs = store(tmp_path / "runs", make_record("wanda"), make_record("magnitude"), make_record("sparsegpt"))
    twice, empty = (next(runs.rglob(f"{name}--*.json")) for name in ("magnitude", "sparsegpt"))
    for path, change in ((twice, _windows_twice), (empty, _no_weights)):
        body = json.loads(path.read_text(encoding="utf-8"))
        body.pop("body_digest")
        change(body)
        path.write_text(json.dumps(body | {"body_digest": body_digest(body)}), encoding="utf-8")
    assert prunebench("report", "runs", "--out", "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ranked(tmp_path / "report.html") == ["1wanda"]
    assert "the windows of a protocol occur twice" in page[page.index(twice.name) :][:300]
    assert "greater than or equal to 1" in page[page.index(empty.name) :][:300]
    assert "2 records could not be read" in page


def _windows_twice(body):
    body["windows"].append(body["windows"][0] | {"nll": [1.0]})


def _no_weights(body):
    body["modules"][0]["n_weights"] = 0
