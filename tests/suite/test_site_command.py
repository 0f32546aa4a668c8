"""`prunebench site`: what it prints, and what it says of wrong input."""

from __future__ import annotations

from pathlib import Path

from tests.reports.synthetic_site import dense_record, site_record, write
from tests.suite.conftest import refusal


def results(tmp_path: Path) -> Path:
    return write(tmp_path / "results", dense_record(), site_record("wanda"))


def test_it_prints_where_the_site_begins_and_counts_on_stderr(prunebench, tmp_path):
    tree = results(tmp_path)
    code, out, err = prunebench("site", tree, "--out", "board", "--title", "Ours")
    assert (code, out) == (0, "board/index.html\n")
    assert err.startswith("2 records, 1 on boards, 0 set apart, 0 not readable; ")
    page = (tmp_path / "board" / "index.html").read_text(encoding="utf-8")
    assert "<title>Ours</title>" in page and "1. wanda" in page


def test_reruns_make_a_record_rerun_and_a_model_fixes_who_counts(prunebench, tmp_path):
    tree = results(tmp_path)
    reruns = write(tmp_path / "reruns", site_record("wanda", day=9))
    code, _, _ = prunebench(
        "site", tree, "--reruns", reruns, "--out", "board", "--model", "org/alpha", "--model", "org/missing"
    )
    assert code == 0
    page = (tmp_path / "board" / "index.html").read_text(encoding="utf-8")
    assert "<bdi>rerun</bdi>" in page and "mean of 2 models" in page


def test_wrong_input_is_one_line(prunebench, tmp_path):
    tree = results(tmp_path)
    assert "no such folder of records" in refusal(prunebench("site", "nowhere", "--out", "board"))
    assert "contains other files and no site" in refusal(prunebench("site", tree, "--out", tree))
    assert "https://" in refusal(prunebench("site", tree, "--out", "board", "--url", "example.org"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "a site needs a folder" in refusal(prunebench("site", tree, "--out", "file"))
