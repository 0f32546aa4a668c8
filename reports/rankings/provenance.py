"""The provenance of a page's numbers: what is needed to repeat a cell, and the machines used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from reports.rankings.frame import cell_id
from reports.wording import counted
from suite.results.records.record import Record


@dataclass(frozen=True)
class Provenance:
    """The facts needed to repeat one cell."""

    anchor: str
    title: str
    record: Record
    configuration: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """An environment and the number of cells that ran in it."""

    n_cells: int
    facts: tuple[tuple[str, str], ...]
    document: str


def provenance(record: Record) -> Provenance:
    """Collects the facts and the configuration of one cell."""
    code, model, calibration = record.code, record.model, record.calibration
    checkpoint, answers = record.checkpoint, record.answers
    clean = {True: ", clean tree", False: ", tree with changes", None: ""}[code.git_clean]
    facts = {
        "created": record.created,
        "cell digest": record.cell.digest,
        "record digest": record.body_digest or "not sealed",
        "mask digest": record.mask_digest,
        "initial mask digest": record.initial_mask_digest,
        "model": f"{model.architecture}, {model.n_parameters:,} parameters, {model.dtype}" if model else None,
        "model revision": model.revision if model else None,
        "model weight digest": model.weight_digest if model else None,
        "checkpoint": checkpoint.name if checkpoint else None,
        "checkpoint weight digest": checkpoint.weight_digest if checkpoint else None,
        "calibration digest": calibration.digest if calibration else None,
        **{
            f"corpus of {w.protocol}": f"revision {w.corpus_revision}, digest {w.corpus_digest}, "
            f"limit {w.limit or 'none'}"
            for w in record.windows
        },
        **{
            f"questions of {t.protocol}": f"version {t.version or 'none'}, digest {t.items_digest}, "
            f"limit {t.limit or 'none'}"
            for t in record.tasks
        },
        "prompts": f"{answers.prompts}, digest {answers.prompts_digest}" if answers else None,
        "prunebench": f"{code.prunebench}, method version {code.method_version or 'none'}",
        "source digest": code.source_digest,
        "git commit": f"{code.git_commit}{clean}" if code.git_commit else None,
        "side file": f"{record.side_file.name}, {record.side_file.rows:,} rows" if record.side_file else None,
    }
    return Provenance(
        anchor=cell_id(record),
        title=record.cell.label,
        record=record,
        configuration=json.dumps(record.cell.model_dump(mode="json"), indent=2, ensure_ascii=True),
        facts=tuple((name, fact) for name, fact in facts.items() if fact is not None),
        warnings=tuple(grouped_warnings(record.warnings)),
    )


def grouped_warnings(warnings: Sequence[str]) -> list[str]:
    """Merges warnings that differ only in their numbers, because many experts repeat the same one."""
    groups: dict[str, list[str]] = {}
    for warning in warnings:
        groups.setdefault(re.sub(r"\d+(\.\d+)?", "#", warning), []).append(warning)
    return [
        group[0] if len(group) == 1 else f"{group[0]} ({len(group) - 1:,} more like it, with other numbers)"
        for group in groups.values()
    ]


def machines(records: Sequence[Record]) -> list[Machine]:
    """Returns the environments of the records, each with the number of cells that ran there."""
    cells: dict[str, list[Record]] = {}
    for record in records:
        found = {**record.environment.model_dump(mode="json"), "placement": record.placement}
        document = json.dumps(found, indent=2, ensure_ascii=True)
        cells.setdefault(document, []).append(record)
    return [Machine(len(group), _machine_facts(group), document) for document, group in cells.items()]


def _machine_facts(records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    environment = records[0].environment
    cores = counted(environment.physical_cores, "core") if environment.physical_cores else "unknown"
    speeds = [r.reference_speed for r in records if r.reference_speed is not None]
    facts = {
        "processor": environment.processor,
        "device": environment.device,
        "cores and threads": f"{cores}, {counted(environment.threads, 'thread')}",
        "decoder layers": "one at a time" if records[0].placement == "onload" else "all at once",
        "native bf16": "yes" if environment.native_bf16 else "no",
        "matrix product": _span([f.matmul_flops_per_second / 1e9 for f in speeds], "GFLOP/s"),
        "dense forward": _span([f.forward_tokens_per_second for f in speeds], "tokens/s"),
        "platform": f"{environment.platform}, Python {environment.python}",
    }
    return tuple(facts.items())


def _span(values: list[float], unit: str) -> str:
    if not values:
        return "not measured"
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return f"{low if low == high else f'{low} to {high}'} {unit} ({counted(len(values), 'measurement')})"
