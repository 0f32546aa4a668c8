"""A comparison as LaTeX: booktabs tables, figures, a reproducibility paragraph, BibTeX, and a document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from string import ascii_lowercase

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports.export.figures import paper_figures
from reports.export.layout import COLUMN_GAP, LEAST_GROUP, Piece, fitted, mantissa
from reports.export.paper.bibliography import Entry, Used, bibtex, entries, used_by
from reports.export.paper.reproducibility import reproducibility
from reports.export.paper.sections import export_sections, section_tables
from reports.export.tex import Tex, clipped, tex
from reports.rankings.comparison import ReportError, compare
from reports.tables import TableCell
from reports.wording import visible
from suite.results.records.record import Record
from suite.results.records.state import describe_failure

LONGEST_NAME = 100
"""Maximum number of characters of a name in a table; longer names are cut, but complete in `cells.tex`."""
LONGEST_HEADING = 40
LONGEST_TEXT = 400
"""Maximum number of characters of a caption or a note."""
_FLOATS_A_CLEARING = 12
"""LaTeX allows only this many floats that wait for a page."""


@dataclass(frozen=True)
class TexTable:
    """A table, prepared for the template."""

    label: str
    environment: str
    caption: str
    columns: Tex
    """The column specification of the tabular."""
    groups: Tex
    """The line of headings shared by several columns; empty if there are none."""
    headings: Tex
    rows: tuple[tuple[Tex, ...], ...]
    n_dense: int
    notes: tuple[str, ...]
    footnotes: tuple[tuple[str, str], ...]
    """Pairs of letter and text."""


def export_latex(records: Sequence[Record], *, title: str, problems: Sequence[str] = ()) -> dict[str, bytes]:
    """Exports records as a folder of LaTeX files.

    Args:
        records: complete and failed ones.
        title: title of the document.
        problems: why other records were left out, one sentence each.

    Returns:
        Contents by path inside the folder: `main.tex`, which compiles as it is, one file per table,
        `reproducibility.tex`, `cells.tex`, `references.bib` and `figures/*.pdf`.

    Raises:
        ReportError: there are no records, or none of them is finished.
    """
    comparison = compare(records)
    sections = export_sections(comparison)
    if not sections:
        reasons = "; ".join(visible(describe_failure(r)) for r in comparison.failed[:1])
        raise ReportError(f"no finished cell to make a table of ({len(comparison.failed)} failed: {reasons})")
    shown = list({r.cell.digest: r for section in sections for r in section.records}.values())
    used = used_by(shown)
    out: dict[str, bytes] = {}
    tables: list[str] = []
    cited: dict[str, Entry] = {u.entry.key: u.entry for u in used if u.entry}
    keys = {entry.key: entry for entry in entries()}
    names = _FileNames()
    for section in sections:
        for table_name, table in section_tables(section, comparison).items():
            cited |= {c.link: keys[c.link] for column in table.columns for c in column.cells if c.link}
            stem = names.of(f"table-{table_name}")
            for piece in fitted(table):
                name = stem if piece.parts == 1 else names.of(f"{stem}-{piece.place}")
                out[f"{name}.tex"] = _render("table.tex.j2", table=_tex_table(piece, name))
                tables.append(name)
    figures: list[tuple[str, str, str]] = []
    for section in sections:
        for drawn in paper_figures(section.rankings, section.title, titled=False):
            name = names.of(f"figure-{section.name}{drawn.name}")
            out[f"figures/{name}.pdf"] = drawn.pdf
            out[f"figures/{name}.csv"] = drawn.data_csv
            note = f"{clipped(drawn.figure.note, LONGEST_TEXT)} {drawn.part}".strip()
            figures.append((name, clipped(drawn.title, LONGEST_NAME * 2), note))
    facts = reproducibility(shown, comparison.failed)
    out["reproducibility.tex"] = _render("reproducibility.tex.j2", facts=facts, used=_cited(used))
    out["cells.tex"] = _render("cells.tex.j2", facts=facts)
    if cited:
        out["references.bib"] = bibtex(list(cited.values())).encode()
    out["main.tex"] = _render(
        "main.tex.j2",
        title=title,
        notes=[*comparison.notes, *problems],
        tables=tables,
        figures=figures,
        has_references=bool(cited),
        clearing=_FLOATS_A_CLEARING,
    )
    return out


class _FileNames:
    """Makes unique file names and labels that are valid in TeX and in every file system."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "table"
        found, number = slug, 2
        while found in self._taken:
            found, number = f"{slug}-{number}", number + 1
        self._taken.add(found)
        return found


def _tex_table(piece: Piece, name: str) -> TexTable:
    table = piece.table
    stubs, numbers = table.columns[: piece.n_stubs], table.columns[piece.n_stubs :]
    letters = _Letters()
    rows = []
    for row in table.rows:
        named = [tex(clipped(cell.text, LONGEST_NAME), is_narrow=True) for cell in row[: piece.n_stubs]]
        named[0] = Tex(named[0] + letters.marks(row[0].detail.splitlines()))
        cells = [part for cell in row[piece.n_stubs :] for part in _number(cell, letters)]
        rows.append((*named, *cells))
    part = f", part {piece.place} of {piece.parts}" if piece.parts > 1 else ""
    headings = [tex(clipped(column.text, LONGEST_HEADING)) for column in numbers]
    return TexTable(
        label=f"tab:{name.removeprefix('table-')}",
        environment="table*" if piece.is_wide else "table",
        caption=f"{clipped(table.caption, LONGEST_TEXT)}{part}.",
        columns=_specification(piece),
        groups=_group_line(piece),
        headings=Tex(
            " & ".join(
                [*(tex(column.text) for column in stubs)]
                + [rf"\multicolumn{{2}}{{c}}{{{heading}}}" for heading in headings]
            )
        ),
        rows=tuple(rows),
        n_dense=table.n_dense,
        notes=tuple(clipped(note, LONGEST_TEXT) for note in table.notes),
        footnotes=tuple((letter, clipped(note, LONGEST_TEXT)) for note, letter in letters.used.items()),
    )


class _Letters:
    """Letters of footnotes; equal texts share one letter."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}

    def marks(self, notes: Sequence[str]) -> str:
        """Returns the letters of these notes as a superscript; empty if there are none."""
        found = [self.used.setdefault(note, _letter(len(self.used))) for note in notes if note]
        return rf"\textsuperscript{{{','.join(found)}}}" if found else ""


def _letter(n: int) -> str:
    """a to z, then aa, ab..."""
    return (ascii_lowercase[n // 26 - 1] if n >= 26 else "") + ascii_lowercase[n % 26]


def _number(cell: TableCell, letters: _Letters) -> tuple[Tex, Tex]:
    """Returns the number, aligned at its decimal point, and the text to its right."""
    marks = letters.marks([cell.detail])
    if not (digits := mantissa(cell)):
        return Tex("{--}"), Tex(marks)
    bold = r"\bfseries " if cell.mark else ""
    cites = rf"\,\cite{{{cell.link}}}" if cell.link else ""
    if exponent := cell.text.partition("e")[2]:
        power = rf"\times 10^{{{exponent}}}"
        math = rf"({digits} \pm {cell.error}) {power}" if cell.error else f"{digits} {power}"
        weight = r"\boldmath" if cell.mark else ""
        return Tex(f"{{{weight}${math}$}}"), Tex(marks + cites)
    error = rf"{{{bold}\scriptsize$\pm$\,{cell.error}}}" if cell.error else ""
    return Tex(bold + digits), Tex(error + marks + cites)


def _specification(piece: Piece) -> Tex:
    """Specifies left-aligned columns for words, siunitx columns for numbers, and one for each number's
    extras.
    """
    parts = []
    for column, width in zip(piece.table.columns, piece.widths, strict=True):
        if column.numeric:
            plain = [cell.text.partition(".") for cell in column.cells if "e" not in cell.text]
            whole = max((len(before) for before, _, _ in plain), default=1)
            places = max((len(after) for _, _, after in plain), default=0)
            parts.append(rf"S[table-format={whole}.{places}]@{{\,}}l")
        else:
            parts.append(rf">{{\raggedright\arraybackslash}}p{{{width:.1f}pt}}")
    return Tex("".join(parts))


def _group_line(piece: Piece) -> Tex:
    n_stubs = piece.n_stubs
    numbers = list(zip(piece.table.columns, piece.widths, strict=True))[n_stubs:]
    if not any(column.group for column, _ in numbers):
        return Tex("")
    parts, rules, first = [], [], n_stubs + 1
    for name, group in groupby(numbers, key=lambda one: one[0].group):
        widths = [width for _, width in group]
        width = max(LEAST_GROUP, sum(widths) + COLUMN_GAP * (len(widths) - 1))
        last = first + 2 * len(widths) - 1
        heading = tex(clipped(name, LONGEST_NAME), is_narrow=True)
        centered = rf">{{\centering\arraybackslash}}p{{{width:.1f}pt}}"
        parts.append(rf"\multicolumn{{{2 * len(widths)}}}{{{centered}}}{{{heading}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        first = last + 1
    return Tex(f"{' & ' * n_stubs}{' & '.join(parts)} \\\\\n{''.join(rules)}")


def _cited(used: Sequence[Used]) -> dict[str, list[Used]]:
    """Groups by kind, for the paragraph that cites them."""
    kinds: dict[str, list[Used]] = {}
    for one in used:
        kinds.setdefault(one.kind, []).append(one)
    return kinds


def _citation(used: Used) -> Tex:
    return Tex(rf"~\cite{{{used.entry.key}}}" if used.entry else r" (no entry in \texttt{references.bib})")


def _render(template: str, **context: object) -> bytes:
    return _templates().get_template(template).render(context).encode()


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports.export"),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Every string counts as foreign text until it has been converted to LaTeX.
        finalize=lambda value: tex(value) if isinstance(value, str) and not isinstance(value, Tex) else value,
        autoescape=False,
    )
    environment.filters["raw"] = Tex  # for names of files and keys, which contain only safe characters
    environment.filters["citation"] = _citation
    environment.filters["cells"] = lambda parts: Tex(" & ".join(parts))
    return environment


__all__ = ["export_latex"]
