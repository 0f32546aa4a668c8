"""Records that an export must survive, and how to read a table of numbers back out of LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass

from suite.results.records.record import Record
from tests.reports.synthetic import failed_record, make_record
from tests.reports.synthetic_measured import measured_record

HOSTILE = (
    "\\end{document}\\input{/etc/passwd}%$&#_^~{}<>|\"'`--``'' \u202e\x00\x07\n\t "
    "中文字符模型 😀 Ŝ é e\u0301 \ufffe var(--x)"
)
LONG = f"{'a' * 120} {'/'.join(['xyxyxy'] * 30)} {'中' * 60} {'W' * 90}{'_' * 80}{'{' * 60}{'(' * 50}"


def named(text: str) -> list[Record]:
    """Records that have `text` wherever a record takes foreign text."""
    settings = {"initial": text, "granularity": "output"}
    return [
        make_record("dense", model_name=text),
        make_record("barber-wanda", model_name=text, settings=settings, warnings=(text,)),
        make_record("barber-wanda", "2:4", model_name=text, settings=settings),
        failed_record(message=text),
        make_record("dense", corpora=(text, "b")),
        make_record("wanda", corpora=(text, "b")),
        measured_record("dense", tasks=(text, "x")),
        measured_record("wanda", tasks=(text, "x")),
    ]


@dataclass(frozen=True)
class ReadCell:
    """A number of a LaTeX table: its digits, those of its standard error, and whether it is bold."""

    value: str | None
    error: str | None
    is_bold: bool


def read_table(tex: str) -> dict[str, list[ReadCell]]:
    """The rows of a table by their first stub; a number is the last place that `&` divides."""
    body = tex[tex.index("\\midrule") : tex.index("\\bottomrule")]
    n_stubs = tex[tex.index("\\begin{tabular}") : tex.index("\\toprule")].count("p{")
    rows = {}
    for line in re.findall(r"^(.*?) \\\\$", body, flags=re.MULTILINE):
        parts = re.split(r"(?<!\\)&", line)
        stubs = [plain(part) for part in parts[:n_stubs]]
        numbers = parts[n_stubs:]
        rows[" | ".join(stubs)] = [
            _cell(number, aside) for number, aside in zip(numbers[::2], numbers[1::2], strict=True)
        ]
    return rows


def plain(tex: str) -> str:
    """A name as it was before it was made LaTeX, for names without specials."""
    tex = re.sub(r"\\(allowbreak|penalty9000)\{\}", "", tex)
    return re.sub(r"\\textsuperscript\{.*?\}", "", tex).replace("\\", "").replace("~", " ").strip()


def _cell(number: str, aside: str) -> ReadCell:
    is_bold = "\\bfseries" in number or "\\boldmath" in number
    error = re.search(r"\\pm\$\\,([\d.]+)", aside)
    if power := re.search(r"\$\(?([-\d.]+)(?: \\pm ([\d.]+)\))? \\times 10\^\{(\d+)\}\$", number):
        scaled = power[2] and f"{power[2]}e{power[3]}"
        return ReadCell(f"{power[1]}e{power[3]}", scaled, is_bold)
    found = re.fullmatch(r"\s*(?:\\bfseries )?(-?\d+(?:\.\d+)?)\s*", number)
    return ReadCell(found[1] if found else None, error[1] if error else None, is_bold)
