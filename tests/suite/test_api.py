"""The way in from Python: what it returns, what it raises, and what it leaves on the disk."""

import subprocess
import sys
from typing import get_type_hints

import pytest
import torch

import suite
from methods.errors import InputError, PruningError
from methods.scores.wanda import Wanda
from suite import CalibrationSpec, evaluate_checkpoint, prune_checkpoint, run_suite
from suite.api.stages import PlannedSuite
from suite.api.suites import _Quiet
from suite.executors.local import LocalExecutor
from suite.planning.suite_cells import load_suite, plan
from suite.results import ResultStore
from tests.suite.results.examples import make_record
from tests.tiny import write_suite


@pytest.fixture
def tiny(tmp_path):
    """A suite file: dense, magnitude and Wanda on the tiny model."""
    return write_suite(tmp_path, "magnitude wanda", patterns=["0.5"])


@pytest.fixture
def broken_wanda(monkeypatch):
    def fail(*_, **__):
        raise PruningError("no prune today")

    monkeypatch.setattr(Wanda, "prune", fail)


QUICKLY = {"perplexity": [], "tasks": [], "prompts": None, "speed": False, "device": "cpu"}


def methods_of(records):
    return [record.cell.method for record in records]


def test_every_public_name_can_be_had_from_the_package():
    for name in suite.__all__:
        assert getattr(suite, name) is not None
    assert dir(suite) == sorted(suite.__all__)
    for function in (run_suite, prune_checkpoint, evaluate_checkpoint):
        assert get_type_hints(function)["return"]
    with pytest.raises(AttributeError, match="no attribute 'run_everything'"):
        _ = suite.run_everything


def test_a_suite_gives_its_records_and_its_report(tiny, tmp_path):
    out, seen = tmp_path / "records", []
    outcome = run_suite(tiny, out=out, device="cpu", on_cell=seen.append)
    assert methods_of(outcome.records) == ["dense", "magnitude", "wanda"]
    assert (outcome.failed, outcome.kept, len(outcome.finished)) == ((), (), 3)
    assert outcome.report == out / "report.html"
    assert "wanda" in outcome.report.read_text()
    assert outcome.records == tuple(seen), "each was given as it is stored"
    assert all(record.is_intact and record.side_file for record in seen)


def test_its_parts_can_be_chosen_and_what_stands_is_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run_suite(str(tiny), only=["dense", "magni*"])
    assert methods_of(first.records) == ["dense", "magnitude"]
    assert first.out.resolve() == tmp_path / "results" / "tiny"
    assert methods_of(run_suite(tiny, only="magnitude").records) == ["magnitude"]
    seen = []
    second = run_suite(load_suite(str(tiny)), on_cell=seen.append)
    assert methods_of(seen) == ["wanda"]
    assert [cell.method for cell in second.kept] == ["dense", "magnitude"]
    assert methods_of(second.records) == ["dense", "magnitude", "wanda"]
    assert len(run_suite(tiny, existing="rerun").finished) == 3
    with pytest.raises(InputError, match="exists: give another --out"):
        run_suite(tiny, existing="fail")
    monkeypatch.chdir("/")
    assert first.report.is_file() and methods_of(second.records) == ["dense", "magnitude", "wanda"]


def test_a_cell_is_found_by_its_files_name_whatever_its_dtype(tiny, tmp_path):
    tiny.write_text(tiny.read_text().replace('"float32"', '"bfloat16"'))
    outcome = run_suite(tiny, out=tmp_path / "records", only=["dense"], device=torch.device("cpu"))
    (cell,) = outcome.kept or outcome.finished
    assert cell.dtype == "bfloat16"
    assert run_suite(tiny, out=tmp_path / "records", only=cell.stem).kept == (cell,)


def test_a_cell_that_fails_is_among_the_failed_and_costs_no_other(tiny, tmp_path, broken_wanda):
    seen = []
    outcome = run_suite(tiny, out=tmp_path / "records", on_cell=seen.append)
    (failed,) = outcome.failed
    assert (failed.cell.method, failed.reason) == ("wanda", "prune: no prune today")
    assert "in fail\n" in failed.traceback
    assert failed.record == seen[-1].model_copy(update={"body_digest": "", "side_file": None})
    assert len(repr(outcome)) + len(repr(failed)) + len(repr(outcome.records)) < 600
    assert methods_of(outcome.records) == ["dense", "magnitude"]
    assert [record.status for record in seen] == ["complete", "complete", "failed"]
    assert outcome.report.is_file()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"suite": "no-such"}, "unknown suite 'no-such'"),
        ({"only": ["sparsegpt"]}, "matches none of 3 cells"),
        ({"device": "tpu"}, "--device tpu"),
        ({"out": __file__}, "test_api.py"),
        ({"existing": "stale"}, "existing: should be 'skip', .* or 'fail', not 'stale'"),
        ({"placement": "gpu"}, "placement: should be 'resident' or 'onload', not 'gpu'"),
        ({"suite": 5}, "suite: should be a valid string, not 5"),
        ({"only": [5]}, "only: should be a valid string"),
        ({"only": ""}, "an empty text"),
        ({"device": 0}, "device: should be a valid string, not 0"),
        ({"on_cell": 5}, "on_cell: should be callable, not 5"),
        ({"out": "/proc/nowhere/records"}, "cannot be made"),
    ],
)
def test_wrong_input_is_an_input_error_and_nothing_runs(tiny, tmp_path, changes, said):
    asked = {"suite": tiny, "out": tmp_path / "records", **changes}
    with pytest.raises(InputError, match=said):
        run_suite(asked.pop("suite"), **asked)
    assert not (tmp_path / "records").exists()


def test_what_was_measured_stays_where_the_caller_ends_the_run(tiny, tmp_path):
    def stop(record):
        if record.cell.method == "magnitude":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(tiny, out=tmp_path / "records", on_cell=stop)
    assert len(ResultStore(tmp_path / "records").records().records) == 2
    assert "ended early" in (tmp_path / "records" / "report.html").read_text()


SCRIPT = """
import sys
import torch
import suite.api.suites as suites

# As on a machine with two GPUs.
suites.resolve_devices = lambda *_: [torch.device("cpu")] * 2
print("once")


def tell(record):
    if len(sys.argv) > 3:
        raise KeyError("not today")


outcome = suites.run_suite(sys.argv[1], out=sys.argv[2], on_cell=tell)
print(len(outcome.records), outcome.failed)
"""


def test_a_script_without_a_guard_runs_on_several_devices_and_runs_once(tiny, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    asked = [sys.executable, str(script), str(tiny), str(tmp_path / "records")]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["once", "3 ()"]), done.stderr


def test_what_other_workers_measured_is_stored_where_the_caller_ends_the_run(tiny, tmp_path):
    class Executor(LocalExecutor):
        """Brings all records in at once, and stores the rest where storing one raised, as `drive` does."""

        def run(self, job):
            first, *rest = [make_record(entry.cell) for entry in job.planned]
            try:
                job.writer.write(first, None)
            finally:
                for record in rest:
                    job.writer.write(record, None)

    def end(_):
        raise KeyError("not today")

    asked = {"out": tmp_path / "records", "existing": "rerun", "weights": "resident", "warn": print}
    planned = PlannedSuite.of("tiny", plan(load_suite(str(tiny))), Executor([torch.device("cpu")]), **asked)
    with pytest.raises(KeyError, match="not today"):
        planned.prepared(warn=print).carry_out(_Quiet(), warn=print, on_written=end)
    assert len(ResultStore(tmp_path / "records").records().records) == 3


def test_remarks_are_logged_as_warnings(tiny, tmp_path, caplog):
    run_suite(tiny, out=tmp_path / "records", only=["dense"])
    assert "kept up to date" not in caplog.text
    (tmp_path / "text.txt").write_text("other words than before " * 400)
    run_suite(tiny, out=tmp_path / "records", only=["dense"])
    assert "stale, kept" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_checkpoint_is_pruned_and_measured(tiny, tmp_path):
    text = tmp_path / "text.txt"
    pruned = prune_checkpoint(
        tmp_path / "model",
        "wanda",
        tmp_path / "pruned",
        sparsity=0.5,
        calibration=CalibrationSpec(source=str(text), n_samples=4, seqlen=32),
        device="cpu",
    )
    assert pruned.sparsity == 0.5
    assert pruned.record.cell.method == "wanda"
    assert pruned.prune_seconds > 0
    seen = []
    found = evaluate_checkpoint(
        pruned.folder,
        dense=tmp_path / "model",
        out=tmp_path / "records",
        perplexity=text,
        seqlen=32,
        tasks=[],
        prompts=None,
        speed=False,
        dtype="float32",
        device="cpu",
        on_cell=seen.append,
    )
    assert methods_of(seen) == ["dense", "wanda"]
    assert found.dense.cell.is_dense
    assert seen == [found.dense, found.record], "each was given as it is stored"
    assert all(record.is_intact and record.side_file for record in seen)
    assert found.record.metric("kl_divergence").value > 0
    assert {s.record.cell.digest for s in ResultStore(tmp_path / "records").records().records} == {
        found.record.cell.digest,
        found.dense.cell.digest,
    }


def test_wrong_input_writes_no_checkpoint(tmp_path, tiny):
    with pytest.raises(InputError, match="unknown method 'wander'"):
        prune_checkpoint(tmp_path / "model", "wander", tmp_path / "pruned", sparsity=0.5)
    with pytest.raises(InputError, match="give --sparsity"):
        prune_checkpoint(tmp_path / "model", "wanda", tmp_path / "pruned")
    with pytest.raises(InputError, match="no-such"):
        evaluate_checkpoint(tmp_path / "no-such", out=tmp_path / "records")
    for changes, said in (
        ({"seqlen": 1}, "seqlen: should be greater than or equal to 2, not 1"),
        ({"seqlen": "128"}, "seqlen: should be a valid integer, not '128'"),
        ({"limit": 0}, "limit: "),
        ({"speed": "no"}, "speed: should be a valid boolean, not 'no'"),
        ({"first_token": "yes"}, "first_token: should be 'auto', 'never' or 'always', not 'yes'"),
        ({"dtype": "fp16"}, "dtype: should be 'float32', .*, not 'fp16'"),
        ({"dense_revision": "main"}, "no dense model"),
        ({"out": "/proc/nowhere", **QUICKLY}, "--out /proc/nowhere: cannot be made"),
        ({"placement": "gpu"}, "placement: "),
        ({"tasks": "no-such-task"}, "no-such-task"),
        ({"perplexity": "no-such-text"}, "no-such-text"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate_checkpoint(tmp_path / "model", **{"out": tmp_path / "records", **changes})
    for changes, said in (
        ({"dtype": torch.float32}, "dtype: "),
        ({"placement": "gpu"}, "placement: "),
        ({"calibration": None}, "calibration: "),
        ({"watcher": 5}, "watcher: should be an instance of Watcher, not 5"),
        ({"sparsity": 1.5}, "1.5"),
        ({"settings": {"power": 1}}, "no setting 'power'"),
    ):
        asked = {"sparsity": 0.5, **changes}
        with pytest.raises(InputError, match=said):
            prune_checkpoint(tmp_path / "model", "magnitude", tmp_path / "pruned", **asked)
    assert not (tmp_path / "pruned").exists()
    assert not (tmp_path / "records").exists()


def test_a_prune_that_fails_is_raised_and_leaves_nothing(tmp_path, tiny, broken_wanda):
    spec = CalibrationSpec(source=str(tmp_path / "text.txt"), n_samples=4, seqlen=32)
    with pytest.raises(PruningError, match="no prune today"):
        prune_checkpoint(tmp_path / "model", "wanda", tmp_path / "pruned", sparsity=0.5, calibration=spec)
    assert not (tmp_path / "pruned").exists()
