"""`prunebench export`: what it writes, and what it says of wrong input."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from suite.results import ResultStore
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.suite.conftest import prunebench, refusal

__all__ = ["prunebench"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for record in quickstart():
        ResultStore(tmp_path / "results").write(record)
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("format", "out", "expected"),
    [
        ("csv", "deep/numbers.csv", ["numbers.csv"]),
        ("markdown", "numbers.md", ["numbers.md"]),
        ("figures", "drawn", ["figures.md", "time.svg", "time.pdf", "time.csv"]),
        ("latex", "paper", ["main.tex", "references.bib", "table-cost.tex", "figures/figure-time.pdf"]),
    ],
)
def test_it_writes_what_was_asked_for_and_says_where(
    prunebench, results, tmp_path, format, out, expected
) -> None:
    for _ in range(2):  # a second time it replaces its own files
        code, said, _ = prunebench("export", results, "--format", format, "--out", out)
        assert (code, said.strip()) == (0, out)
    root = tmp_path / out if (tmp_path / out).is_dir() else (tmp_path / out).parent
    assert all((root / name).stat().st_size for name in expected)


def test_a_damaged_record_is_named_and_the_others_are_exported(prunebench, results, tmp_path) -> None:
    broken = next(results.glob("*/wanda--0.5--*.json"))
    broken.write_text("{")
    code, _, err = prunebench("export", results, "--format", "csv", "--out", "x.csv")
    assert code == 0 and broken.name in err
    assert len(set(pd.read_csv(tmp_path / "x.csv")["cell"])) == 12
    prunebench("export", results, "--format", "latex", "--out", "paper")
    assert "wanda" in (tmp_path / "paper/main.tex").read_text()


def test_wrong_input_gets_one_line(prunebench, results, tmp_path) -> None:
    def line(*arguments: object) -> str:
        return refusal(prunebench("export", *arguments))

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert "no such folder" in line("nowhere", "--format", "csv", "--out", "x.csv")
    assert "holds no records" in line("empty", "--format", "csv", "--out", "x.csv")
    assert "is a folder" in line(results, "--format", "csv", "--out", "empty")
    assert "is a file" in line(results, "--format", "latex", "--out", "file")
    assert "--format" in line(results, "--format", "docx", "--out", "x")
    ResultStore(tmp_path / "failed").write(failed_record())
    assert "no finished cell" in line("failed", "--format", "latex", "--out", "paper")
    assert "nothing to draw" in line("failed", "--format", "figures", "--out", "drawn")
    ResultStore(tmp_path / "dense").write(make_record("dense"))
    assert "nothing to draw" in line("dense", "--format", "figures", "--out", "drawn")
    assert not (tmp_path / "drawn").exists() and not (tmp_path / "paper").exists()
