"""Tables of single numbers: what pruning cost, how seeds move perplexity, and what papers report."""

from __future__ import annotations

from collections.abc import Sequence

from reports.chapters.published import published_matches
from reports.chapters.seeds import seed_families
from reports.export.paper.bibliography import entry_of_paper
from reports.export.paper.metric_tables import calibration_note, pattern_heading, perplexity_quantity
from reports.export.paper.paper_table import PaperCell, PaperColumn, PaperRow, PaperTable
from reports.export.paper.quantity import Quantity
from reports.rankings.ranking import Entry, Ranking
from reports.wording import GIB, counted, listed, visible


def cost_table(rankings: Sequence[Ranking], title: str, name: str) -> PaperTable | None:
    """Achieved sparsity, seconds and memory of every pruned cell; None where nothing was pruned."""
    entries = [(ranking.pattern, entry) for ranking in rankings for entry in ranking.entries]
    if not entries:
        return None
    columns = {
        "Sparsity, %": [_scaled(_sparsity(e), 100.0, 2) for _, e in entries],
        "Method, s": [_scaled(e.method_seconds, 1.0, 1) for _, e in entries],
        "End to end, s": [_scaled(e.end_to_end_seconds, 1.0, 1) for _, e in entries],
        "Host, GiB": [_scaled(e.peak_host_bytes, 1 / GIB, 2) for _, e in entries],
        "Device, GiB": [_scaled(e.peak_device_bytes, 1 / GIB, 2) for _, e in entries],
    }
    shown = {
        heading: cells for heading, cells in columns.items() if any(c.quantity is not None for c in cells)
    }
    rows = [
        PaperRow((entry.label, pattern_heading(pattern)), tuple(cells[i] for cells in shown.values()))
        for i, (pattern, entry) in enumerate(entries)
    ]
    environments = {
        (e.record.environment.processor, e.record.environment.device, e.record.placement) for _, e in entries
    }
    notes = (
        "One run each, no interval. Method: seconds in the method's own phases; end to end: all of pruning "
        "once the model is loaded; memory: the peak.",
        f"Measured on {listed([_machine(*pair) for pair in sorted(environments)])}."
        + (" Times of different machines do not compare." if len(environments) > 1 else ""),
        calibration_note([entry.record for _, entry in entries]),
    )
    return PaperTable(
        f"{name}cost",
        f"What pruning {title} cost; lower is better but for sparsity",
        ("Method", "Pattern"),
        tuple(PaperColumn(heading) for heading in shown),
        tuple(rows),
        tuple(filter(None, notes)),
    )


def seeds_table(rankings: Sequence[Ranking], title: str, name: str) -> PaperTable | None:
    """Mean and deviation of perplexity over calibration seeds; None where there was one seed each."""
    families = seed_families(rankings)
    if not families:
        return None
    protocols = list(dict.fromkeys(f.protocol for f in families))
    rows: dict[tuple[str, str], dict[str, PaperCell]] = {}
    for family in families:
        stubs = (family.subject.label, pattern_heading(family.subject.pattern))
        spread = family.spread
        if spread.mean is None:
            cell = PaperCell(None, note=visible(spread.status))
        else:
            cell = PaperCell(
                Quantity(spread.mean, spread.deviation),
                note=f"seeds {listed([str(seed) for seed in family.seeds])}",
            )
        rows.setdefault(stubs, {})[family.protocol.name] = cell
    told = "; ".join(f"{visible(p.name)}: n = {counted(p.n, 'window')}" for p in protocols)
    notes = (
        "Mean and sample standard deviation over calibration seeds, all on the same windows: how far the "
        "number moves with other calibration samples, not with other windows.",
        f"{told}.",
    )
    return PaperTable(
        f"{name}seeds",
        f"Perplexity of {title} over calibration seeds; lower is better",
        ("Method", "Pattern"),
        tuple(PaperColumn(visible(protocol.name)) for protocol in protocols),
        tuple(
            PaperRow(stubs, tuple(cells.get(p.name, PaperCell(None)) for p in protocols))
            for stubs, cells in rows.items()
        ),
        notes,
    )


def published_table(rankings: Sequence[Ranking], title: str, name: str) -> PaperTable | None:
    """Published numbers beside ours; None where no record answers one."""
    found = list(published_matches(rankings))
    if not found:
        return None
    rows = []
    for subject, protocol, value in found:
        entry = entry_of_paper(value.paper.arxiv)
        source = f"arXiv {value.paper.arxiv}" + (f", table {value.table}" if value.table else "")
        notes = [
            source,
            visible(value.note or ""),
            f"their calibration: {visible(value.calibration or 'none')}",
        ]
        rows.append(
            PaperRow(
                (subject.label, pattern_heading(subject.pattern), visible(protocol.name)),
                (
                    PaperCell(perplexity_quantity(subject.record, protocol.name)),
                    PaperCell(
                        Quantity(value.value, printed=f"{value.value:.12g}"),
                        note="; ".join(filter(None, notes)),
                        cites=entry.key if entry else "",
                    ),
                ),
                is_dense=subject.is_dense,
            )
        )
    protocols = dict.fromkeys(protocol for _, protocol, _ in found)
    told = "; ".join(f"{visible(p.name)}: n = {counted(p.n, 'window')}, the whole text" for p in protocols)
    return PaperTable(
        f"{name}published",
        f"Perplexity of {title}: ours and as published; lower is better",
        ("Method", "Pattern", "Protocol"),
        (PaperColumn("Ours"), PaperColumn("Published")),
        tuple(rows),
        (
            "Model, method and its settings, pattern and protocol are the same; library versions, dtype and "
            "calibration may differ. Ours: value and standard error over windows; published: as printed, "
            "without an interval.",
            f"{told}.",
            calibration_note([subject.record for subject, _, _ in found]),
        ),
    )


def _scaled(value: float | None, factor: float, places: int) -> PaperCell:
    if value is None:
        return PaperCell(None, note="not recorded")
    return PaperCell(Quantity(factor * value, usual_places=places))


def _sparsity(entry: Entry) -> float | None:
    metric = entry.record.metric("sparsity")
    return None if metric is None else metric.value


def _machine(processor: str, device: str, placement: str) -> str:
    where = ", one decoder layer at a time" if placement == "onload" else ""
    return visible((processor if device == "cpu" else f"{device} ({processor})") + where)


__all__ = ["cost_table", "published_table", "seeds_table"]
