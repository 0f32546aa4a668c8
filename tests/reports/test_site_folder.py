"""The folder of a site: what a build writes, replaces, removes, and leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.site import SiteError, build_site
from suite.results import parse_record
from tests.reports.test_site import assert_links_resolve, build, pages, quick


def test_a_rebuild_removes_its_own_pages_and_nothing_else(tmp_path: Path) -> None:
    results = quick(tmp_path / "results")
    site = build(tmp_path, results)
    mine = site / "records" / "mine.txt"
    mine.write_text("keep", encoding="utf-8")
    gone = next((results / "org__alpha").glob("sparsegpt--*.json"))
    page = site / "records" / f"{parse_record(gone.read_bytes()).body_digest[:12]}.html"
    kept = (site / "style.css").stat().st_mtime_ns
    assert page.is_file()
    gone.unlink()
    built = build_site([results], site, title="Board")
    assert built.n_removed == 2
    assert not page.exists() and not page.with_suffix(".json").exists()
    assert mine.read_text(encoding="utf-8") == "keep"
    assert (site / "style.css").stat().st_mtime_ns == kept
    assert_links_resolve(site, pages(site))


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    results = quick(tmp_path / "results")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(SiteError, match="contains other files and no site"):
        build(tmp_path, results)
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["thesis.txt"]


def test_a_manifest_cannot_remove_what_lies_elsewhere(tmp_path: Path) -> None:
    results = quick(tmp_path / "results")
    site = build(tmp_path, results)
    outside = tmp_path / "outside.html"
    outside.write_text("keep", encoding="utf-8")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "page.html").write_text("keep", encoding="utf-8")
    (site / "linked").symlink_to(tmp_path / "far")
    manifest = site / ".prunebench-site.json"
    files = ["../outside.html", str(outside), "linked/page.html", ".", "records"]
    manifest.write_text(json.dumps({"files": files}), encoding="utf-8")
    build_site([results], site, title="Board")
    assert outside.exists() and (tmp_path / "far" / "page.html").exists() and (site / "records").is_dir()


def test_a_build_that_is_cut_short_leaves_a_site_that_the_next_one_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = quick(tmp_path / "results")
    with monkeypatch.context() as cut:
        cut.setattr("reports.site.build.as_csv", lambda records: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(tmp_path, results)
    gone = next((results / "org__alpha").glob("sparsegpt--*.json"))
    page = tmp_path / "site" / "records" / f"{parse_record(gone.read_bytes()).body_digest[:12]}.html"
    assert page.is_file()
    gone.unlink()
    site = build(tmp_path, results)
    assert not page.exists() and (site / "index.html").is_file()


def test_the_site_may_lie_in_the_tree_that_it_shows(tmp_path: Path) -> None:
    results = quick(tmp_path / "results")
    first = build_site([results], results / "site", title="Board")
    assert build_site([results], results / "site", title="Board").n_records == first.n_records == 8
