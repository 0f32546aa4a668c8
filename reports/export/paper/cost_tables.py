"""Tables of single numbers: the cost of pruning, the effect of seeds on perplexity, and published numbers."""

from __future__ import annotations

from collections.abc import Sequence

from reports.chapters.published import published_matches
from reports.chapters.seeds import seed_families
from reports.export.paper.bibliography import entry_of_paper
from reports.export.paper.metric_tables import calibration_note, pattern_heading, perplexity_quantity
from reports.export.paper.quantity import Quantity
from reports.rankings.frame import value_of
from reports.rankings.ranking import Ranking
from reports.tables import Table, TableCell, numbers, words
from reports.wording import GIB, MISSING, counted, listed, visible
from suite.results.published import PublishedValue
from suite.results.records.record import Record


def cost_table(rankings: Sequence[Ranking], title: str) -> Table | None:
    """Builds a table of sparsity, seconds and memory of every pruned cell; None if nothing was pruned."""
    entries = [(ranking.pattern, entry) for ranking in rankings for entry in ranking.entries]
    if not entries:
        return None
    columns = (
        numbers("Sparsity, %", [_scaled(value_of(e.record, "sparsity"), 100.0, 2) for _, e in entries]),
        numbers("Method, s", [_scaled(e.method_seconds, 1.0, 1) for _, e in entries]),
        numbers("End to end, s", [_scaled(e.end_to_end_seconds, 1.0, 1) for _, e in entries]),
        numbers("Host, GiB", [_scaled(e.peak_host_bytes, 1 / GIB, 2) for _, e in entries]),
        numbers("Device, GiB", [_scaled(e.peak_device_bytes, 1 / GIB, 2) for _, e in entries]),
    )
    shown = [column for column in columns if any(cell.text != MISSING for cell in column.cells)]
    environments = {
        (e.record.environment.processor, e.record.environment.device, e.record.placement) for _, e in entries
    }
    notes = (
        "One run each, no interval. Method: seconds in the method's own phases; end to end: all of pruning "
        "once the model is loaded; memory: the peak.",
        f"Measured on {listed([_machine(*pair) for pair in sorted(environments)])}."
        + (" Times of different machines are not comparable." if len(environments) > 1 else ""),
        calibration_note([entry.record for _, entry in entries]),
    )
    return Table(
        f"Cost of pruning {title}; lower is better except for sparsity",
        (
            words("Method", [entry.label for _, entry in entries]),
            words("Pattern", [pattern_heading(pattern) for pattern, _ in entries]),
            *shown,
        ),
        tuple(filter(None, notes)),
    )


def seeds_table(rankings: Sequence[Ranking], title: str) -> Table | None:
    """Builds a table of mean and deviation of perplexity over seeds; None if every method had one seed."""
    families = seed_families(rankings)
    if not families:
        return None
    protocols = list(dict.fromkeys(f.protocol for f in families))
    rows: dict[tuple[str, str], dict[str, TableCell]] = {}
    for family in families:
        stubs = (family.subject.label, pattern_heading(family.subject.pattern))
        spread = family.spread
        if spread.mean is None:
            cell = TableCell(MISSING, visible(spread.status))
        else:
            seeds = listed([str(seed) for seed in family.seeds])
            cell = Quantity(spread.mean, spread.deviation).cell(note=f"seeds {seeds}")
        rows.setdefault(stubs, {})[family.protocol.name] = cell
    windows = "; ".join(f"{visible(p.name)}: n = {counted(p.n, 'window')}" for p in protocols)
    notes = (
        "Mean and sample standard deviation over calibration seeds, all on the same windows: how much the "
        "number changes with other calibration samples, not with other windows.",
        f"{windows}.",
    )
    return Table(
        f"Perplexity of {title} over calibration seeds; lower is better",
        (
            words("Method", [label for label, _ in rows]),
            words("Pattern", [pattern for _, pattern in rows]),
            *(
                numbers(visible(p.name), [cells.get(p.name, TableCell(MISSING)) for cells in rows.values()])
                for p in protocols
            ),
        ),
        notes,
    )


def published_table(rankings: Sequence[Ranking], title: str) -> Table | None:
    """Builds a table of published numbers next to ours; None if no record corresponds to one."""
    found = list(published_matches(rankings))
    if not found:
        return None
    protocols = dict.fromkeys(protocol for _, protocol, _ in found)
    windows = "; ".join(f"{visible(p.name)}: n = {counted(p.n, 'window')}, the whole text" for p in protocols)
    return Table(
        f"Perplexity of {title}: ours and as published; lower is better",
        (
            words("Method", [subject.label for subject, _, _ in found]),
            words("Pattern", [pattern_heading(subject.pattern) for subject, _, _ in found]),
            words("Protocol", [visible(protocol.name) for _, protocol, _ in found]),
            numbers("Ours", [_ours(subject.record, protocol.name) for subject, protocol, _ in found]),
            numbers("Published", [_theirs(value) for _, _, value in found]),
        ),
        (
            "Model, method and its settings, pattern and protocol are the same; library versions, dtype and "
            "calibration may differ. Ours: value and standard error over windows; published: as printed, "
            "without an interval.",
            f"{windows}.",
            calibration_note([subject.record for subject, _, _ in found]),
        ),
        n_dense=sum(subject.is_dense for subject, _, _ in found),
    )


def _ours(record: Record, protocol: str) -> TableCell:
    quantity = perplexity_quantity(record, protocol)
    return TableCell(MISSING) if quantity is None else quantity.cell()


def _theirs(value: PublishedValue) -> TableCell:
    entry = entry_of_paper(value.paper.arxiv)
    notes = [
        f"arXiv {value.paper.arxiv}" + (f", table {value.table}" if value.table else ""),
        visible(value.note or ""),
        f"their calibration: {visible(value.calibration or 'none')}",
    ]
    quantity = Quantity(value.value, printed=f"{value.value:.12g}")
    return quantity.cell(note="; ".join(filter(None, notes)), cites=entry.key if entry else "")


def _scaled(value: float | None, factor: float, places: int) -> TableCell:
    if value is None:
        return TableCell(MISSING, "not recorded")
    return Quantity(factor * value, usual_places=places).cell()


def _machine(processor: str, device: str, placement: str) -> str:
    where = ", one decoder layer at a time" if placement == "onload" else ""
    return visible((processor if device == "cpu" else f"{device} ({processor})") + where)


__all__ = ["cost_table", "published_table", "seeds_table"]
