"""The figures for papers: valid files, one column wide, readable by every eye, with title, note and data."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from reports import ReportError
from reports.export import export_figures
from tests.reports.export_examples import HOSTILE, named
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import measured_record

COLUMN = 234
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return export_figures(quickstart())


def test_each_figure_is_an_svg_a_pdf_and_its_data(files) -> None:
    names = {name.rpartition(".")[0] for name in files if name != "figures.md"}
    assert names == {"time", "memory", "quality", "moved", "error-1", "error-2", "phases"}
    assert all({f"{n}.svg", f"{n}.pdf", f"{n}.csv"} <= set(files) for n in names)


def test_svgs_are_one_column_wide_and_carry_their_title_and_units(files) -> None:
    for name, data in files.items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(data)
            width = re.fullmatch(r"([\d.]+)pt", root.attrib["width"])
            assert width and abs(float(width[1]) - COLUMN) <= 4
            assert b"var(--" not in data
    said = " ".join(" ".join(ElementTree.fromstring(files["time.svg"]).itertext()).split())
    assert "No method beats sparsegpt" in said and "prune time, s" in said


def test_pdfs_are_one_column_wide_with_their_fonts_inside(files) -> None:
    for name, data in files.items():
        if name.endswith(".pdf"):
            assert data.startswith(b"%PDF") and b"%%EOF" in data[-64:]
            box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) [\d.]+\s*\]", data)
            assert box and abs(float(box[1]) - COLUMN) <= 4
            assert re.search(rb"/FontFile[23]?\s", data)


def test_families_differ_in_shape_as_well_as_in_colour(files) -> None:
    svg = ElementTree.fromstring(files["time.svg"])
    points = {
        (path.attrib["fill"], path.attrib["d"])
        for path in svg.iter(f"{SVG}path")
        # White ones are the hollows of points that are not on the frontier.
        if "point" in path.attrib.get("aria-roledescription", "") and path.attrib["fill"] != "#fff"
    }
    assert len({fill for fill, _ in points}) == 4
    assert len({outline for _, outline in points}) == 4


def test_the_data_is_what_the_records_say(files) -> None:
    frame = pd.read_csv(io.BytesIO(files["time.csv"]))
    stored = {
        m.value for r in quickstart() for m in r.metrics if m.name == "perplexity" and "wiki" in m.protocol
    }
    assert len(frame) == 12
    assert all(
        any(abs(value - other) < 1e-9 * other for other in stored if other) for value in frame["perplexity"]
    )
    assert (frame["low"] < frame["perplexity"]).all() and (frame["perplexity"] < frame["high"]).all()


def test_the_page_shows_each_with_its_note_and_data_beneath(files) -> None:
    text = files["figures.md"].decode()
    assert text.index("](time.svg)") < text.index("95 % interval") < text.index("| pattern | rank | method |")
    assert text.count("\n![") + text.startswith("![") == 7


def test_panels_that_do_not_fit_go_to_further_parts(files) -> None:
    parts = [ElementTree.fromstring(files[f"error-{i}.svg"]) for i in (1, 2)]
    heights = [float(part.attrib["height"].removesuffix("pt")) for part in parts]
    assert max(heights) < 560
    assert "Part 1 of 2" in files["figures.md"].decode()


def test_figures_with_a_row_a_method_leave_room_to_their_panels() -> None:
    long = "a-method-with-a-name-as-long-as-nobody-would-choose-but-somebody-will"
    records = [
        measured_record("dense", parts=("tasks",)),
        *(
            measured_record(kind, p, parts=("tasks",))
            for kind in ("wanda", "magnitude")
            for p in ("0.5", "2:4")
        ),
        measured_record(
            "barber-wanda", settings={"initial": long, "granularity": "output"}, parts=("tasks",)
        ),
    ]
    drawn = export_figures(records)
    for name in ("recovery", "flips", "phases"):
        root = ElementTree.fromstring(drawn[f"{name}.svg"])
        assert abs(float(root.attrib["width"].removesuffix("pt")) - COLUMN) <= 4
        assert float(root.attrib["height"].removesuffix("pt")) < 560
        said = " ".join(root.itertext())
        assert "(a-method-with-a-name" in said and "wanda" in said


def test_hostile_text_is_drawn_and_not_obeyed() -> None:
    for name, data in export_figures(named(f"</svg><script>x</script>{HOSTILE}")).items():
        if name.endswith(".svg"):
            assert not list(ElementTree.fromstring(data).iter(f"{SVG}script"))


def test_nothing_to_draw_is_said() -> None:
    for records in ([failed_record()], [make_record("dense")]):
        with pytest.raises(ReportError, match="nothing to draw"):
            export_figures(records)
