"""What a site offers other programs: the Atom feed, and its data as CSV and JSON."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from suite.results import parse_record
from tests.reports.synthetic_site import dense_record, write
from tests.reports.test_site import build, quick

ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    return build(root, quick(root / "results"))


def test_the_feed_is_atom_with_lasting_ids(site: Path, tmp_path: Path) -> None:
    root = ElementTree.fromstring((site / "feed.xml").read_text(encoding="utf-8"))
    entries = root.findall(f"{ATOM}entry")
    assert root.tag == f"{ATOM}feed" and len(entries) == 7
    for element in (root, *entries):
        for name in ("id", "title", "updated"):
            assert (element.findtext(f"{ATOM}{name}") or "").strip()
        assert (element.findtext(f"{ATOM}id") or "").startswith("urn:uuid:")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", element.findtext(f"{ATOM}updated") or "")
    assert root.find(f"{ATOM}author/{ATOM}name") is not None
    for entry in entries:
        link = entry.find(f"{ATOM}link")
        assert link is not None and (site / link.attrib["href"]).is_file()
    again = build(tmp_path, quick(tmp_path / "results"), url="https://example.org/board")
    moved = ElementTree.fromstring((again / "feed.xml").read_text(encoding="utf-8"))
    links = [link.attrib["href"] for link in moved.iter(f"{ATOM}link")]
    assert links and all(link.startswith("https://example.org/board/") for link in links)


def test_the_downloads_hold_what_the_records_hold(site: Path) -> None:
    rows = list(csv.DictReader((site / "data/records.csv").read_text(encoding="utf-8").splitlines()))
    objects = json.loads((site / "data/records.json").read_text(encoding="utf-8"))
    assert len(objects) == 8
    for found in objects:
        record = parse_record((site / found["file"]).read_bytes())
        assert found["record"] == record.body_digest and (site / found["page"]).is_file()
        assert found["metrics"] == record.model_dump(mode="json")["metrics"]
        told = [row for row in rows if row["record"] == record.body_digest]
        if not record.metrics:
            assert [row["metric"] for row in told] == [""]
        else:
            assert [(row["metric"], float(row["value"])) for row in told] == [
                (metric.name, metric.value) for metric in record.metrics
            ]


def test_a_spreadsheet_finds_no_formula(tmp_path: Path) -> None:
    site = build(tmp_path, write(tmp_path / "results", dense_record("=1+1")))
    rows = list(csv.DictReader((site / "data/records.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["model"] for row in rows} == {"'=1+1"}
