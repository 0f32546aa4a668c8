"""Whether a record holds what its cell asks for, of the model and tokens that the cell names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from suite.cell import TaskSpec
from suite.results.records.items import TaskOutcomes
from suite.results.records.record import CalibrationIdentity, Record
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PAPER_WINDOWS = 256
"""So many the papers take of C4, whatever the limit (docs/protocols.md)."""


def check_cell(subject: Subject) -> Iterator[Finding]:
    """The record against its cell."""
    record = subject.record
    messages = [*_model(record), *_calibration(record), *_digests(record), *_threads(record)]
    messages += [*_asked(record)] if record.status == "complete" else [*_failed(record)]
    for message in messages:
        yield subject.problem("cell", message)
    if record.status == "complete":
        yield from _short_texts(subject)
        yield from _groups(subject)


def _model(record: Record) -> Iterator[str]:
    cell, model = record.cell, record.model
    if model is None:
        if record.status == "complete":
            yield "is complete and names no model"
        return
    measured = record.checkpoint or model
    if measured.dtype != cell.dtype:
        yield f"was measured in {measured.dtype}, and the cell asks for {cell.dtype}"
    if (record.checkpoint is not None) != (cell.checkpoint is not None):
        yield f"checkpoint is {'there' if record.checkpoint else 'missing'}, and the cell says otherwise"
    if record.checkpoint is not None:
        if record.checkpoint.name != cell.checkpoint:
            yield f"measured the checkpoint {record.checkpoint.name}, and the cell names {cell.checkpoint}"
    elif model.name != cell.model:
        yield f"measured the model {model.name}, and the cell names {cell.model}"
    # A branch or a tag stands for the commit that the model was found at.
    commit = re.fullmatch(r"[0-9a-f]{40}", cell.revision or "")
    if record.checkpoint is None and commit and model.revision != cell.revision:
        yield f"measured revision {model.revision}, and the cell names {cell.revision}"


def _calibration(record: Record) -> Iterator[str]:
    spec, found = record.cell.calibration, record.calibration
    if found is None:
        if spec is not None and record.cell.prunes and record.status == "complete":
            yield "the cell asks for calibration, and the record has none"
        return
    if spec is None:
        yield "has calibration, and the cell asks for none"
        return
    asked = (spec.source, spec.n_samples, spec.seqlen)
    if _key(found) != asked:
        yield f"was calibrated on {_key(found)}, and the cell asks for {asked}"
    if spec.first_token != "auto" and found.first_token != (spec.first_token == "always"):
        yield f"was calibrated with first_token {found.first_token}, and the cell asks for {spec.first_token}"
    # Rows of a file are used as they stand, whatever the seed.
    if found.seed not in (spec.seed, None):
        yield f"was calibrated with seed {found.seed}, and the cell asks for {spec.seed}"


def _key(found: CalibrationIdentity) -> tuple[str, int, int]:
    return found.source, found.n_samples, found.seqlen


def _digests(record: Record) -> Iterator[str]:
    found: dict[str, str | None] = {
        "mask_digest": record.mask_digest,
        "initial_mask_digest": record.initial_mask_digest,
        "weight_digest": record.model.weight_digest if record.model else None,
        "source_digest": record.code.source_digest,
        "calibration digest": record.calibration.digest if record.calibration else None,
        **{f"corpus_digest of {losses.protocol}": losses.corpus_digest for losses in record.windows},
        **{f"items_digest of {task.protocol}": task.items_digest for task in record.tasks},
    }
    for name, digest in found.items():
        if digest is not None and not _DIGEST.fullmatch(digest):
            yield f"{name} is no SHA-256: {digest!r}"
    if (record.mask_digest is not None) != (record.cell.prunes and record.status == "complete"):
        yield f"mask_digest is {record.mask_digest}, in the {record.status} record of {record.cell.label}"
    if record.modules and record.cell.is_dense:
        yield f"has {len(record.modules)} pruned modules, and nothing was pruned"
    if not record.modules and not record.cell.is_dense and record.status == "complete":
        yield "has no report of any module"


def _threads(record: Record) -> Iterator[str]:
    asked, found = record.cell.threads, record.environment.threads
    if asked is not None and asked != found:
        yield f"ran with {found} threads, and the cell asks for {asked}"


def _failed(record: Record) -> Iterator[str]:
    for name in ("metrics", "windows", "divergences", "tasks", "answers", "modules"):
        if getattr(record, name):
            yield f"failed, and has {name}"


def _asked(record: Record) -> Iterator[str]:
    cell = record.cell
    windows = {losses.protocol: losses for losses in record.windows}
    # Where the first token was left to the model, the record says what became of it.
    specs = {
        next((name for name in spec.protocols if name in windows), spec.protocol): spec
        for spec in cell.perplexity
    }
    if list(windows) != list(specs) or len(windows) < len(record.windows):
        yield f"was measured on {_listed(windows)}, and the cell asks for {_listed(specs)}"
    for protocol in windows.keys() & specs.keys():
        losses, spec = windows[protocol], specs[protocol]
        if (losses.seqlen, losses.limit) != (spec.seqlen, spec.max_tokens):
            yield (
                f"{protocol} has windows of {losses.seqlen} and limit {losses.limit}, and the cell asks for "
                f"{spec.seqlen} and {spec.max_tokens}"
            )
        n_tokens = len(losses.nll) * losses.seqlen
        if losses.limit is not None and n_tokens > losses.limit:
            yield f"{protocol} has {n_tokens} tokens in its windows, more than its limit of {losses.limit}"
    diverged = [found.protocol for found in record.divergences]
    if diverged and (not cell.divergence or diverged != list(windows)):
        yield f"has divergences on {_listed(diverged)}, and the cell asks for other ones"
    if not diverged and cell.divergence and not cell.is_dense and windows:
        yield "the cell asks for divergence, and the record has none"
    for found in record.divergences:
        losses_of = windows.get(found.protocol)
        if losses_of and not len(found.kl) == len(found.agreement) == len(losses_of.nll):
            yield f"{found.protocol} has another number of divergences than of windows"
    if (record.answers is not None) != (cell.answers is not None):
        yield f"answers are {'there' if record.answers else 'missing'}, and the cell says otherwise"
    elif record.answers is not None and cell.answers is not None:
        asked = (cell.answers.prompts, cell.answers.max_new_tokens)
        if (record.answers.prompts, record.answers.max_new_tokens) != asked:
            yield f"answered {record.answers.prompts} in {record.answers.max_new_tokens} tokens, not {asked}"
    if record.tasks and not cell.tasks:
        yield f"was asked {_listed([task.task for task in record.tasks])}, and the cell asks for no task"


def _short_texts(subject: Subject) -> Iterator[Finding]:
    """Windows that the limit has room for and that are not there: a short text's, or left out."""
    for losses in subject.record.windows:
        if losses.limit is None or losses.seqlen < 1:
            continue
        room = losses.limit // losses.seqlen
        if losses.protocol.startswith("c4-paper-"):
            room = min(room, _PAPER_WINDOWS)
        if len(losses.nll) < room:
            yield subject.remark(
                "cell",
                f"{losses.protocol} has {len(losses.nll)} windows, and its limit allows {room}: "
                "its text ends there, or some were left out",
            )


def _groups(subject: Subject) -> Iterator[Finding]:
    """Whether every task that the cell asks for is there: as a task, or as a group or tag of others."""
    record = subject.record
    asked = record.cell.tasks
    names = {spec.name for spec in asked}
    for task in record.tasks:
        if task.task in names and not any(_fits(spec, task) for spec in asked):
            yield subject.problem(
                "cell", f"was asked {task.protocol} with limit {task.limit}, which the cell does not ask for"
            )
    missing = [spec.name for spec in asked if not any(spec.name == task.task for task in record.tasks)]
    others = {task.task for task in record.tasks} - names
    if missing and not others:
        yield subject.problem("cell", f"was not asked {_listed(missing)}, which the cell asks for")
    elif missing:
        yield subject.remark(
            "cell",
            f"{_listed(missing)} is taken for the name of a group or tag: which tasks it has is not known",
        )
    elif others and asked:
        yield subject.problem("cell", f"was asked {_listed(others)}, which the cell does not ask for")


def _fits(spec: TaskSpec, task: TaskOutcomes) -> bool:
    return (
        spec.name == task.task and spec.limit == task.limit and spec.num_fewshot in (None, task.num_fewshot)
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


__all__ = ["check_cell"]
