"""The page of a record: all numbers and the full provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.rankings.provenance import Machine, Provenance, machines, provenance
from reports.site.files.links import method_page, model_page, record_file, record_stem
from reports.site.pages.record_tables import name_of, trust_word
from reports.site.records.site_record import SiteRecord
from reports.site.records.trust import TRUST_WORDS
from reports.tables import Table, TableCell, numbers, words
from reports.wording import MISSING, better, counted, decimal, gibibytes, pattern_name, seconds, visible
from suite.results.records.record import Metric, ModuleReport, Record
from suite.results.records.state import describe_failure
from suite.results.verification import CHECKS

ANSWER_CHARACTERS = 1_000
"""Maximum number of characters shown of a prompt or an answer; the record file has the full text."""

OPENING_CHARACTERS = 70
"""Maximum number of characters of a prompt shown next to its name."""


@dataclass(frozen=True)
class Said:
    """A prompt and the answer to it.

    Attributes:
        name: id of the prompt.
        opening: the beginning of the prompt, on one line.
        prompt: the prompt, or its first characters.
        text: the answer, or its first characters.
    """

    name: str
    opening: str
    prompt: str
    text: str


@dataclass(frozen=True)
class RecordPage:
    """The data of the template for a record's page."""

    title: str
    held: SiteRecord
    trust: str
    trust_words: str
    facts: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    failure: str
    traceback: str
    metrics: Table | None
    phases: Table | None
    modules: Table | None
    answers: tuple[Said, ...]
    findings: tuple[tuple[str, str], ...]
    checks: tuple[tuple[str, str], ...]
    provenance: Provenance
    machine: Machine


def record_page_of(held: SiteRecord, record: Record) -> RecordPage:
    """Builds the page of a record.

    Args:
        held: the record with the site's data about it.
        record: the same record with its modules and answers.
    """
    cell = record.cell
    words = "it has no numbers" if record.status == "failed" else TRUST_WORDS[held.trust]
    links = [(model_page(cell.model), f"model {visible(cell.model)}")]
    if not cell.is_dense:
        links.append((method_page(cell.method), f"method {visible(cell.method)}"))
    links.append((record_file(held.digest), f"the record itself, {record_stem(held.digest)}.json"))
    return RecordPage(
        title=_title(held),
        held=held,
        trust=trust_word(held),
        trust_words=words,
        facts=_facts(held, record),
        links=tuple(links),
        failure=describe_failure(record),
        traceback=record.failure.traceback if record.failure else "",
        metrics=_metrics(record.metrics) if record.metrics else None,
        phases=_phases(record) if record.phases else None,
        modules=_modules(record.modules) if record.modules else None,
        answers=_answers(record),
        findings=tuple((f"{f.level}, {f.check}", f.message) for f in held.judgement.findings),
        checks=tuple((name, CHECKS[name]) for name in held.checks),
        provenance=_provenance(held, record),
        machine=machines([record])[0],
    )


def _facts(held: SiteRecord, record: Record) -> tuple[tuple[str, str], ...]:
    cell = record.cell
    facts = {
        "model": visible(cell.model),
        "method": visible(cell.variant),
        "pattern": pattern_name(cell.pattern),
        "dtype": cell.dtype,
        "calibration": _calibration(record),
        "schema version": str(held.schema_version),
    }
    return tuple((name, fact) for name, fact in facts.items() if fact)


def _title(held: SiteRecord) -> str:
    cell = held.record.cell
    what = "dense" if cell.is_dense else f"{name_of(held)}, {pattern_name(cell.pattern)}"
    return f"{what}, {visible(cell.model)}"


def _provenance(held: SiteRecord, record: Record) -> Provenance:
    """Returns the provenance with the digest of the file, as reading an older schema changes the record's."""
    found = provenance(record)
    facts = ((name, held.digest if name == "record digest" else fact) for name, fact in found.facts)
    return replace(found, facts=tuple(facts))


def _calibration(record: Record) -> str:
    spec = record.cell.calibration
    if spec is None:
        return ""
    first = record.calibration is not None and record.calibration.first_token
    prefix = ", each preceded by the tokenizer's first token" if first else ""
    return f"{visible(spec.source)}, {spec.n_samples} x {spec.seqlen} tokens, seed {spec.seed}{prefix}"


def _metrics(metrics: Sequence[Metric]) -> Table:
    spreads = [f"{m.low:.6g} to {m.high:.6g}" if None not in (m.low, m.high) else MISSING for m in metrics]
    columns = (
        words("Metric", [TableCell(visible(m.name), better(m.direction)) for m in metrics]),
        words("Protocol", [visible(m.protocol) or MISSING for m in metrics]),
        numbers(
            "Value",
            [TableCell(_number(m.value), "" if m.value is not None else visible(m.status)) for m in metrics],
        ),
        numbers("95\u00a0% interval", spreads),
        numbers("Standard error", [_number(m.stderr) for m in metrics]),
        numbers("n", [MISSING if m.n is None else f"{m.n:,}" for m in metrics]),
    )
    return Table("Metrics", columns)


def _phases(record: Record) -> Table:
    """Builds a table of seconds and peaks, without columns that are empty for all phases."""
    phases = record.phases
    columns = (
        numbers("Time ↓", [seconds(p.seconds) for p in phases], "s\none run"),
        numbers("Host memory ↓", [gibibytes(p.peak_host_bytes) for p in phases], "GiB, peak\none run"),
        numbers("Device memory ↓", [gibibytes(p.peak_device_bytes) for p in phases], "GiB, peak\none run"),
        numbers("Energy ↓", [decimal(p.energy_joules, 0) for p in phases], "J\none run"),
    )
    shown = [column for column in columns if {cell.text for cell in column.cells} != {MISSING}]
    names = words("Phase", [visible(phase.name) for phase in phases], "lower is better")
    return Table("Phases", (names, *shown))


def _modules(modules: Sequence[ModuleReport]) -> Table:
    """Sums modules by block of a decoder layer, which keeps the page small for large models."""
    blocks: dict[tuple[int, str], list[ModuleReport]] = {}
    for module in modules:
        blocks.setdefault((module.layer, module.block), []).append(module)
    found = list(blocks.values())
    columns = (
        words("Block", [f"layer {layer}, {visible(block)}" for layer, block in blocks]),
        numbers("Modules", [str(len(block)) for block in found]),
        numbers("Weights", [f"{sum(m.n_weights for m in block):,}" for block in found]),
        numbers("Pruned", [f"{sum(m.n_pruned for m in block):,}" for block in found]),
        numbers("Share", map(_share, found)),
        numbers("Swaps", map(_swaps, found)),
        numbers("Error", [_number(block[0].error_before) for block in found], "before"),
        numbers("Error", [_number(block[0].error_after) for block in found], "after"),
    )
    return Table("Pruned weights by block", columns)


def _share(modules: Sequence[ModuleReport]) -> str:
    n_weights = sum(m.n_weights for m in modules)
    return f"{sum(m.n_pruned for m in modules) / n_weights:.4f}" if n_weights else MISSING


def _swaps(modules: Sequence[ModuleReport]) -> str:
    swaps = [m.swaps for m in modules if m.swaps is not None]
    return f"{sum(swaps):,}" if swaps else MISSING


def _answers(record: Record) -> tuple[Said, ...]:
    if record.answers is None:
        return ()
    return tuple(
        Said(a.id, _opening(a.prompt), _short(a.prompt), _short(a.text)) for a in record.answers.answers
    )


def _opening(prompt: str) -> str:
    line = " ".join(prompt[:ANSWER_CHARACTERS].split())
    return line if len(line) <= OPENING_CHARACTERS else f"{line[:OPENING_CHARACTERS].rstrip()} ..."


def _short(text: str) -> str:
    if len(text) <= ANSWER_CHARACTERS:
        return text
    return f"{text[:ANSWER_CHARACTERS]} ... ({counted(len(text) - ANSWER_CHARACTERS, 'more character')})"


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value.is_integer() and 1e3 <= abs(value) < 1e15 else f"{value:.6g}"
