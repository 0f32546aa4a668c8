"""The report of a run while it lasts: how far it is, who writes it, what a run that ended early leaves."""

import time

import pytest

from reports.page.html import render_waiting
from suite.api import live_report
from suite.api.live_report import LiveReport
from suite.executors.outcome import Outcome
from suite.results import ResultStore
from tests import PATIENCE_S
from tests.reports.synthetic import make_record
from tests.tiny import write_suite


@pytest.fixture
def eager(monkeypatch):
    """Renders after every cell, however short the run is."""
    monkeypatch.setattr(live_report, "SHARE", 1e9)


@pytest.fixture
def watched(monkeypatch):
    """What the page says before each cell of a run is taken up; `end` may end it there."""
    from suite.running import run_cell as running

    pages, run_cell = [], running.run_cell

    class Watched(list):
        end = None

        def __call__(self, cell, session, watcher=None):
            self.append((self.out / "report.html").read_text())
            if self.end is not None and len(self) > self.end:
                raise KeyboardInterrupt
            return run_cell(cell, session, watcher)

    pages = Watched()
    monkeypatch.setattr(running, "run_cell", pages)
    return pages


def test_the_page_is_there_at_once_and_whole_after_every_cell(prunebench, tmp_path, eager, watched):
    watched.out = tmp_path / "runs"
    suite = write_suite(tmp_path, methods="magnitude wanda", patterns=["0.5"])
    code, _, err = prunebench("run", suite, "--out", watched.out)
    assert code == 0, err
    assert f"report: {watched.out / 'report.html'}" in err
    first, second, third = watched
    assert "0 of 3 cells" in first and "No cell has finished yet" in first
    assert "1 of 3 cells" in second and "Only the dense model was measured" in second
    assert "2 of 3 cells" in third and "magnitude" in third
    for page in watched:
        assert page.count("setInterval(() => location.reload()") == 1
        assert page.rstrip().endswith("</html>")
    final = (watched.out / "report.html").read_text()
    assert "location.reload()" not in final
    assert not list(watched.out.glob(".*")), "nothing else is left behind"
    assert "of 3 cells" not in final
    assert "wanda" in final


def test_a_run_that_is_interrupted_says_so_on_its_page(prunebench, tmp_path, eager, watched):
    watched.out, watched.end = tmp_path / "runs", 2
    suite = write_suite(tmp_path, methods="magnitude wanda", patterns=["0.5"])
    assert prunebench("run", suite, "--out", watched.out)[0] == 130
    page = (watched.out / "report.html").read_text()
    assert "<strong>2 of 3 cells</strong>, ended early. Last written" in " ".join(page.split())
    assert "location.reload()" not in page
    assert "magnitude" in page and "Provenance" in page
    watched.end = None
    assert prunebench("run", suite, "--out", watched.out)[0] == 0
    resumed = watched[-1]
    assert "2 of 3 cells" in resumed and "ended early. Last" not in resumed
    assert "Provenance" in resumed, "what was there already is still shown"


def live(out, warn=print, n_kept=0, n_cells=3):
    out.mkdir(exist_ok=True)
    return LiveReport(out, "mine", n_kept=n_kept, n_cells=n_cells, doing=lambda: ["m wanda 0.5"], warn=warn)


def test_one_run_at_a_time_writes_the_page_of_a_folder(tmp_path, eager):
    store = ResultStore(tmp_path)
    dense, wanda = make_record("dense", None), make_record("wanda")
    store.write(dense)
    with live(tmp_path) as first, live(tmp_path, n_cells=2) as second:
        first.cell_ended(Outcome((dense.cell,), (), ()))
        written = (tmp_path / "report.html").stat().st_mtime_ns
        store.write(wanda)
        second.cell_ended(Outcome((wanda.cell,), (), ()))
        assert not second.finish()
        assert (tmp_path / "report.html").stat().st_mtime_ns == written
        assert first.finish()
        final = (tmp_path / "report.html").read_text()
        assert "of 3 cells" not in final and "wanda" in final, "what the other run wrote is shown too"
    with live(tmp_path, n_cells=2) as third:
        assert "0 of 2 cells" in (tmp_path / "report.html").read_text()
        third.finish()


def test_what_another_run_writes_while_the_last_page_is_rendered_is_shown(tmp_path, monkeypatch):
    store = ResultStore(tmp_path)
    store.write(make_record("dense", None))
    render = live_report.write_report

    def late(results, out, *, title):
        path = render(results, out, title=title)
        if not store.path_of(make_record("wanda").cell).exists():
            store.write(make_record("wanda"))
        return path

    monkeypatch.setattr(live_report, "write_report", late)
    with live(tmp_path) as one:
        assert one.finish()
    assert "wanda" in (tmp_path / "report.html").read_text()


def test_rendering_keeps_to_its_share_of_the_run(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(live_report.time, "monotonic", lambda: clock[0])
    rendered = []

    def render(results, *, title):
        clock[0] += 3.0
        rendered.append(clock[0])
        return render_waiting(title=title)

    monkeypatch.setattr(live_report, "render", render)
    record = make_record("dense", None)
    report = live(tmp_path, n_cells=10)
    report._heart = report._heart.__class__(target=lambda: None)  # no clock of its own
    with report:
        for n in range(1, 10):
            clock[0] += 10.0
            report.cell_ended(Outcome((record.cell,) * n, (), ()))
            assert f"{n} of 10 cells" in (tmp_path / "report.html").read_text()
        ResultStore(tmp_path).write(record)
        monkeypatch.undo()
        report.finish()
    assert rendered, "there was time for one"
    assert 3.0 * len(rendered) <= 0.05 * (clock[0] + 10)


def test_trouble_with_the_page_costs_the_run_nothing_else(tmp_path, monkeypatch, eager):
    told = []

    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    cell = make_record("dense", None).cell
    ResultStore(tmp_path).write(make_record("dense", None))
    with live(tmp_path, told.append, n_cells=4) as report:
        with monkeypatch.context() as patch:
            patch.setattr(live_report, "replace_text", full)
            report.cell_ended(Outcome((cell,), (), ()))
            report.cell_ended(Outcome((cell,) * 2, (), ()))
        (line,) = told
        assert "is not up to date" in line and "No space left" in line
        report.cell_ended(Outcome((cell,) * 3, (), ()))
        assert "3 of 4 cells" in (tmp_path / "report.html").read_text(), "there is room again"


def test_without_locks_the_page_is_written_all_the_same(tmp_path, monkeypatch):
    def no_locks(self, *args, **kwargs):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(live_report.FileLock, "acquire", no_locks)
    ResultStore(tmp_path).write(make_record("dense", None))
    with live(tmp_path) as report:
        assert "0 of 3 cells" in (tmp_path / "report.html").read_text()
        assert report.finish()


def test_a_resumed_run_without_a_page_shows_at_once_what_is_there(tmp_path):
    ResultStore(tmp_path).write(make_record("dense", None))
    (tmp_path / "report.html").write_text("no report")
    with live(tmp_path, n_kept=1):
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "1 of 3 cells" in page and "Only the dense model was measured" in page


def test_results_that_arrive_while_a_run_is_stopped_are_stored_before_the_page(tmp_path, monkeypatch, eager):
    monkeypatch.setattr(live_report, "render", lambda *_, **__: pytest.fail("there is no time for it"))
    with live(tmp_path) as report:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            report.cell_ended(Outcome((make_record("dense", None).cell,), (), ()))
        monkeypatch.undo()


def test_the_page_of_a_long_cell_says_that_the_run_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(live_report, "BEAT_S", 0.05)
    with live(tmp_path) as report:
        path = tmp_path / "report.html"
        before = path.stat().st_mtime_ns
        deadline = time.monotonic() + PATIENCE_S
        while path.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime_ns != before
        assert "running: <bdi>m wanda 0.5</bdi>" in path.read_text()
        ResultStore(tmp_path).write(make_record("dense", None))
        report.finish()


def test_a_run_with_nothing_to_do_is_never_shown_as_running(prunebench, tmp_path, watched):
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    watched.out = tmp_path / "runs"
    prunebench("run", suite, "--out", watched.out)
    code, _, err = prunebench("run", suite, "--out", watched.out)
    assert code == 0
    assert "report:" not in err
    assert len(watched) == 2
