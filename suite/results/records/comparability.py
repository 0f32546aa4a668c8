"""Conditions under which the numbers of two records can be compared, and wording for what differs."""

from __future__ import annotations

from collections.abc import Mapping

from suite.results.records.items import AnswerSet, TaskOutcomes, WindowLosses
from suite.results.records.record import Record

Ground = Mapping[str, object]
"""Maps the name of each condition that comparable values must share to its value."""

_PLURAL = ("weights", "calibration tokens", "questions", "prompts")
_DIGESTS = ("corpus", *_PLURAL)


def differences(one: Ground, other: Ground) -> list[str]:
    """Describes what differs in `other`: `another dtype: float32 and bfloat16`, `other questions`."""
    words = []
    for what in dict.fromkeys([*one, *other]):
        then, now = one.get(what), other.get(what)
        if then != now:
            # Digests mean nothing to a reader.
            shown = "" if what in _DIGESTS else f": {then} and {now}"
            words.append(f"{'other' if what in _PLURAL else 'another'} {what}{shown}")
    return words


def first_difference(one: Ground, other: Ground) -> str:
    """Returns the first of the `differences`; empty if there are none."""
    return next(iter(differences(one, other)), "")


def machine_conditions(record: Record) -> Ground:
    """Returns the conditions that comparable costs must share."""
    environment = record.environment
    return {
        "device": environment.device,
        "processor": environment.processor,
        "number of cores": environment.physical_cores,
        "placement": record.placement,
    }


def machine_of(record: Record) -> str:
    """Describes the class of machines whose times are comparable: devices, cores, threads and placement."""
    environment = record.environment
    onload = ", layers onloaded" if record.placement == "onload" else ""
    cores = f"{environment.physical_cores} cores" if environment.physical_cores else "unknown cores"
    return f"{environment.device}, {environment.processor}, {cores}, {environment.threads} threads{onload}"


def items_conditions(items: WindowLosses | TaskOutcomes | AnswerSet) -> Ground:
    """Returns the conditions that comparable windows, questions or answers of two records must share."""
    if isinstance(items, WindowLosses):
        return {
            "corpus": items.corpus_digest,
            "token limit": items.limit,
            "number of windows": len(items.nll),
        }
    if isinstance(items, TaskOutcomes):
        return {
            "task version": items.version,
            "limit": items.limit,
            "metric": items.metric,
            "questions": items.items_digest,
        }
    return {
        "prompts": items.prompts_digest,
        "length of answers": items.max_new_tokens,
        "chat template": items.chat_template,
        "number of prompts answered at once": items.batch_size,
        "number of answers": len(items.answers),
    }


def model_difference(first: Record, second: Record) -> str | None:
    """Describes why no quality metric of two finished records can be compared; None if they can."""
    one, other = first.model, second.model
    if one is None or other is None:
        return "it is not known which model was measured"
    if one.weight_digest != other.weight_digest and one.dtype == other.dtype:
        names = [f"{model.name} ({model.weight_digest[:12]})" for model in (one, other)]
        return f"another dense model: {' and '.join(names)}"
    ours, theirs = (
        {"dtype": model.dtype, "number of threads": record.environment.threads}
        for model, record in ((one, first), (other, second))
    )
    return first_difference(ours, theirs) or None


__all__ = [
    "Ground",
    "differences",
    "first_difference",
    "items_conditions",
    "machine_conditions",
    "machine_of",
    "model_difference",
]
