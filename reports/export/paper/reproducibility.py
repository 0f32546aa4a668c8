"""The facts needed to reproduce the numbers, in sentences for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.export.paper.metric_tables import calibration_note
from reports.rankings.frame import cell_id
from reports.wording import counted, listed, pattern_name, visible
from suite.results.records.record import Record
from suite.results.records.state import describe_failure

DIGITS = 12
"""Number of digits of a digest that are printed, enough to be unique."""


@dataclass(frozen=True)
class Reproducibility:
    """The facts about a set of records.

    Attributes:
        sentences: versions, models, protocols, calibration and machines.
        cells: one line per cell, with the digests of its settings and its record.
        failures: one sentence per cell without numbers.
    """

    sentences: tuple[str, ...]
    cells: tuple[str, ...]
    failures: tuple[str, ...]


def reproducibility(records: Sequence[Record], failed: Sequence[Record]) -> Reproducibility:
    """Collects the facts about finished and failed records.

    Args:
        records: the finished records, at least one.
        failed: the records without numbers.
    """
    sentences = [
        f"All numbers were made by prunebench {_listed(_version(r) for r in records)}.",
        *(f"{_listed(models)}." for models in [[_model(r) for r in records if r.model]] if models),
        *dict.fromkeys(_text(w.protocol, r) for r in records for w in r.windows),
        *dict.fromkeys(
            f"{visible(t.protocol)}: {counted(t.n, 'question')}, version {visible(t.version or 'none')}, "
            f"questions {t.items_digest[:DIGITS]}."
            for r in records
            for t in r.tasks
        ),
        calibration_note(records),
        f"Machine: {_listed(_machine(r) for r in records)}.",
        f"Software: {_listed(_software(r) for r in records)}.",
    ]
    failures = [f"Failed: {visible(r.cell.label)}, {visible(describe_failure(r))}." for r in failed]
    return Reproducibility(
        tuple(sentence for sentence in sentences if sentence),
        tuple(_cell(record) for record in records),
        tuple(failures),
    )


def _listed(parts: Iterable[str]) -> str:
    return listed(list(dict.fromkeys(parts)))


def _version(record: Record) -> str:
    code = record.code
    tree = {True: "", False: " with changes", None: ""}[code.git_clean]
    commit = f", commit {visible(code.git_commit[:DIGITS])}{tree}" if code.git_commit else ""
    return f"{visible(code.prunebench)} (source {code.source_digest[:DIGITS]}{commit})"


def _model(record: Record) -> str:
    model = record.model
    if model is None:
        return ""
    revision = f", revision {visible(model.revision)}" if model.revision else ""
    return (
        f"{visible(record.cell.model)}: {visible(model.architecture)}, {model.n_parameters:,} parameters, "
        f"{visible(model.dtype)}{revision}, weights {model.weight_digest[:DIGITS]}"
    )


def _text(protocol: str, record: Record) -> str:
    windows = next(w for w in record.windows if w.protocol == protocol)
    part = f"the first {windows.limit:,} tokens" if windows.limit else "the whole text"
    revision, digest = visible(windows.corpus_revision), visible(windows.corpus_digest)[:DIGITS]
    return (
        f"{visible(protocol)}: {counted(len(windows.nll), 'window')} of {windows.seqlen:,} tokens, {part}, "
        f"corpus revision {revision}, tokens {digest}."
    )


def _machine(record: Record) -> str:
    found = record.environment
    device = "" if found.device == "cpu" else f"{visible(found.device)}, "
    where = ", one decoder layer at a time" if record.placement == "onload" else ""
    return f"{device}{visible(found.processor)}, {counted(found.threads, 'thread')}{where}"


def _software(record: Record) -> str:
    found = record.environment
    packages = [f"{visible(name)} {visible(version)}" for name, version in found.packages.items()]
    return ", ".join([f"Python {visible(found.python)}", *packages])


def _cell(record: Record) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in record.cell.settings.items())
    allocation = f" + {record.cell.allocation.name}" if record.cell.allocation else ""
    calibration = record.calibration
    seed = f", calibration seed {calibration.seed}" if calibration and calibration.seed is not None else ""
    pattern = "" if record.cell.is_dense else f", {pattern_name(record.cell.pattern)}"
    return visible(
        f"{cell_id(record)}: {record.cell.model}, {record.cell.method}{allocation}"
        + (f" ({settings})" if settings else "")
        + f"{pattern}{seed}; record {record.body_digest[:DIGITS] or 'not sealed'}"
    )


__all__ = ["Reproducibility", "reproducibility"]
