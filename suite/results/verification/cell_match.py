"""Checks that a record contains what its cell requests, for the model and data that the cell names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from suite.cell import TaskSpec
from suite.results.records.items import TaskOutcomes
from suite.results.records.record import Record
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PAPER_WINDOWS = 256
"""Number of windows of C4 that the papers use, whatever the limit (docs/protocols.md)."""

_Asked = Iterator[tuple[str, object, object]]
"""(name, value in the record, value requested by the cell)."""


def check_cell(subject: Subject) -> Iterator[Finding]:
    """Compares the record with its cell."""
    record = subject.record
    is_complete = record.status == "complete"
    compared = [*_inputs(record), *_parts(record), *(_items(record) if is_complete else ())]
    messages = [
        f"{what}: the record has {_shown(found)}, and the cell asks for {_shown(asked)}"
        for what, found, asked in compared
        if found != asked
    ]
    messages += [*_digests(record), *(_measured(record) if is_complete else _failed(record))]
    for message in messages:
        yield subject.problem("cell", message)
    if is_complete:
        yield from _short_texts(subject)
        yield from _groups(subject)


def _inputs(record: Record) -> _Asked:
    """Yields model, checkpoint, calibration and threads."""
    cell, model, checkpoint = record.cell, record.model, record.checkpoint
    if model is not None:
        yield "dtype", (checkpoint or model).dtype, cell.dtype
        yield "checkpoint", checkpoint and checkpoint.name, cell.checkpoint
        if checkpoint is None:
            yield "model", model.name, cell.model
            # Only commits are comparable: the record has the commit that a branch or tag pointed to.
            if _COMMIT.fullmatch(cell.revision or ""):
                yield "revision", model.revision, cell.revision
    spec, found = cell.calibration, record.calibration
    if found is not None:
        yield "calibration", found.source, found.source if spec else None
    elif spec is not None and cell.prunes and record.status == "complete":
        yield "calibration", None, spec.source
    if found is not None and spec is not None:
        for name in ("source", "n_samples", "seqlen"):
            yield f"calibration {name}", getattr(found, name), getattr(spec, name)
        if spec.first_token != "auto":
            yield "calibration first_token", found.first_token, spec.first_token == "always"
        # A file of rows is used as it is, without a seed.
        if found.seed is not None:
            yield "calibration seed", found.seed, spec.seed
    if cell.threads is not None:
        yield "number of threads", record.environment.threads, cell.threads


def _parts(record: Record) -> _Asked:
    """Yields the allocation and the recipe or method, if the record contains its parts."""
    cell, texts = record.cell, [part.text for part in record.parts]
    if not texts:
        return
    names = [text.partition("(")[0] for text in texts]
    allocations = [name for name, part in zip(names, record.parts, strict=True) if part.role == "allocation"]
    yield "allocation", allocations, [cell.allocation.name] if cell.allocation else []
    pruned_by = texts[len(allocations) :]
    if cell.method == "recipe":
        yield "recipe", " | ".join(pruned_by), cell.settings.get("recipe")
    else:
        yield "method", names[-1], cell.method


def _items(record: Record) -> _Asked:
    """Yields texts, divergences and answers."""
    cell = record.cell
    windows = {losses.protocol: losses for losses in record.windows}
    # If `first_token` is `auto`, the record shows which of the two protocols was chosen.
    specs = {
        next((name for name in spec.protocols if name in windows), spec.protocol): spec
        for spec in cell.perplexity
    }
    yield "texts", list(windows), list(specs)
    for protocol in windows.keys() & specs.keys():
        losses, spec = windows[protocol], specs[protocol]
        yield f"seqlen of {protocol}", losses.seqlen, spec.seqlen
        yield f"limit of {protocol}", losses.limit, spec.max_tokens
    diverged = [found.protocol for found in record.divergences]
    if diverged or not cell.is_dense:
        yield "texts with divergences", diverged, list(windows) if cell.divergence else []
    given, asked = record.answers, cell.answers
    yield (
        "answers",
        given and f"{given.prompts} in {given.max_new_tokens} tokens",
        asked and f"{asked.prompts} in {asked.max_new_tokens} tokens",
    )
    if not cell.tasks:
        yield "tasks", [task.task for task in record.tasks], []


def _measured(record: Record) -> Iterator[str]:
    """Checks that a complete record names its model and has the right numbers of windows."""
    if record.model is None:
        yield "is complete and names no model"
    lengths = {losses.protocol: len(losses.nll) for losses in record.windows}
    for losses in record.windows:
        n_tokens = len(losses.nll) * losses.seqlen
        if losses.limit is not None and n_tokens > losses.limit:
            yield f"{losses.protocol} has {n_tokens} tokens, more than its limit of {losses.limit}"
    for found in record.divergences:
        n_windows = lengths.get(found.protocol)
        if n_windows is not None and not len(found.kl) == len(found.agreement) == n_windows:
            yield f"{found.protocol} has another number of divergences than of windows"


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


def _failed(record: Record) -> Iterator[str]:
    for name in ("metrics", "windows", "divergences", "tasks", "answers", "modules"):
        if getattr(record, name):
            yield f"failed, and has {name}"


def _short_texts(subject: Subject) -> Iterator[Finding]:
    """Finds texts with fewer windows than the limit allows: the text is short, or windows were left out."""
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
    """Checks that the record has every task that the cell requests, by name or as part of a group or tag."""
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


def _shown(value: object) -> str:
    return _listed(value) if isinstance(value, list) else "none" if value is None else str(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


__all__ = ["check_cell"]
