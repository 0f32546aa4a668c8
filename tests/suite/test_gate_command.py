"""`prunebench gate`, on records that were written as a run writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from suite.results import ResultStore
from suite.results.gate import read_side
from suite.results.gate.baseline import update_baseline
from suite.results.records.record import Record
from tests.suite.conftest import refusal
from tests.suite.results.examples import make_cell, make_failed, make_items
from tests.suite.results.faults import FaultyLayer, Killed
from tests.suite.results.gate.contestants import KL, NLL, asked, costs, divergence, losses, record, shifted

OTHER = make_cell(method="magnitude", calibration=None)


def write(folder: Path, *records: Record) -> Path:
    for one in records:
        ResultStore(folder).write(one, make_items())
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return write(tmp_path / "baseline", record(divergences=(divergence(),)), record(cell=OTHER))


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    nll = losses(shifted(NLL, 0.1, spread=0.01))
    return write(
        tmp_path / "worse",
        record(divergences=(divergence(shifted(KL, 0.1, spread=0.01)),), windows=(nll,), mask_digest="x"),
        record(cell=OTHER),
    )


def test_the_same_records_pass(prunebench, baseline, tmp_path) -> None:
    shutil.copytree(baseline, tmp_path / "again")
    code, out, _ = prunebench("gate", "baseline", "again")
    assert code == 0
    assert "same            org/model wanda (output) 0.5 (same masks)" in out
    assert out.splitlines()[-1] == "no regression: 10 same in 2 cells"


def test_a_worse_candidate_fails_and_is_described(prunebench, baseline, worse) -> None:
    code, out, _ = prunebench("gate", baseline, worse)
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("same"), "records are listed by file name: magnitude first"
    assert lines[1] == "worse           org/model wanda (output) 0.5 (other masks)"
    assert "perplexity wiki-sample-token-s2048" in lines[2]
    assert "+10.5 %" in lines[2] and "p < 0.001" in lines[2] and "tolerance 1 %" in lines[2]
    assert lines[-1] == "a regression was found: 2 worse, 8 same in 2 cells"
    assert "acc" not in out
    _, everything, _ = prunebench("gate", baseline, worse, "--all")
    assert "peak_host_bytes" in everything and "peak_host_bytes" not in out


def test_programs_may_read_it(prunebench, baseline, worse) -> None:
    code, out, _ = prunebench("gate", baseline, worse, "--json")
    found = json.loads(out)
    assert code == found["exit_code"] == 1
    metrics = {m["name"]: m for m in found["cells"][1]["metrics"]}
    assert metrics["perplexity"]["outcome"] == "worse"
    assert metrics["perplexity"]["tolerance"] == {"relative": 0.01, "absolute": None}
    assert metrics["perplexity"]["n"] == 16


def test_summaries_are_written_where_they_are_asked_for(
    prunebench, baseline, worse, tmp_path, monkeypatch
) -> None:
    prunebench("gate", baseline, worse, "--junit", "ci/junit.xml", "--markdown", "ci/gate.md")
    cases = ElementTree.parse(tmp_path / "ci" / "junit.xml").findall(".//testcase")
    failing = [case.get("name") for case in cases if case.find("failure") is not None]
    assert failing == [f"{m} wiki-sample-token-s2048" for m in ("perplexity", "kl_divergence")]
    markdown = (tmp_path / "ci" / "gate.md").read_text()
    assert markdown.startswith("## prunebench: Regression\n")
    assert "| 🔴 worse | `org/model wanda (output) 0.5` | `perplexity wiki-sample-token-s2048` |" in markdown
    summary = tmp_path / "step.md"
    summary.write_text("# Other steps\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    prunebench("gate", baseline, worse)
    assert summary.read_text() == f"# Other steps\n{markdown}"


def test_what_cannot_be_compared_has_a_code_of_its_own(prunebench, baseline, tmp_path) -> None:
    write(tmp_path / "candidate", record(windows=(losses(corpus_digest="x"),)), record(cell=OTHER))
    code, out, _ = prunebench("gate", baseline, "candidate")
    assert code == 3
    assert "another corpus" in out
    assert "no regression was found, but not everything could be compared" in out


def test_a_failed_rerun_counts_even_where_older_numbers_stand(prunebench, baseline, tmp_path) -> None:
    write(tmp_path / "candidate", record(), record(cell=OTHER), make_failed(created="2026-01-01T00:00:00Z"))
    code, out, _ = prunebench("gate", baseline, "candidate")
    assert code == 1
    assert "newly failing   org/model wanda (output) 0.5: failed: NonFiniteError" in out


def test_one_record_may_be_held_against_one(prunebench, baseline, worse) -> None:
    one, other = (next(folder.rglob("wanda*.json")) for folder in (baseline, worse))
    assert prunebench("gate", one, one)[0] == 0
    assert prunebench("gate", one, other)[0] == 1


def test_graded_answers_are_read_from_the_side_files(prunebench, tmp_path) -> None:
    graded = record(tasks=(asked(None, metric="f1"),))
    for name, shift in (("one", 0.0), ("other", -0.3)):
        rows = [("cloze-0shot", "f1", n, 0.5 + 0.01 * n + shift) for n in range(20)]
        items = pd.DataFrame(rows, columns=["protocol", "metric", "item", "value"])
        ResultStore(tmp_path / name).write(graded, items)
    code, out, _ = prunebench("gate", "one", "other")
    assert code == 1
    assert "f1 cloze-0shot" in out and "0.595 → 0.295" in out


def test_an_update_makes_the_candidate_the_baseline_to_the_byte(prunebench, baseline, worse) -> None:
    code, out, err = prunebench("gate", baseline, worse, "--update")
    assert (code, "a regression was found" in out) == (0, True)
    assert "2 records written" in err
    assert files(baseline) == files(worse)
    assert prunebench("gate", baseline, worse)[0] == 0


def test_an_update_takes_away_what_the_candidate_does_not_have(prunebench, baseline, tmp_path) -> None:
    write(tmp_path / "candidate", record())
    (baseline / "org__model" / "wanda--0.5--00000000.json").write_text("{ half")
    code, _, err = prunebench("gate", baseline, "candidate", "--update")
    assert code == 0
    assert "is not JSON" in err
    assert files(baseline) == files(tmp_path / "candidate")


def test_the_first_baseline_is_made_by_an_update(prunebench, worse, tmp_path) -> None:
    code, out, _ = prunebench("gate", "new/baseline", worse, "--update")
    assert (code, out) == (0, "")
    assert files(tmp_path / "new" / "baseline") == files(worse)


@pytest.mark.parametrize("damage", ["empty", "cut", "no side file", "twice", "other suite", "nested", "none"])
def test_a_baseline_that_is_none_costs_one_line(prunebench, baseline, worse, damage, tmp_path) -> None:
    first = next(baseline.rglob("wanda*.json"))
    says = {
        "empty": "holds no records",
        "cut": "is cut short",
        "no side file": "its side file",
        "twice": "is there twice",
        "other suite": "no cell in common",
        "nested": "holds no records itself, but",
        "none": "no such folder",
    }
    if damage == "empty":
        shutil.rmtree(baseline / "org__model")
    elif damage == "cut":
        first.write_bytes(first.read_bytes()[:200])
    elif damage == "no side file":
        next(baseline.rglob("wanda*.parquet")).unlink()
    elif damage == "twice":
        shutil.copy(first, first.with_name("wanda--0.5--copied.json"))
    elif damage == "other suite":
        shutil.rmtree(baseline)
        write(baseline, record(cell=make_cell(pattern="2:4")))
    elif damage == "nested":
        baseline = baseline.parent
        shutil.rmtree(baseline / "worse" / "org__model")
        shutil.move(baseline / "baseline", baseline / "results" / "baseline")
        baseline, worse = baseline / "results", write(tmp_path / "fine", record())
    else:
        shutil.rmtree(baseline)
    assert says[damage] in refusal(prunebench("gate", baseline, worse))


def test_tolerances_of_ones_own_are_read_and_named(prunebench, baseline, worse, tmp_path) -> None:
    (tmp_path / "own.toml").write_text("[perplexity]\nrelative = 1.0\n[kl_divergence]\nignore = true\n")
    assert prunebench("gate", baseline, worse, "--tolerances", "own.toml")[0] == 0
    (tmp_path / "own.toml").write_text("[perplexty]\nrelative = 1.0\n")
    assert "did you mean 'perplexity'" in refusal(
        prunebench("gate", baseline, worse, "--tolerances", "own.toml")
    )


@pytest.mark.parametrize("wrong", ["a key", "twice", "another suite", "a record", "a folder to write"])
def test_an_update_that_was_asked_for_wrongly_changes_nothing(
    prunebench, baseline, worse, tmp_path, wrong
) -> None:
    before = files(baseline)
    arguments = ["gate", baseline, worse, "--update"]
    if wrong == "a key":
        arguments += ["--across", "calibraton.seed"]
    elif wrong == "twice":
        first = next(worse.rglob("wanda*.json"))
        shutil.copy(first, first.with_name("wanda--0.5--copied.json"))
    elif wrong == "another suite":
        arguments[2] = write(tmp_path / "other", record(cell=make_cell(pattern="2:4")))
    elif wrong == "a record":
        arguments[2] = next(worse.rglob("wanda*.json"))
    else:
        arguments += ["--junit", tmp_path]
    refusal(prunebench(*arguments))
    assert files(baseline) == before


def test_a_summary_that_cannot_be_written_changes_no_verdict(
    prunebench, baseline, worse, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))  # a folder
    code, _, err = prunebench("gate", baseline, baseline)
    assert (code, "$GITHUB_STEP_SUMMARY: cannot be written" in err) == (0, True)
    assert prunebench("gate", baseline, worse)[0] == 1
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(prunebench("gate", baseline, worse, "--junit", "file/junit.xml"))

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("suite.storage.files.replace_text", full)
    assert prunebench("gate", baseline, worse, "--junit", "junit.xml")[0] == 1
    assert prunebench("gate", baseline, baseline, "--junit", "junit.xml")[0] == 3


def test_a_side_file_that_is_none_costs_one_line(prunebench, tmp_path) -> None:
    graded = record(tasks=(asked(None, metric="f1"),))
    for name in ("one", "other"):
        ResultStore(tmp_path / name).write(graded, make_items())
    assert "its side file cannot be read" in refusal(prunebench("gate", "one", "other"))


def test_a_failure_beside_numbers_is_told_whatever_its_clock_said(prunebench, baseline, tmp_path) -> None:
    write(tmp_path / "candidate", record(), record(cell=OTHER), make_failed(created="2020-01-01T00:00:00Z"))
    code, out, _ = prunebench("gate", baseline, "candidate", "--all")
    assert code == 3, "it did not measure the divergence"
    assert (
        "note: the candidate has a failed attempt at org/model wanda (output) 0.5 beside its numbers" in out
    )


@pytest.mark.parametrize("before", [True, False], ids=["replaced", "first"])
def test_an_update_that_is_cut_leaves_each_cell_old_or_new(baseline, worse, tmp_path, before) -> None:
    candidate = read_side(worse, "candidate")
    counted = FaultyLayer()
    shutil.copytree(baseline, tmp_path / "counted")
    update_baseline(tmp_path / "counted" if before else tmp_path / "new", candidate, files=counted)
    for at in range(len(counted.steps)):
        folder = tmp_path / str(at)
        if before:
            shutil.copytree(baseline, folder)
        with pytest.raises(Killed):
            update_baseline(folder, candidate, files=FaultyLayer(at))
        store = ResultStore(folder)
        contents = store.records()
        assert not contents.unreadable
        assert len(contents.records) == 2 or not before
        for stored in contents.records:
            assert store.items(stored) is not None
        update_baseline(folder, candidate)
        assert files(folder) == files(worse) or any(
            name.startswith(".tmp") for name in map(_name, files(folder))
        )


def _name(path: str) -> str:
    return Path(path).name


def test_a_candidate_that_failed_is_no_baseline(prunebench, baseline, tmp_path) -> None:
    before = files(baseline)
    write(tmp_path / "candidate", make_failed(), record(cell=OTHER))
    assert prunebench("gate", baseline, "candidate", "--update")[0] == 2
    assert prunebench("gate", baseline, baseline, "--update")[0] == 2
    assert files(baseline) == before


def test_costs_alone_may_fail_it(prunebench, baseline, tmp_path) -> None:
    write(tmp_path / "slow", record(metrics=costs(seconds=30.0)), record(cell=OTHER))
    code, out, _ = prunebench("gate", baseline, "slow")
    assert code == 1
    assert "prune_seconds" in out and "+200 %" in out and "tolerance 50 %, at least 2" in out
