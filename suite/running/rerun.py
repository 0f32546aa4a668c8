"""Runs the cells of records again, and compares the records with the results."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from methods.base import Placement
from methods.errors import InputError, PruningError
from suite.evaluation.inputs import Inputs, model_key
from suite.machine.cache import AssetError
from suite.machine.devices import resolve_device
from suite.machine.threads import using_threads
from suite.planning.preflight import preflight
from suite.planning.resume import input_difference
from suite.results.records.index import StoredRecord, read_again
from suite.results.records.reading import RecordError
from suite.results.records.record import Record
from suite.results.records.state import describe_failure
from suite.results.verification import CheckedRecord, Finding, one_line
from suite.results.verification.checked_record import Subject
from suite.results.verification.rerun_comparison import compare_rerun, input_that_differs
from suite.running.model_session import ModelSession
from suite.running.run_cell import run_cell
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    import torch

    from suite.results import ResultStore


MOST_THREADS = 1024
"""Largest number of threads of a rerun: a record must not start more than any machine can use."""


@dataclass(frozen=True)
class Rerun:
    """The outcome of running a record's cell again.

    Attributes:
        path: path of the record.
        outcome: `equal`, `different`, or `impossible` if the cell could not be run on the same inputs.
        findings: how the rerun differs, or why it could not be run.
    """

    path: Path
    outcome: Literal["equal", "different", "impossible"]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Chosen:
    """A record to rerun, as stored in an index, and the device on which to run it."""

    stored: StoredRecord
    device: torch.device

    @property
    def path(self) -> Path:
        return self.stored.path

    @property
    def record(self) -> Record:
        return self.stored.record

    @property
    def threads(self) -> int:
        return self.record.cell.threads or self.record.environment.threads


def choose(records: Sequence[CheckedRecord], sample: int | None, seed: int) -> list[CheckedRecord]:
    """Returns the records to rerun: all consistent records of finished cells, or a random sample of them.

    Args:
        records: the verified records.
        sample: number of records to return; None = all.
        seed: seed of the random choice, which does not depend on the order of `records`.
    """
    fit = [r for r in records if r.is_consistent and r.record is not None and r.record.status == "complete"]
    fit.sort(key=lambda r: (r.record.cell.digest if r.record else "", str(r.path)))
    if sample is None or sample >= len(fit):
        return fit
    return random.Random(seed).sample(fit, sample)


def rerun(
    records: Sequence[CheckedRecord],
    *,
    device: str = "auto",
    keep: ResultStore | None = None,
    trust_remote_code: bool = False,
    watcher: Watcher | None = None,
) -> list[Rerun]:
    """Runs the cells of records again; the cells of one model share a session.

    A cell that does not set its number of threads runs with as many as its record states.

    Args:
        records: consistent records of finished cells (see `choose`).
        device: where to run; `auto` = the CPU for records made on a CPU, else a GPU if there is one.
        keep: where to store the records of the reruns; None = nowhere.
        trust_remote_code: whether to rerun records whose model needs its own Python code.
        watcher: receives progress events.

    Returns:
        One result per record, in the order of `records`.

    Raises:
        InputError: there is no such device, or `keep` would replace one of `records`.
    """
    watcher = watcher or Silent()
    stored = [record.stored for record in records if record.stored is not None]
    chosen = [_Chosen(one, _device(device, one.record)) for one in stored]
    if keep is not None:
        for entry in chosen:
            if keep.path_of(entry.record.cell).resolve() == entry.path.resolve():
                raise InputError(f"--keep {keep.root}: would replace {entry.path}; give another folder")
    done: dict[Path, Rerun] = {}
    by_session: dict[tuple[object, ...], list[_Chosen]] = {}
    for entry in chosen:
        if (reason := _why_not(entry, trust_remote_code)) is not None:
            done[entry.path] = _impossible(entry.path, reason)
            continue
        record = entry.record
        key = (model_key(record.cell), record.cell.dtype, record.placement, entry.device, entry.threads)
        by_session.setdefault(key, []).append(entry)
    for entries in by_session.values():
        for entry, result in _in_one_session(entries, keep, watcher):
            done[entry.path] = result
    return [done[entry.path] for entry in chosen]


def _why_not(entry: _Chosen, trust_remote_code: bool) -> str | None:
    cell = entry.record.cell
    if cell.checkpoint is not None:
        return "it measures a finished checkpoint, which prunebench evaluate does"
    if cell.trust_remote_code and not trust_remote_code:
        # A record may come from anybody and must not decide which code runs here.
        return "it runs code that comes with its model, which --trust-remote-code allows"
    if not 1 <= entry.threads <= MOST_THREADS:
        return f"it says that it ran with {entry.threads} threads, which is not 1 to {MOST_THREADS}"
    return None


def _device(wanted: str, record: Record) -> torch.device:
    return resolve_device("cpu" if wanted == "auto" and record.environment.device == "cpu" else wanted)


def _in_one_session(
    entries: list[_Chosen], keep: ResultStore | None, watcher: Watcher
) -> Iterator[tuple[_Chosen, Rerun]]:
    """Runs records of one model, dtype, placement, device and thread count; the dense one first.

    If some inputs cannot be read, each record gets a session of its own.
    """
    entries = sorted(entries, key=lambda entry: not entry.record.cell.is_dense)
    first = entries[0]
    with using_threads(first.threads):
        try:
            read = preflight([entry.record.cell for entry in entries])
        except Exception as error:  # a record may name any model and text; reading those may raise anything
            if len(entries) == 1:
                yield first, _impossible(first.path, _reason(error))
                return
            for entry in entries:
                yield from _in_one_session([entry], keep, watcher)
            return
        session = ModelSession(first.device, read, Placement(weights=first.record.placement))
        for entry in entries:
            try:
                result = _run_again(entry, session, read[model_key(entry.record.cell)], keep, watcher)
            except Exception as error:  # as in `run_cell`: a failing record never stops the others
                result = _impossible(entry.path, _reason(error))
            yield entry, result


def _run_again(
    entry: _Chosen, session: ModelSession, inputs: Inputs, keep: ResultStore | None, watcher: Watcher
) -> Rerun:
    stored, _ = read_again(entry.stored)
    if (difference := input_difference(stored, inputs)) is not None:
        return _impossible(entry.path, difference)
    watcher.cell_started(stored.cell)
    found, items = run_cell(stored.cell, session, watcher)
    watcher.cell_ended(stored.cell, found.status, found)
    result = _compared(entry.path, stored, found)
    if keep is not None:
        try:
            keep.write(found, items)
        except OSError as error:
            return _not_kept(result, keep, error)
    return result


def _compared(path: Path, stored: Record, found: Record) -> Rerun:
    if found.failure is not None:
        return _impossible(path, f"it failed: {describe_failure(found)}")
    if (difference := input_that_differs(stored, found)) is not None:
        return _impossible(path, difference)
    findings = tuple(compare_rerun(Subject(path, stored), found))
    differs = any(finding.level == "problem" for finding in findings)
    return Rerun(path, "different" if differs else "equal", findings)


def _not_kept(result: Rerun, keep: ResultStore, error: OSError) -> Rerun:
    """Returns `result` with a remark that it could not be stored; an equal rerun becomes `impossible`."""
    message = one_line(f"the rerun could not be stored in {keep.root}: {error.strerror or error}")
    outcome: Literal["different", "impossible"] = (
        "different" if result.outcome == "different" else "impossible"
    )
    return Rerun(result.path, outcome, (*result.findings, Finding(result.path, "rerun", "remark", message)))


def _reason(error: Exception) -> str:
    """Returns the message of an error; prefixed with its type if it is not one of prunebench's own errors."""
    if isinstance(error, InputError | PruningError | AssetError | RecordError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _impossible(path: Path, reason: str) -> Rerun:
    message = one_line(f"could not be rerun: {reason}")
    return Rerun(path, "impossible", (Finding(path, "rerun", "remark", message),))


__all__ = ["Rerun", "choose", "rerun"]
