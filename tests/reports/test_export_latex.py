"""The LaTeX export: the records' numbers, read back; safe and complete text; a document that compiles."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from reports import ReportError, compare
from reports.export import export_latex
from reports.export.paper.bibliography import entries, used_by
from reports.export.paper.quantity import Quantity
from reports.export.tex import tex
from suite.results.records.record import Record
from suite.results.statistics.perplexity import perplexity_from_nll
from tests import PATIENCE_S
from tests.reports.export_examples import HOSTILE, LONG, named, read_table
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import measured_quickstart

LLAMA = {
    "model_name": "meta-llama/Llama-2-7b-hf",
    "corpora": ("wikitext2",),
    "seqlen": 4096,
    "max_tokens": None,
}


def text_of(files: dict[str, bytes], name: str) -> str:
    return files[name].decode()


def rounds_to(value: float, digits: str) -> bool:
    """Whether the printed digits are the value, to their last place."""
    printed = Decimal(digits)
    half = Decimal(1).scaleb(int(printed.as_tuple().exponent)) / 2
    return abs(printed - Decimal(value)) <= half * Decimal("1.000001")


@pytest.fixture(scope="module")
def quick() -> dict[str, bytes]:
    return export_latex(quickstart(), title="Four ways")


@pytest.fixture(scope="module")
def measured() -> dict[str, bytes]:
    return export_latex(measured_quickstart(), title="Everything")


@pytest.mark.parametrize("place", [0, 1])
def test_perplexities_and_their_errors_read_back_as_the_records_have_them(quick, place) -> None:
    rankings = compare(quickstart()).rankings
    protocol = rankings[0].setting.protocols[place].name
    rows = read_table(text_of(quick, f"table-perplexity-{protocol}.tex"))
    assert len(rows) == 7
    for column, ranking in enumerate(rankings):
        assert ranking.dense is not None
        for entry in (ranking.dense, *ranking.entries):
            cell = rows[entry.label][column]
            metric = entry.record.metric("perplexity", protocol)
            windows = next(w for w in entry.record.windows if w.protocol == protocol)
            assert metric and metric.value and cell.value and cell.error
            stderr = perplexity_from_nll(windows.nll).stderr
            assert stderr is not None
            assert rounds_to(metric.value, cell.value) and rounds_to(stderr, cell.error)
            assert cell.is_bold == (entry.scores[place].mark in ("best", "tied"))


def test_other_measurements_read_back_too(measured) -> None:
    names = {
        r.cell.digest: e.label
        for g in compare(measured_quickstart()).rankings
        for e in g.entries
        for r in [e.record]
    }
    tasks = read_table(text_of(measured, "table-tasks.tex"))
    checked = 0
    for record in measured_quickstart():
        label = "dense" if record.cell.is_dense else names[record.cell.digest]
        label = "wanda [seed=0]" if label == "wanda" else label
        for place, task in enumerate(record.tasks):
            metric = record.metric(task.metric, task.protocol)
            cell = tasks[label][2 * place + (record.cell.pattern == "2:4")]
            assert metric and metric.value and metric.stderr and cell.value and cell.error
            assert rounds_to(100 * metric.value, cell.value) and rounds_to(100 * metric.stderr, cell.error)
            checked += 1
    assert checked == 26
    costs = read_table(text_of(measured, "table-cost.tex"))
    sparsity, method, end_to_end, memory = costs["sparsegpt | 2:4"]
    assert (sparsity.value, method.value, end_to_end.value, memory.value) == ("50.00", "50.7", "52.6", "2.40")


def test_what_ties_with_the_best_is_bold_too() -> None:
    base = make_record("wanda")
    alike = tuple(
        w.model_copy(update={"nll": tuple((x or 0) + (-1) ** i * 0.01 for i, x in enumerate(w.nll))})
        for w in base.windows
    )
    twin = make_record("sparsegpt", windows=alike, metrics=base.metrics)
    worse = make_record("magnitude")
    files = export_latex([base, twin, worse], title="t")
    rows = read_table(text_of(files, "table-perplexity-wiki-sample-token-s512.tex"))
    assert [rows[name][0].is_bold for name in ("wanda", "sparsegpt", "magnitude")] == [True, True, False]


@pytest.mark.parametrize(
    ("value", "stderr", "printed"),
    [
        (40.3141, 2.1987, ("40.3", "2.2")),
        (501.4, 27.4, ("501", "27")),
        (0.65321, 0.0123, ("0.653", "0.012")),
        (12.0, None, ("12.00", "")),
        (0.00123, None, ("0.0012", "")),
        (12.0, 0.0, ("12.00", "0.00")),
        (1.234e9, 5.6e7, ("1.23", "0.06")),
        (12.0, math.inf, ("12.00", "")),
    ],
)
def test_a_number_has_the_digits_that_its_error_supports(value, stderr, printed) -> None:
    quantity = Quantity(value, stderr)
    assert (quantity.mantissa, quantity.error) == printed


def test_every_table_says_protocol_n_seeds_and_direction(quick) -> None:
    text = text_of(quick, "table-perplexity-wiki-sample-token-s512.tex")
    for piece in (
        "wiki-sample-token-s512",
        "n = 20 windows",
        "seed 0",
        "lower is better",
        "first 10,240 tokens",
    ):
        assert piece in text.replace(r"\allowbreak{}", "")


def test_what_could_not_be_had_says_why() -> None:
    files = export_latex(
        [
            make_record("dense"),
            make_record("wanda"),
            make_record("wanda", "2:4"),
            make_record("magnitude", n_windows=20, metrics=()),
            failed_record("sparsegpt", "2:4"),
            make_record("sparsegpt"),
        ],
        title="t",
    )
    text = text_of(files, "table-perplexity-wiki-sample-token-s512.tex")
    assert "not measured" in text and "failed: SingularHessianError in phase solve" in text
    assert "SingularHessianError" in text_of(files, "reproducibility.tex")


def test_settings_that_must_not_be_compared_have_tables_of_their_own() -> None:
    files = export_latex(
        [make_record("wanda"), make_record("sparsegpt", max_tokens=5_120, n_windows=10)], title="t"
    )
    assert {
        "table-1-perplexity-wiki-sample-token-s512.tex",
        "table-2-perplexity-wiki-sample-token-s512.tex",
    } <= set(files)
    assert "Not comparable" in text_of(files, "main.tex")


def test_published_numbers_stand_beside_ours_and_are_cited() -> None:
    files = export_latex([make_record(kind, **LLAMA) for kind in ("dense", "wanda")], title="t")
    text = text_of(files, "table-published.tex")
    ours, published = read_table(text)["wanda | 50 % | wikitext2-token-s4096"]
    assert (ours.value, ours.error, published.value) == ("49.0", "2.5", "6.42")
    assert r"\cite{sun2024wanda}" in text and "@inproceedings{sun2024wanda," in text_of(
        files, "references.bib"
    )


def test_the_bibliography_has_what_was_used_and_names_what_has_no_entry() -> None:
    records = [make_record("barber-wanda", model_name="someone/unheard-of")]
    used = {(u.kind, u.name): u.entry and u.entry.arxiv for u in used_by(records)}
    assert used["method", "llm-barber"] == "2408.10631" and used["method", "wanda"] == "2306.11695"
    assert used["model", "someone/unheard-of"] is None
    text = text_of(export_latex(records, title="t"), "reproducibility.tex").replace(r"\allowbreak{}", "")
    assert r"someone/unheard-of (no entry in \texttt{references.bib})" in text


def test_the_bibliography_is_sound() -> None:
    found = entries()
    assert len({e.key for e in found}) == len(found)
    ids = [e.arxiv for e in found if e.arxiv]
    assert len(set(ids)) == len(ids)
    for kind, name in [
        ("model", "huggyllama/llama-7b"),
        ("model", "meta-llama/Llama-2-13b-hf"),
        ("model", "facebook/opt-125m"),
    ]:
        assert sum(e.is_about(kind, name) for e in found) == 1


def test_no_finished_cell_is_one_clear_line() -> None:
    with pytest.raises(
        ReportError, match=r"no finished cell .*1 failed: SingularHessianError in phase solve"
    ):
        export_latex([failed_record()], title="t")
    with pytest.raises(ReportError, match="no records"):
        export_latex([], title="t")


@pytest.mark.parametrize("text", [HOSTILE, LONG])
def test_escaped_text_has_nothing_that_latex_would_obey(text) -> None:
    for is_narrow in (False, True):
        escaped = tex(text, is_narrow=is_narrow)
        assert escaped.isprintable()
        ours = r"\\(text[a-z]+|dots|allowbreak|penalty9000)\{\}|\\[{}$&#%_]"
        assert not re.search(r"[\\{}$&#%_^]", re.sub(ours, "", escaped).replace("{}", ""))


def test_text_reads_as_it_is_stored() -> None:
    assert tex("50\u00a0% of a_b") == r"50~\% of a\_b"
    assert tex("\u202ex") == r"\textbackslash{}u202ex"
    assert tex("中") == r"\textless{}U+4E2D\textgreater{}"
    assert tex("a  b\n\tc") == "a b c"
    assert tex("--") == "-{}-"


def many() -> list[Record]:
    kinds = ("magnitude", "wanda", "sparsegpt", "barber-wanda", "barber-magnitude")
    patterns = [f"{0.3 + 0.05 * i:.2f}" for i in range(7)]
    seeds = [make_record("wanda", seed=seed) for seed in range(40)]
    return [make_record("dense"), *(make_record(kind, p) for p in patterns for kind in kinds), *seeds]


def huge() -> list[Record]:
    sizes = {"wanda": 1e9, "magnitude": 1.0, "sparsegpt": 123456.0, "barber-wanda": 1e-3}
    patterns = ("0.5", "2:4", "4:8", "1:4", "0.123456")
    return [
        make_record("dense"),
        *(make_record(k, p, ppl_factor=f) for p in patterns for k, f in sizes.items()),
    ]


DOCUMENTS = {
    "quick": quickstart,
    "measured": lambda: [*measured_quickstart(), failed_record("wanda", "4:8")],
    "published": lambda: [make_record(kind, **LLAMA) for kind in ("dense", "wanda", "magnitude")],
    "hostile": lambda: named(HOSTILE),
    "long": lambda: named(LONG),
    "many": many,
    "huge": huge,
    "dense": lambda: [make_record("dense")],
    "nothing": lambda: [make_record("wanda", windows=(), metrics=(), phases=(), modules=())],
}
PACKAGES = ("siunitx.sty", "booktabs.sty", "microtype.sty", "lmodern.sty")


def latex_lacks() -> str:
    """Why a document cannot be compiled here; empty where it can."""
    for program in ("pdflatex", "bibtex", "kpsewhich"):
        if shutil.which(program) is None:
            return f"no {program}: apt-get install texlive-latex-recommended texlive-science lmodern"
    found = subprocess.run(["kpsewhich", *PACKAGES], capture_output=True, text=True, check=False).stdout
    missing = [name for name in PACKAGES if name not in found]
    return f"no {', '.join(missing)}: apt-get install texlive-science lmodern" if missing else ""


@pytest.mark.slow
@pytest.mark.latex
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_compiles_and_nothing_sticks_out(name, tmp_path: Path) -> None:
    if lacks := latex_lacks():
        pytest.skip(lacks)
    files = export_latex(DOCUMENTS[name](), title=HOSTILE if name == "hostile" else name)
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main"]
    for command in (latex, ["bibtex", "main"], latex, latex):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert "Overfull" not in log
    assert "undefined" not in log and "multiply defined" not in log and "Float too large" not in log
    assert (tmp_path / "main.pdf").read_bytes().startswith(b"%PDF")
    for part in files:
        if part.endswith(".tex") and part != "main.tex":
            assert rf"\input{{{part.removesuffix('.tex')}}}" in text_of(files, "main.tex")
