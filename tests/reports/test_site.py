"""The site as files: what stands on which page, whatever the records hold."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest

from reports.site import build_site
from reports.site.files.links import slug
from reports.site.records.site_record import read_holdings
from suite.results import parse_record
from suite.results.records.reading import record_bytes
from suite.results.records.record import SCHEMA_VERSION, body_digest
from tests.reports.page_tables import PageTables
from tests.reports.synthetic_site import dense_record, failed, site_record, write

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\u202e&"\'<b>'


class Page(HTMLParser):
    """The tags, ids, links and text of a page, as a browser would split them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", self.text).replace("\u00a0", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name in ("src", "srcset", "action") or name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


def build(tmp_path: Path, *results: Path, **options: object) -> Path:
    site = tmp_path / "site"
    build_site(results, site, title=str(options.pop("title", "Board")), **options)  # type: ignore[arg-type]
    return site


def quick(root: Path) -> Path:
    """Two models, three methods, one of which left the second model out; a failure; two dates."""
    return write(
        root,
        dense_record("org/alpha"),
        dense_record("org/beta"),
        *(site_record("wanda", model, nll=(3.5, 3.6, 3.4, 3.5)) for model in ("org/alpha", "org/beta")),
        *(site_record("magnitude", model, nll=(4.5, 4.7, 4.3, 4.5)) for model in ("org/alpha", "org/beta")),
        site_record("sparsegpt", "org/alpha", nll=(3.1, 3.3, 2.9, 3.1)),
        failed("sparsegpt", model="org/beta"),
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    return build(root, quick(root / "results"))


def assert_links_resolve(site: Path, found: dict[str, Page]) -> None:
    for page in found.values():
        assert len(set(page.ids)) == len(page.ids), page.path
        for link in page.links:
            parts = urlsplit(link)
            if link == "data:,":
                continue
            assert not parts.scheme and not parts.netloc and not link.startswith("/"), link
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            assert target.is_relative_to(site.resolve()) and target.is_file(), (page.path, link)
            if parts.fragment:
                assert parts.fragment in Page(target).ids, (page.path, link)


def test_every_page_is_reached_and_every_link_resolves(site: Path) -> None:
    found = pages(site)
    assert_links_resolve(site, found)
    reached, waiting = set(), {site / "index.html"}
    while waiting:
        path = waiting.pop()
        reached.add(path)
        links = found[path.relative_to(site).as_posix()].links
        targets = {(path.parent / urlsplit(link).path).resolve() for link in links if link != "data:,"}
        waiting |= {t for t in targets if t.suffix == ".html" and t not in reached}
    assert {path.resolve() for path in reached} == {page.path.resolve() for page in found.values()}


def test_there_is_a_page_a_model_a_method_and_a_record(site: Path) -> None:
    found = pages(site)
    assert len([path for path in found if path.startswith("models/")]) == 2 + 1
    assert {f"methods/{name}.html" for name in ("wanda", "magnitude", "sparsegpt", "index")} <= set(found)
    assert len([path for path in found if re.fullmatch(r"records/[0-9a-f]{12}\.html", path)]) == 8
    assert {"history.html", "not-ranked.html", "records/index.html"} <= set(found)


def test_the_board_ranks_as_computed_by_hand_and_a_missing_model_counts_as_0(site: Path) -> None:
    tables = PageTables((site / "index.html").read_text(encoding="utf-8"))
    rows = tables.rows("news-sample-token-s8, first 32 tokens, float32")
    # exp of the difference of the mean losses: 3.0 - 3.5, 3.0 - 3.1 and 3.0 - 4.5; sparsegpt on one of two.
    wanda, sparsegpt, magnitude = math.exp(-0.5), math.exp(-0.1) / 2, math.exp(-1.5)
    assert [(row[0], row[1].split("|")[0], row[5]) for row in rows] == [
        ("1. wanda", f"{wanda:.3f}", "2"),
        ("2. sparsegpt", f"{sparsegpt:.3f}", "1"),
        ("3. magnitude", f"{magnitude:.3f}", "2"),
    ]
    assert rows[1][7].startswith("0.000|not measured")
    text = Page(site / "index.html").text
    for piece in (
        "counts as 0",
        "mean over 2 models",
        "How it is ranked",
        "8 records: 7 verified and 1 failed",
    ):
        assert piece in text


def test_a_record_has_its_provenance_and_its_own_file_beside_it(site: Path) -> None:
    for path in (site / "records").glob("*.json"):
        record = parse_record(path.read_bytes())
        assert record.body_digest.startswith(path.stem)
        text = Page(path.with_suffix(".html")).text
        for piece in (record.body_digest, record.cell.digest, record.code.source_digest, "a processor"):
            assert piece in text
        if record.mask_digest:
            assert record.mask_digest in text


def test_what_failed_says_why_and_is_not_ranked(site: Path) -> None:
    text = Page(site / "not-ranked.html").text
    assert "SingularHessianError in phase solve: the Hessian is singular" in text


def test_hostile_names_are_text_and_lead_nowhere(tmp_path: Path) -> None:
    names = [HOSTILE, "../../up", "CON", "index", "a/b", "a__b", "A/B", "\x00\n", "ü", "x" * 200]
    results = tmp_path / "results"
    for name in names:
        # A tree a name: some share a folder there, which is another check's concern.
        tree = results / slug(name)
        write(tree, dense_record(name), site_record("magnitude", name, settings={"initial": name[:40]}))
    write(results / "failed", failed("sparsegpt", HOSTILE))
    site = build(tmp_path, results, title=HOSTILE)
    found = pages(site)
    assert_links_resolve(site, found)
    for page in found.values():
        assert not {"script", "img", "b"} & set(page.tags)
    assert len([path for path in found if path.startswith("models/")]) == len(names) + 1 + 1
    index = found["index.html"].text
    assert '</script><script>alert("x")</script>' in index and "{{ 7 * 7 }}\\u202e" in index
    assert not [path for path in tmp_path.iterdir() if path.name not in ("results", "site")]
    ElementTree.fromstring((site / "feed.xml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("a/b", "a-b"), ("A", "a"), ("index", "Index"), ("a.", "a"), ("a_p2", "a"), ("..", ".")],
)
def test_no_two_names_share_a_page(one: str, other: str) -> None:
    names = {slug(one).lower(), slug(other).lower(), slug(slug(one).upper())}
    assert len(names) == 3
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*(_[0-9a-f]{12})?", name) for name in names)


def test_no_records_make_a_site_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    site = build(tmp_path, tmp_path / "results")
    found = pages(site)
    assert_links_resolve(site, found)
    assert "There are no records" in found["index.html"].text
    assert all(page.text.strip() for page in found.values())
    ElementTree.fromstring((site / "feed.xml").read_text(encoding="utf-8"))


def test_what_is_damaged_newer_or_foreign_is_listed_with_its_reason(tmp_path: Path) -> None:
    results = quick(tmp_path / "results")
    folder = results / "org__alpha"
    newer = json.loads(record_bytes(site_record("wanda", pattern="0.6")))
    newer["schema_version"] = 99
    for name, text in {
        "cut--0.5--00000001.json": '{"schema_version": 3,',
        "newer--0.5--00000002.json": json.dumps(newer),
        "empty--0.5--00000003.json": "",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    site = build(tmp_path, results)
    text = Page(site / "not-ranked.html").text
    for piece in ("org__alpha/cut--0.5--00000001.json", "is cut short", "schema version 99", "is empty"):
        assert piece in text
    assert str(tmp_path) not in text
    assert "3 files cannot be read" in Page(site / "index.html").text


def test_an_older_schema_keeps_the_link_of_its_own_digest(tmp_path: Path) -> None:
    record = dense_record()
    path = write(tmp_path / "results", record) / "org__alpha" / f"{record.cell.stem}.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    old["schema_version"] = 2
    del old["body_digest"]
    old["body_digest"] = body_digest(old)
    path.write_text(json.dumps(old) + "\n", encoding="utf-8")
    site = build(tmp_path, tmp_path / "results")
    page = Page(site / "records" / f"{old['body_digest'][:12]}.html")
    read = f"has schema version 2 and was read as {SCHEMA_VERSION}"
    assert read in page.text and old["body_digest"] in page.text


def test_an_inconsistent_record_is_set_apart(tmp_path: Path) -> None:
    made_up = site_record("wanda", nll=(3.0, 3.0, 3.0, 3.0))
    metrics = (made_up.metrics[0].model_copy(update={"value": 1.0}), *made_up.metrics[1:])
    results = write(
        tmp_path / "results",
        dense_record(),
        site_record("magnitude"),
        made_up.model_copy(update={"metrics": metrics}),
    )
    site = build(tmp_path, results)
    assert "1. magnitude" in Page(site / "index.html").text
    assert "1. wanda" not in Page(site / "index.html").text
    assert "inconsistent: " in Page(site / "not-ranked.html").text
    assert "No record of this method is on a board" in Page(site / "methods/wanda.html").text


def test_what_cannot_be_ranked_is_shown_for_what_it_is(tmp_path: Path) -> None:
    """Without a dense record, of another limit than the dense one, and without a finite loss."""
    results = write(
        tmp_path / "results",
        dense_record("org/alpha"),
        site_record("wanda", "org/alpha", nll=(None, 3.0, 3.0, 3.0)),
        site_record("wanda", "org/alone"),
    )
    write(results / "other", site_record("wanda", "org/alpha", limit=64, nll=(3.0,) * 8))
    site = build(tmp_path, results)
    text = Page(site / "not-ranked.html").text
    assert text.count("no dense record of the same weights, dtype and windows") == 2
    tables = PageTables((site / "index.html").read_text(encoding="utf-8"))
    row = tables.row("first 32 tokens, float32", "1. wanda")
    assert row[1].startswith("0.000") and "not finite: 1 of" in row[1]
    assert_links_resolve(site, pages(site))


def test_bulk_is_not_held_for_all_records_at_once(tmp_path: Path) -> None:
    holdings = read_holdings([quick(tmp_path / "results")])
    assert all(held.record.modules == () for held in holdings.records)


def test_copies_of_a_record_count_once(tmp_path: Path) -> None:
    quick(tmp_path / "results" / "one")
    quick(tmp_path / "results" / "two")
    copied = read_holdings([tmp_path / "results", tmp_path / "results" / "one"])
    # A record names its side file, whose name is its writer's own; only the failure has none.
    assert len(copied.records) == 7 + 7 + 1
