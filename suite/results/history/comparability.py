"""What two values of one metric must share to be compared, and in words what they do not."""

from __future__ import annotations

from typing import Protocol

from suite.results.records.archive import DatedRecord
from suite.results.records.record import Environment, Metric

Ground = tuple[tuple[str, str], ...]
"""(what, value) of everything that comparable values share."""

_DIGESTS = ("weights", "calibration tokens", "corpus", "questions", "prompts")
_PLURAL = ("weights", "calibration tokens", "questions", "prompts")
_TIMED = ("_seconds", "_per_second", "_joules")


def depends_on_machine(metric: str) -> bool:
    """Whether a metric is a time, a rate, an energy or a peak of memory."""
    return metric.endswith(_TIMED) or metric.startswith("peak_")


def ground_of(record: DatedRecord, metric: Metric, *, floor: bool) -> Ground:
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
    for items in record.items:
        if items.protocol == metric.protocol:
            found += [(items.kind, items.digest), ("extent", items.extent)]
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


class Made(Protocol):
    """Of a record: where and how it was made."""

    @property
    def environment(self) -> Environment:
        """The machine."""
        ...

    @property
    def placement(self) -> str:
        """Where decoder layers were."""
        ...


def machine_of(record: Made) -> str:
    """The class of machine whose times compare: device, processor, cores, threads, and where layers were."""
    environment = record.environment
    onload = ", layers onloaded" if record.placement == "onload" else ""
    cores = f"{environment.physical_cores} cores" if environment.physical_cores else "unknown cores"
    return f"{environment.device}, {environment.processor}, {cores}, {environment.threads} threads{onload}"


__all__ = ["Ground", "Made", "depends_on_machine", "difference", "ground_of", "machine_of"]
