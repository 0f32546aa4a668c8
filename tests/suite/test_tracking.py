"""`--track`: what MLflow is told, once, and a tracker that fails and costs nothing."""

import importlib
import json
import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest

from methods.errors import InputError
from suite import tracking
from suite.cli import main
from suite.results import ResultStore
from suite.results.history.series import read_history
from suite.results.records.record import Metric
from suite.tracking import SuiteRun, Tracking, open_tracker
from suite.tracking.mlflow import DEFAULTS, MLflowTracker, metrics, parameters
from tests.suite.conftest import refusal
from tests.suite.results.examples import make_cell, make_failed, make_items, make_record
from tests.tiny import write_suite

CELLS = {"dense", "magnitude", "wanda"}
MLFLOW_VARIABLES = (*DEFAULTS, "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")


@pytest.fixture(autouse=True)
def _no_settings_of_mlflow(monkeypatch):
    """None from outside, and none that a test leaves behind."""
    for name in MLFLOW_VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back as it was, whatever the test sets
        monkeypatch.delenv(name)


def client_of(out: Path):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")


def runs_of(out: Path, suite: str = "tiny"):
    """The runs in the store of a results folder: those of suites, and those of cells."""
    client = client_of(out)
    found = client.search_runs([client.get_experiment_by_name(suite).experiment_id])
    nested = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    return [run for run in found if run not in nested], nested


def records_of(out: Path):
    return {stored.record.cell.method: stored for stored in ResultStore(out).records().records}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run of the tiny suite that was tracked: its folder of suite and results."""
    folder = tmp_path_factory.mktemp("tracked")
    suite = write_suite(folder, methods="magnitude wanda", patterns=["0.5"])
    with pytest.MonkeyPatch.context() as patch:
        for name in MLFLOW_VARIABLES:
            patch.setenv(name, "")
            patch.delenv(name)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["prunebench", "run", str(suite), "--out", "out", "--track", "mlflow"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder


@pytest.mark.slow
def test_a_run_is_logged_with_a_nested_run_for_each_cell(tracked):
    (parent,), nested = runs_of(tracked / "out")
    assert (parent.info.run_name, parent.info.status) == ("tiny", "FINISHED")
    assert {run.data.params["method"] for run in nested} == CELLS
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parent.info.run_id}
    assert {run.info.status for run in nested} == {"FINISHED"}


@pytest.mark.slow
def test_a_nested_run_holds_what_its_record_says(tracked):
    stored = records_of(tracked / "out")["wanda"]
    (run,) = [run for run in runs_of(tracked / "out")[1] if run.data.params["method"] == "wanda"]
    perplexity = stored.record.metric("perplexity")
    protocol = perplexity.protocol.replace("/", "_")
    assert run.data.metrics[f"perplexity/{protocol}"] == perplexity.value
    assert run.data.metrics[f"perplexity.stderr/{protocol}"] == perplexity.stderr
    assert run.data.metrics["sparsity/target-modules"] == 0.5
    assert run.data.params["pattern"] == "0.5"
    assert run.data.params["calibration.n_samples"] == "4"
    assert run.data.params["dtype"] == "float32"
    assert int(run.data.params["environment.threads"]) >= 1
    assert {f"settings.{key}" for key in stored.record.cell.settings} <= set(run.data.params)
    assert run.data.tags["prunebench.body_digest"] == stored.record.body_digest
    assert run.data.tags["prunebench.source_digest"] == stored.record.code.source_digest
    assert run.data.tags["prunebench.status"] == "complete"
    assert run.data.tags["prunebench.no_value.peak_device_bytes"] == "no accelerator in use"


@pytest.mark.slow
def test_the_record_its_items_and_the_report_are_artifacts(tracked, tmp_path):
    client = client_of(tracked / "out")
    (parent,), nested = runs_of(tracked / "out")
    (report,) = client.list_artifacts(parent.info.run_id)
    assert report.path == "report.html"
    run = next(run for run in nested if run.data.params["method"] == "wanda")
    stored = records_of(tracked / "out")["wanda"]
    names = {stored.path.name, stored.record.side_file.name}
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} == names
    for name in names:
        copy = Path(client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        assert copy.read_bytes() == stored.path.with_name(name).read_bytes()


@pytest.mark.slow
def test_all_of_it_lies_in_the_results_folder_and_no_copy_is_taken_for_a_record(tracked):
    assert {path.name for path in tracked.iterdir()} == {"model", "out", "text.txt", "tiny.toml"}
    archive = read_history([tracked / "out"])
    assert len(archive.records) == len(records_of(tracked / "out")) == 3
    assert {stored.path.parent.name for stored in archive.records} == {archive.records[0].record.cell.folder}


@pytest.fixture
def rerun(tracked, prunebench, monkeypatch):
    """The same suite again in the folder where it was tracked."""
    monkeypatch.chdir(tracked)
    return lambda *more: prunebench("run", "tiny.toml", "--out", "out", "--track", "mlflow", *more)


@pytest.mark.slow
def test_a_resumed_run_logs_what_is_new_and_nothing_twice(tracked, rerun):
    before = runs_of(tracked / "out")
    code, _, err = rerun()
    assert code == 0, err
    assert [len(runs) for runs in runs_of(tracked / "out")] == [len(runs) for runs in before]
    records_of(tracked / "out")["wanda"].path.unlink()
    code, _, err = rerun()
    assert code == 0, err
    parents, nested = runs_of(tracked / "out")
    assert len(parents) == len(before[0]) + 1
    assert len(nested) == len(before[1]) + 1
    digests = [run.data.tags["prunebench.body_digest"] for run in nested]
    assert len(set(digests)) == len(digests)
    newest = max(parents, key=lambda run: run.info.start_time).info.run_id
    (new,) = [run for run in nested if run.data.tags["mlflow.parentRunId"] == newest]
    assert new.data.params["method"] == "wanda"


@pytest.fixture(scope="module")
def store_folder(tracked, tmp_path_factory):
    """A results folder that the tests below share; its database is a copy, as making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(tracked / "out" / "mlflow.db", folder)
    return folder


def tracker_for(folder: Path, suite: str) -> MLflowTracker:
    tracker = MLflowTracker()
    tracker.run_started(SuiteRun(suite, folder, 1))
    return tracker


@pytest.mark.slow
def test_a_record_kept_from_an_untracked_run_is_logged(store_folder):
    path = ResultStore(store_folder).write(make_record(), make_items())
    for _ in range(2):
        tracker = tracker_for(store_folder, "kept")
        tracker.record_written(path)
        tracker.run_ended("finished", None)
    parents, nested = runs_of(store_folder, "kept")
    assert (len(parents), len(nested)) == (1, 1)
    assert nested[0].data.params["settings.nested.depth"] == "2"


@pytest.mark.slow
def test_a_record_that_was_half_logged_is_logged_anew(store_folder, monkeypatch):
    path = ResultStore(store_folder).write(make_record(make_cell(method="half")))
    tracker = tracker_for(store_folder, "half")
    with monkeypatch.context() as patch:
        patch.setattr(tracker._client, "log_artifact", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tracker.record_written(path)
    tracker = tracker_for(store_folder, "half")
    tracker.record_written(path)
    tracker.record_written(path)
    _, nested = runs_of(store_folder, "half")
    assert sorted(run.info.status for run in nested) == ["FINISHED", "KILLED"]


@pytest.mark.slow
def test_failed_cells_and_endings_are_told_apart(store_folder):
    path = ResultStore(store_folder).write(make_failed())
    tracker = tracker_for(store_folder, "failed")
    tracker.record_written(path)
    tracker.run_ended("failed", None)
    (parent,), (nested,) = runs_of(store_folder, "failed")
    assert (parent.info.status, nested.info.status) == ("FAILED", "FAILED")
    assert nested.data.tags["prunebench.failure"] == "NonFiniteError in phase solve: layers.3.q: NaN"
    tracker = tracker_for(store_folder, "interrupted")
    tracker.record_written(path)
    tracker.run_ended("interrupted", None)
    assert runs_of(store_folder, "interrupted")[0][0].info.status == "KILLED"


@pytest.mark.slow
def test_the_users_own_settings_of_mlflow_hold(store_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_folder}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    tracker = tracker_for(tmp_path / "elsewhere", "tiny")
    assert client_of(store_folder).get_experiment_by_name("mine").experiment_id == tracker._experiment
    assert not (tmp_path / "elsewhere").exists()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", tracker._experiment)
    assert tracker_for(tmp_path, "other")._experiment == tracker._experiment


@pytest.mark.slow
def test_no_usage_data_is_sent():
    MLflowTracker()
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert is_telemetry_disabled()


@pytest.mark.slow
def test_names_are_those_that_mlflow_admits():
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    protocols = ("/a/b: c?.txt-token-s8", "_a_b: c_.txt-token-s8", "x" * 400, "wiki-token-s2048", "")
    record = make_record(
        make_cell(settings={"odd name?": "x" * 9000, "none": None, "deep": {"list": {}}}),
        metrics=tuple(
            Metric(name="perplexity", protocol=protocol, value=1.0, stderr=0.1, direction="lower")
            for protocol in protocols
        ),
    )
    found = metrics(record)
    assert len(found) == 2 * len(protocols)
    assert found["perplexity/wiki-token-s2048"] == found["perplexity"] == 1.0
    for name in found:
        _validate_metric_name(name)
    params = parameters(record)
    for name in params:
        _validate_param_name(name)
    assert params["settings.none"] == "null"
    assert params["settings.deep.list"] == "{}"


class Faulty:
    """A tracker that raises at one step."""

    at = ""
    calls: list[str]

    def __init__(self):
        type(self).calls = []

    def _step(self, name):
        self.calls.append(name)
        if name == self.at:
            raise RuntimeError("the server\nis on fire")

    def run_started(self, run):
        self._step("run_started")

    def record_written(self, path):
        assert json.loads(path.read_text())["status"] == "complete", "on disk before the tracker hears of it"
        self._step("record_written")

    def run_ended(self, ending, report):
        self._step("run_ended")


@pytest.fixture
def faulty(monkeypatch):
    monkeypatch.setattr(tracking, "open_tracker", lambda _: Faulty())
    return Faulty


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        ("", ["run_started", *["record_written"] * 2, "run_ended"]),
        ("run_started", ["run_started"]),
        ("record_written", ["run_started", "record_written"]),
        ("run_ended", ["run_started", *["record_written"] * 2, "run_ended"]),
    ],
)
def test_a_tracker_that_fails_costs_a_warning_and_nothing_else(
    prunebench, faulty, monkeypatch, tmp_path, step, calls
):
    monkeypatch.setattr(Faulty, "at", step)
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    code, out, err = prunebench("run", suite, "--out", "out", "--track", "mlflow")
    assert code == 0
    assert out.strip() == "out/report.html"
    assert Faulty.calls == calls
    warnings = [line for line in err.splitlines() if "tracking" in line]
    expected = "tracking with mlflow is off for the rest of this run: RuntimeError: the server is on fire"
    assert warnings == ([expected] if step else [])
    contents = ResultStore(tmp_path / "out").records()
    assert len(contents.records) == 2
    assert contents.unreadable == ()


def test_an_interrupted_run_says_so_to_its_tracker(tmp_path):
    ended = []

    class Heard(Faulty):
        def run_ended(self, ending, report):
            ended.append((ending, report))

    run = SuiteRun("tiny", tmp_path, 1)
    with pytest.raises(KeyboardInterrupt), Tracking("heard", Heard(), run, warn=print):
        raise KeyboardInterrupt
    with Tracking("heard", Heard(), run, warn=print) as open_one:
        open_one.finished(tmp_path, failed=True)
    assert ended == [("interrupted", None), ("failed", tmp_path)]


@pytest.fixture
def silent_server():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()
        taken = []

        def take():
            server.settimeout(0.1)
            while not stop.is_set():
                try:
                    taken.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        stop.set()
        thread.join()
        for connection in taken:
            connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["refuses", "hangs", "no such scheme", "no folder"])
def test_a_server_out_of_reach_turns_tracking_off(trouble, silent_server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    uri = {
        "refuses": "http://127.0.0.1:9",
        "hangs": silent_server,
        "no such scheme": "carrier-pigeon://loft",
        "no folder": f"sqlite:///{tmp_path}/file/mlflow.db",
    }[trouble]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # Shorter than by default, so that the test is; that the defaults are in force is seen below.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings = []
    with Tracking("mlflow", MLflowTracker(), SuiteRun("tiny", tmp_path, 1), warnings.append) as open_one:
        open_one.record_written(tmp_path / "any.json")
        open_one.finished(tmp_path / "report.html", failed=False)
    (warning,) = warnings
    assert warning.startswith("tracking with mlflow is off for the rest of this run: ")
    assert "\n" not in warning


@pytest.mark.slow
def test_by_default_no_request_takes_many_minutes():
    MLflowTracker()
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

    waits = MLFLOW_HTTP_REQUEST_TIMEOUT.get() * (MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() + 1)
    assert waits <= 60


def test_an_unknown_tracker_is_refused_with_the_nearest(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    line = refusal(prunebench("run", suite, "--track", "mlfow"))
    assert line == "prunebench: unknown tracker 'mlfow'; did you mean 'mlflow'?"
    assert not (tmp_path / "results").exists()


def test_without_mlflow_the_way_to_install_it_is_told(monkeypatch):
    find = importlib.import_module
    assert find("suite.tracking.mlflow").MLflowTracker is MLflowTracker, "importing it needs no MLflow"
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'prunebench\[mlflow\]'"):
        open_tracker("mlflow")


def test_a_password_in_an_address_is_not_repeated():
    class Down:
        def run_started(self, run):
            raise ConnectionError("no answer from http://ci:hunter2@tracking.example/api")

    said = []
    with Tracking("mlflow", Down(), SuiteRun("tiny", Path("out"), 1), warn=said.append):
        pass
    (line,) = said
    assert "hunter2" not in line and "http://***@tracking.example/api" in line


@pytest.mark.slow
def test_what_mlflow_prints_stays_off_stdout(capsys):
    from suite.tracking.mlflow import _quiet

    assert DEFAULTS["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true"
    with _quiet():
        print("View run at: ...")
    assert capsys.readouterr().out == ""
