"""What was removed, and what follows from it: sparsity, sizes; and what the prune cost."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from suite.results.records.prune_costs import prune_costs
from suite.results.records.record import ModuleReport, Record
from suite.results.statistics.metrics import SIZES, share_pruned, size_metrics
from suite.results.verification.arithmetic import same
from suite.results.verification.checked_record import Subject
from suite.results.verification.findings import Finding
from suite.results.verification.metric_kinds import COSTS
from suite.results.verification.pattern_counts import impossible_counts, read_pattern, span_of

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def check_sparsity(subject: Subject) -> Iterator[Finding]:
    """The modules by themselves, against the pattern, and the sparsity from them."""
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
    """The packed sizes from the checkpoint's bytes and the modules."""
    record = subject.record
    stored = {name: record.metric(name) for name in SIZES}
    dense = stored["checkpoint_bytes"]
    if dense is None or dense.value is None:
        yield subject.problem("size", "has packed sizes and no checkpoint_bytes")
        return
    itemsize = _BYTES[record.cell.dtype]
    measured = record.checkpoint or record.model
    if measured is not None and dense.value < measured.n_parameters * itemsize:
        yield subject.problem(
            "size",
            f"checkpoint_bytes is {dense.value:.0f}, fewer than {measured.n_parameters} parameters "
            f"of {itemsize} bytes take",
        )
    if record.modules and not _can_be_counted(record):
        return  # `sparsity` says so
    pattern = record.cell.pattern if read_pattern(record.cell.pattern) else None
    sizes = size_metrics(dense.value, record.modules, dtype=record.cell.dtype, pattern=pattern)
    due = {metric.name: metric.value for metric in sizes}
    for name, metric in stored.items():
        if metric is None:
            if name in due:
                yield subject.problem("size", f"{name} is missing, and the modules are there")
            continue
        if metric.protocol != record.cell.dtype:
            yield subject.problem(
                "size", f"{name} is of {metric.protocol}, and the cell of {record.cell.dtype}"
            )
        if metric.direction != "lower":
            yield subject.problem("size", f"{name}: direction is {metric.direction!r}, not 'lower'")
        if name not in due:
            yield subject.problem("size", f"{name} is there, and nothing was pruned")
        elif metric.value != due[name]:
            yield subject.problem("size", f"{name} is {metric.value}, by the modules {due[name]}")


def check_cost(subject: Subject) -> Iterator[Finding]:
    """Prune time, memory and energy from the phases."""
    record = subject.record
    phase = next((phase for phase in record.phases if phase.name == "prune"), None)
    if record.cell.checkpoint is not None:
        return  # others pruned it: the seconds are those of its pruning.json
    if phase is None:
        if any(metric.name in COSTS for metric in record.metrics):
            yield subject.problem("cost", "has the cost of a prune, and no phase of that name")
        return
    for name, due in prune_costs(record.phases, record.shared).items():
        metric = record.metric(name, "")
        if metric is None:
            # Energy joined with the third schema; the others have always been there.
            if name != "prune_energy_joules":
                yield subject.problem("cost", f"{name} is missing, and phase prune is there")
        elif not same(metric.value, due):
            yield subject.problem("cost", f"{name} is {metric.value}, by the phases {due}")
        elif metric.direction != "lower":
            yield subject.problem("cost", f"{name}: direction is {metric.direction!r}, not 'lower'")


def _impossible(module: ModuleReport) -> str | None:
    """What cannot be about a module's numbers."""
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
    """The sparsity of all modules together."""
    record = subject.record
    found = share_pruned(record.modules)
    metric = record.metric("sparsity")
    if metric is None or metric.value is None:
        yield subject.problem("sparsity", "sparsity is missing, and the modules are there")
        return
    if metric.direction != "none":
        yield subject.problem("sparsity", f"sparsity: direction is {metric.direction!r}, not 'none'")
    if record.cell.checkpoint is not None and metric.protocol != "zeros":
        # The modules count zeros, of which there may be more than were pruned.
        if metric.value > found + 1e-9:
            message = f"sparsity is {metric.value!r}, and only {found!r} of its weights are 0"
            told = any("pruning.json" in warning for warning in record.warnings)
            yield (subject.remark if told else subject.problem)("sparsity", message)
    elif not same(metric.value, found, 1e-12):
        yield subject.problem("sparsity", f"sparsity is {metric.value!r}, by its modules {found!r}")


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
