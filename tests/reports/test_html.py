"""The report as a file: what stands in it, whatever the records hold."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from reports import ReportError, render_report
from suite.results.records.record import Record
from tests.reports.synthetic import ENVIRONMENT, failed_record, make_record, quickstart
from tests.reports.test_comparison import unmeasured

OTHER_MACHINE = ENVIRONMENT.model_copy(update={"threads": 64})
PATTERNS = [f"{0.30 + i / 100:.2f}" for i in range(15)]
HOSTILE = '</script><script>alert("x")</script><!--{{ 7 * 7 }}\u2028\u2029\u202e&"\'<b>'


class Page(HTMLParser):
    """The elements of a page, their text and the scripts, as a browser would split them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.specs: list[dict[str, object]] = []
        self.text = ""
        self._script: dict[str, str | None] | None = None
        self.feed(source)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._script = dict(attrs) if tag == "script" else None
        assert not [value for name, value in attrs if name in ("src", "srcset", "action")]
        assert all((value or "").startswith("#") for name, value in attrs if name == "href")
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        elif self._script.get("type") == "application/json":
            self.specs.append(json.loads(data))
        else:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None


@pytest.fixture(scope="module")
def source() -> str:
    return render_report([*quickstart(), failed_record("wanda", "4:8")], title="Four ways")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_the_answer_comes_first_with_numbers(page: Page) -> None:
    start = page.text.index("Four ways", page.text.index("Skip to the ranking"))
    answer = page.text[start : start + 900]
    for piece in (
        "sparsegpt",
        "40.30 (95 % interval",
        "1.61 times dense (",
        "n = 20 windows",
        "lower is better",
    ):
        assert piece in answer
    for piece in ("50.7 s to prune", "2.40 GiB", "magnitude, the fastest, took 0.4 s"):
        assert piece in answer
    for piece in ("13 of 14 cells finished", "one version of the code", "10 of 10 differences to the best"):
        assert piece in answer


def test_the_table_names_protocol_n_direction_and_marks_the_best(page: Page) -> None:
    for piece in (
        "wiki-sample-token-s512",
        "news-sample-token-s512",
        "first 10,240 tokens",
        "same windows",
        "best",
    ):
        assert piece.replace("\u00a0", " ") in page.text.replace("\u00a0", " ")
    rows = [page.text.index(name) for name in ("1sparsegpt", "4wanda", "6magnitude")]
    assert rows == sorted(rows)
    assert "Device memory" not in page.text


def test_device_memory_is_a_column_where_a_record_has_it() -> None:
    wanda = make_record("wanda")
    phases = tuple(p.model_copy(update={"peak_device_bytes": 3 * 2**30}) for p in wanda.phases)
    text = Page(render_report([wanda.model_copy(update={"phases": phases})], title="t")).text
    assert "Device memory" in text and "3.00" in text


def test_charts_show_what_there_is(page: Page) -> None:
    # Time, memory, quality by pattern, two of layers and cost by phase; no tasks were asked.
    assert len(page.specs) == page.tags.count("figure") == 6
    assert "Sparsity varies" not in page.text and "accuracy kept" not in page.text.lower()
    assert "The rebuild lowered the block error in 240 of 360 blocks" in page.text


def test_sparsity_by_layer_is_drawn_only_where_it_varies() -> None:
    record = make_record("wanda")
    modules = tuple(m.model_copy(update={"n_pruned": m.n_pruned + m.layer * 900}) for m in record.modules)
    text = Page(render_report([record.model_copy(update={"modules": modules})], title="t")).text
    assert "Sparsity varies most, by" in text


def test_failures_configuration_and_digests_stand_on_the_page(page: Page) -> None:
    assert "SingularHessianError in phase solve" in page.text
    assert '"rebuild_ratio": 0.1' in page.text
    assert "b179" * 16 in page.text
    assert quickstart()[0].cell.digest in page.text


def test_the_file_is_self_contained_and_small(source: str) -> None:
    assert len(source.encode()) < 3_000_000
    assert "default-src 'none'" in source
    assert source.count("window.vegaEmbed") == 1


def test_one_hundred_cells_stay_under_three_megabytes() -> None:
    records = [make_record("dense")]
    kinds = ("magnitude", "wanda", "sparsegpt", "barber-wanda", "barber-magnitude")
    for i in range(20):
        records += [make_record(kind, f"{0.3 + 0.02 * i:.2f}") for kind in kinds]
    source = render_report(records, title="many")
    assert len(source.encode()) < 3_000_000
    assert "Perplexity stays lowest at 50\u00a0% unstructured with sparsegpt, 1.61 times dense" in source
    assert "17 further patterns are in the table" in source


@pytest.mark.parametrize("where", ["model", "setting", "message", "title", "problem", "warning"])
def test_hostile_text_stays_text(where: str) -> None:
    name = HOSTILE if where == "model" else "m"
    settings = {"initial": HOSTILE if where == "setting" else "wanda"}
    records = [
        make_record("dense", model_name=name),
        make_record("barber-wanda", model_name=name, settings=settings, warnings=(HOSTILE,)),
        failed_record(message=HOSTILE if where == "message" else ""),
    ]
    title = HOSTILE if where == "title" else "t"
    page = Page(render_report(records, title=title, problems=[HOSTILE if where == "problem" else "p"]))
    assert '<script>alert("x")</script><!--{{ 7 * 7 }}\\u2028\\u2029\\u202e&"\'<b>' in page.text
    assert not [script for script in page.scripts if "alert(" in script]
    assert "b" not in page.tags
    assert len(page.scripts) == 2


def test_problems_are_said_before_the_ranking() -> None:
    text = Page(render_report(quickstart(), title="t", problems=["x.json could not be read: not JSON"])).text
    assert text.index("x.json could not be read") < text.index("smollm2-135m, float32")


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([make_record("dense")], "Only the dense model was measured"),
        ([make_record("wanda")], "the only method measured"),
        ([failed_record()], "No cell finished (1 cell failed)"),
        ([make_record("dense"), failed_record()], "1 cell failed"),
        (
            [make_record("wanda", reference_speed=None, calibration=None)],
            "no reference speed of the machine measured",
        ),
        ([make_record("wanda", phases=(), modules=())], "took 14.2 s to prune (end to end, one run)"),
        ([make_record("wanda", windows=(), metrics=())], "No pruned model has a perplexity to rank it by"),
        ([unmeasured(make_record("wanda"), "overflow")], "No pruned model has a perplexity to rank it by"),
        ([make_record("dense", windows=(), metrics=())], "Nothing was measured that could be ranked"),
        ([make_record("wanda", model=None)], "the only method measured"),
        ([make_record("wanda", n_windows=1)], "no interval, n = 1"),
        ([make_record("wanda", model_name=f"m{i}") for i in range(6)], "with wanda in 6 of 6 rankings"),
    ],
)
def test_every_lack_has_a_page_that_says_so(records: list[Record], said: str) -> None:
    text = Page(render_report(records, title="t")).text
    assert said in text
    assert "nan" not in re.sub(r"\w+nan|nan\w+", "", text.lower())


def test_no_records_names_what_was_unreadable() -> None:
    with pytest.raises(ReportError, match=r"no records to report.*broken\.json is not JSON"):
        render_report([], title="t", problems=["broken.json is not JSON"])


def test_what_could_not_be_read_is_said_first_however_many_notes_there_are() -> None:
    records = [make_record("wanda", p, environment=e) for p in PATTERNS for e in (ENVIRONMENT, OTHER_MACHINE)]
    source = render_report(records, title="t", problems=["x.json: was changed after it was written"])
    notes = source[source.index('class="notes"') :]
    assert notes.index("x.json") < notes.index("<details>")
    assert "1 record could not be read" in source


def test_cells_without_a_rank_are_listed_up_to_a_limit_and_counted() -> None:
    records = [make_record("wanda", f"{0.1 + i / 1000:.3f}", windows=(), metrics=()) for i in range(130)]
    source = render_report(records, title="t")
    assert source.count("Finished but not ranked") == 100
    assert "And 30 further cells finished but could not be ranked" in source


@pytest.mark.parametrize("pattern", ["nan", "inf", "-1", "7", "", "x:y", "4:0"])
def test_a_pattern_that_is_none_is_shown_as_it_stands(pattern: str) -> None:
    record = make_record("wanda")
    odd = record.model_copy(update={"cell": record.cell.model_copy(update={"pattern": pattern})})
    page = Page(render_report([make_record("dense"), record, odd], title="t"))
    assert all(json.dumps(spec, allow_nan=False) for spec in page.specs)
