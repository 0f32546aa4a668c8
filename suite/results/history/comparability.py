"""What two values of one metric must share to be compared, and in words what they do not."""

from __future__ import annotations

from collections.abc import Iterator

from suite.results.records.record import Metric, Record

Ground = tuple[tuple[str, str], ...]
"""(what, value) of everything that comparable values share."""

_DIGESTS = ("weights", "calibration tokens", "corpus", "questions", "prompts")
_PLURAL = ("weights", "calibration tokens", "questions", "prompts")
_TIMED = ("_seconds", "_per_second", "_joules")


def depends_on_machine(metric: str) -> bool:
    """Whether a metric is a time, a rate, an energy or a peak of memory."""
    return metric.endswith(_TIMED) or metric.startswith("peak_")


def ground_of(record: Record, metric: Metric, *, floor: bool) -> Ground:
    """On what ground a value stands; two may be compared where it is the same.

    Args:
        record: that holds it. Both are of one cell.
        metric: the value.
        floor: whether it is taken as a multiple of the machine's floor.
    """
    model, calibration = record.model, record.calibration
    found = [
        ("weights", model.weight_digest if model else ""),
        ("dtype", model.dtype if model else ""),
        ("calibration tokens", calibration.digest if calibration else ""),
        ("number of threads", str(record.environment.threads)),
    ]
    for protocol, kind, digest, extent in _items(record):
        if protocol == metric.protocol:
            found += [(kind, digest), ("extent", extent)]
    if depends_on_machine(metric.name):
        found.append(("machine", machine_of(record)))
        if floor and record.floor is not None:
            batch = f"{record.floor.batch_size} x {record.floor.seqlen} tokens"
            found.append(("batch of the machine's floor", batch))
    return tuple(found)


def difference(before: Ground, after: Ground) -> str:
    """What is other in `after`, in words; empty where nothing is."""
    one, other = dict(before), dict(after)
    words = []
    for what in dict.fromkeys([*one, *other]):
        if one.get(what) == other.get(what):
            continue
        # Digests say nothing to a reader.
        shown = "" if what in _DIGESTS else f" ({one.get(what) or 'none'}, then {other.get(what) or 'none'})"
        words.append(f"{'other' if what in _PLURAL else 'another'} {what}{shown}")
    return "; ".join(words)


def machine_of(record: Record) -> str:
    """The class of machine whose times compare: device, processor, cores, threads, and where layers were."""
    environment = record.environment
    onload = ", layers onloaded" if record.placement == "onload" else ""
    cores = f"{environment.physical_cores} cores" if environment.physical_cores else "unknown cores"
    return f"{environment.device}, {environment.processor}, {cores}, {environment.threads} threads{onload}"


def _items(record: Record) -> Iterator[tuple[str, str, str, str]]:
    """What identifies the items behind the metrics of each protocol: it, their kind, digest and extent."""
    for window in record.windows:
        extent = f"{len(window.nll)} windows of {window.seqlen}"
        yield window.protocol, "corpus", window.corpus_digest, extent
    for task in record.tasks:
        yield task.protocol, "questions", task.items_digest, f"{task.n} questions, version {task.version}"
    if (answers := record.answers) is not None:
        # Another batch size alone parts answers.
        yield answers.protocol, "prompts", answers.prompts_digest, f"batches of {answers.batch_size}"


__all__ = ["Ground", "depends_on_machine", "difference", "ground_of", "machine_of"]
