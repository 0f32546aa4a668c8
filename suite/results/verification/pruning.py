"""Checks sparsity, sizes and prune cost against the modules and phases of a record."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from suite.results.records.record import Metric, ModuleReport, Record
from suite.results.statistics.model_metrics import ITEMSIZES, cost_metrics, share_pruned, size_metrics
from suite.results.verification.arithmetic import compare
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.pattern_counts import impossible_counts, read_pattern, span_of


def check_sparsity(subject: Subject) -> Iterator[Finding]:
    """Checks the numbers of each module, the modules against the pattern, and the total sparsity."""
    record = subject.record
    if len({module.module for module in record.modules}) < len(record.modules):
        yield subject.problem("sparsity", "has two reports of one module")
    for module in record.modules:
        if problem := _impossible(module):
            yield subject.problem("sparsity", f"{module.module}: {problem}")
    if not _can_be_counted(record) or record.status != "complete":
        return
    if record.cell.prunes:
        yield from _against_pattern(subject)
    yield from _total(subject)


def check_size(subject: Subject) -> Iterator[Finding]:
    """Checks the packed sizes against the checkpoint's bytes and the modules."""
    record = subject.record
    dtype, measured = record.cell.dtype, record.checkpoint or record.model
    stored = record.metric("checkpoint_bytes", dtype)
    if stored is None or stored.value is None:
        yield subject.problem("size", f"has packed sizes and no checkpoint_bytes of {dtype}")
        return
    if measured is not None and stored.value < measured.n_parameters * ITEMSIZES[dtype]:
        yield subject.problem(
            "size",
            f"checkpoint_bytes is {stored.value:.0f}, fewer than {measured.n_parameters} parameters "
            f"of {ITEMSIZES[dtype]} bytes take",
        )
    if record.modules and not _can_be_counted(record):
        return  # reported by the check `sparsity`
    pattern = record.cell.pattern if read_pattern(record.cell.pattern) else None
    for due in size_metrics(stored.value, record.modules, dtype=dtype, pattern=pattern):
        yield from compare(subject, "size", due, "the modules", relative=0.0)


def check_cost(subject: Subject) -> Iterator[Finding]:
    """Checks prune time, memory and energy against the phases."""
    record = subject.record
    if record.cell.checkpoint is not None:
        return  # not pruned in this run: the seconds come from the checkpoint's pruning.json
    for due in cost_metrics(record.phases, record.shared):
        # Energy was added in schema version 3; the other costs exist in all versions.
        if due.name != "prune_energy_joules" or record.metric(due.name, ""):
            yield from compare(subject, "cost", due, "the phases")


def _impossible(module: ModuleReport) -> str | None:
    """Describes impossible numbers of a module; None if they are possible."""
    if not module.shape or min(module.shape) < 1:
        return f"its shape is {list(module.shape)}"
    if module.n_weights != prod(module.shape):
        return f"{module.n_weights} weights, by its shape {prod(module.shape)}"
    if not 0 <= module.n_pruned <= module.n_weights:
        return f"{module.n_pruned} of {module.n_weights} weights pruned"
    return None


def _can_be_counted(record: Record) -> bool:
    return bool(record.modules) and not any(map(_impossible, record.modules))


def _total(subject: Subject) -> Iterator[Finding]:
    """Checks the sparsity of all modules together."""
    record = subject.record
    metric, found = record.metric("sparsity"), share_pruned(record.modules)
    if metric is None or metric.value is None:
        yield subject.problem("sparsity", "sparsity is missing, and the modules are there")
        return
    due = Metric(name="sparsity", protocol=metric.protocol, value=found, direction="none")
    if record.cell.checkpoint is None or metric.protocol == "zeros":
        yield from compare(subject, "sparsity", due, "its modules")
        return
    # For a checkpoint, the modules count zeros, which may be more than the pruned weights.
    yield from compare(subject, "sparsity", due.model_copy(update={"value": metric.value}), "its modules")
    if metric.value > found + 1e-9:
        message = f"sparsity is {metric.value!r}, and only {found!r} of its weights are 0"
        is_warned = any("pruning.json" in warning for warning in record.warnings)
        yield (subject.remark if is_warned else subject.problem)("sparsity", message)


def _against_pattern(subject: Subject) -> Iterator[Finding]:
    cell = subject.record.cell
    pattern = read_pattern(cell.pattern)
    if pattern is None:
        yield subject.problem("sparsity", f"{cell.pattern!r} is no pattern")
        return
    span = span_of(cell.method, cell.settings, allocated=cell.allocation is not None)
    for message in impossible_counts(subject.record.modules, pattern, str(cell.pattern), span):
        yield subject.problem("sparsity", message)


__all__ = ["check_cost", "check_size", "check_sparsity"]
