"""`--track mlflow`: logs a run to MLflow, with a nested run for each cell.

Server, experiment and credentials are configured with MLflow's own variables: MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME, and MLFLOW_TRACKING_... for authentication. Without a URI, runs are logged to a
database in the results folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import InputError
from suite.cell import Cell
from suite.results.records.index import MLFLOW_ARTIFACTS
from suite.results.records.reading import load_record
from suite.results.records.record import Record
from suite.results.records.state import describe_failure
from suite.tracking.tracker import Ending, SuiteRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"

DEFAULTS = {
    # MLflow would send usage data to its makers; prunebench sends nothing without being asked.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Otherwise MLflow prints the address of each run to stdout, which is reserved for data.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # With MLflow's defaults of 120 s and 7 retries, a hanging server can delay a run by a quarter of an hour.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""Environment variables that are set unless the user has set them; MLflow reads them when it is imported, or
at each request."""

_LONGEST_NAME = 240
_LONGEST_VALUE = 500
_log = logging.getLogger(__name__)


class MLflowTracker:
    """Logs to MLflow.

    Records are identified by the digest of their body, so that a record logged by an earlier run of the
    suite is not logged twice. The MLflow run of the suite itself is made with the first new record.
    """

    def __init__(self) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        try:
            with _quiet():
                import mlflow  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"--track mlflow: MLflow cannot be imported ({error}); pip install 'prunebench[mlflow]'"
            ) from error

    def run_started(self, run: SuiteRun) -> None:
        """Connects, and finds or makes the experiment; raises here if the server is unreachable."""
        import mlflow

        self._suite_run = run
        self._started = _now()
        self._parent: str | None = None
        local = not mlflow.is_tracking_uri_set()
        uri = f"sqlite:///{(run.out / DATABASE).resolve().as_posix()}" if local else mlflow.get_tracking_uri()
        if local:
            run.out.mkdir(parents=True, exist_ok=True)
            shown = f"sqlite:///{(run.out / DATABASE).as_posix()}"
            _log.info("mlflow ui --backend-store-uri %s shows this run", shown)
        with _quiet():
            self._client: MlflowClient = mlflow.MlflowClient(tracking_uri=uri)
            self._experiment = _experiment(
                self._client,
                os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.suite,
                # Otherwise MLflow puts artifacts into a folder `mlruns` in the working directory.
                (run.out / MLFLOW_ARTIFACTS).resolve().as_uri() if local else None,
            )

    def record_written(self, path: Path) -> None:
        """Logs the record in file `path` unless it is already logged."""
        record = load_record(path)
        with _quiet():
            if self._is_logged(record):
                return
            client = self._client
            started = _milliseconds(record.created)
            made = client.create_run(
                self._experiment,
                start_time=started,
                run_name=_run_name(record.cell),
                tags={**self._source(), **_tags(record), "mlflow.parentRunId": self._parent_run()},
            )
            run = made.info.run_id
            _log_batches(client, run, parameters(record), metrics(record), started)
            client.log_artifact(run, str(path))
            if record.side_file is not None:
                client.log_artifact(run, str(path.with_name(record.side_file.name)))
            # The run ends when the file was written, also for a record that was kept from an earlier run.
            ended = max(started, int(path.stat().st_mtime * 1000))
            status = "FINISHED" if record.status == "complete" else "FAILED"
            client.set_terminated(run, status, ended)

    def run_ended(self, ending: Ending, report: Path | None) -> None:
        """Adds the report to the suite's run and ends it; does nothing if no record was new."""
        if self._parent is None:
            return
        with _quiet():
            if report is not None:
                self._client.log_artifact(self._parent, str(report))
            status = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[ending]
            self._client.set_terminated(self._parent, status)

    def _parent_run(self) -> str:
        if self._parent is None:
            run = self._suite_run
            made = self._client.create_run(
                self._experiment,
                start_time=self._started,
                run_name=run.suite,
                tags=self._source(),
            )
            self._parent = made.info.run_id
            _log_batches(self._client, made.info.run_id, {"suite": run.suite, "cells": str(run.n_cells)})
        return self._parent

    def _source(self) -> dict[str, str]:
        # MLflow's pages show a commit only if a source is set.
        return {"mlflow.source.name": f"prunebench run {self._suite_run.suite}"}

    def _is_logged(self, record: Record) -> bool:
        found = self._client.search_runs(
            [self._experiment], f"tags.`prunebench.body_digest` = '{record.body_digest}'"
        )
        for run in found:
            if run.info.status == "RUNNING":  # the process that logged it died before it was done
                self._client.set_terminated(run.info.run_id, "KILLED")
        return any(run.info.status in ("FINISHED", "FAILED") for run in found)


def _run_name(cell: Cell) -> str:
    # The model comes last: MLflow's tables cut long names, and most runs share the model.
    return f"{' '.join(filter(None, (cell.variant, cell.pattern)))}, {cell.model}"


def parameters(record: Record) -> dict[str, str]:
    """Returns the cell's values, flattened (`settings.initial`, `perplexity.0.corpus`), and the machine's."""
    machine = record.environment.model_dump(include={"device", "processor", "threads"})
    found = {**record.cell.by_key, **{f"environment.{key}": value for key, value in machine.items()}}
    return {
        _name(re.sub(r"\[(\d+)\]", r".\1", key)): (value if isinstance(value, str) else json.dumps(value))[
            :_LONGEST_VALUE
        ]
        for key, value in found.items()
        if "." in key or value not in (None, [], {})
    }


def metrics(record: Record) -> dict[str, float]:
    """Returns all metrics that have a value, with their standard errors, as `perplexity/<protocol>`."""
    found: dict[str, float] = {}
    for metric in record.metrics:
        for name, value in ((metric.name, metric.value), (f"{metric.name}.stderr", metric.stderr)):
            if value is None:
                continue
            # MLflow's pages group metrics by slashes, so a protocol (the path of a text file) must have none.
            protocol = metric.protocol.replace("/", "_")
            key = full_name = _name(f"{name}/{protocol}" if protocol else name)
            number = 1
            while key in found:
                number += 1
                key = f"{full_name}-{number}"
            found[key] = value
    return found


def _tags(record: Record) -> dict[str, str]:
    code = record.code
    found = {
        "prunebench.body_digest": record.body_digest,
        "prunebench.cell_digest": record.cell.digest,
        "prunebench.status": record.status,
        "prunebench.version": code.prunebench,
        "prunebench.source_digest": code.source_digest,
        "prunebench.failure": describe_failure(record),
        # MLflow's pages show the commit in this tag.
        "mlflow.source.git.commit": code.git_commit or "",
        "prunebench.git_clean": "" if code.git_clean is None else str(code.git_clean).lower(),
    }
    found |= {
        _name(
            f"prunebench.no_value.{metric.name} {metric.protocol.replace('/', '_')}".rstrip()
        ): metric.status
        for metric in record.metrics
        if metric.value is None
    }
    return {key: value[:_LONGEST_VALUE] for key, value in found.items() if value}


def _name(text: str) -> str:
    """Replaces characters that MLflow does not allow in names (a colon, on Windows) with underscores."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", text)[:_LONGEST_NAME]


def _log_batches(
    client: MlflowClient,
    run: str,
    params: Mapping[str, str],
    values: Mapping[str, float] | None = None,
    timestamp: int = 0,
) -> None:
    from mlflow.entities import Metric, Param

    # A request may hold at most 100 parameters or 500 metrics.
    rows = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(rows), 100):
        client.log_batch(run, params=rows[start : start + 100])
    numbers = [Metric(key, value, timestamp, 0) for key, value in (values or {}).items()]
    for start in range(0, len(numbers), 500):
        client.log_batch(run, metrics=numbers[start : start + 500])


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Returns the id of experiment MLFLOW_EXPERIMENT_ID, else of the one called `name`, made if missing."""
    if wanted := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return str(client.get_experiment(wanted).experiment_id)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=artifacts))


def _milliseconds(created: str) -> int:
    moment = datetime.fromisoformat(created)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _now() -> int:
    return int(time.time() * 1000)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the messages of MLflow and its libraries about tables they make and requests they repeat."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):  # stdout is reserved for data
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


__all__ = ["DATABASE", "DEFAULTS", "MLflowTracker", "metrics", "parameters"]
