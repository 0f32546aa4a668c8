"""The loop between a pool and a results tree, with workers that are made up."""

from dataclasses import replace

import pytest

from methods.errors import InputError
from suite.cell import Cell
from suite.executors.outcome import RecordWriter
from suite.executors.pool import Finished, Lost, PoolError, Told
from suite.executors.scheduler import drive
from suite.executors.worker import Progress
from suite.planning.resume import PlannedCell
from suite.results import CellState, ResultStore
from suite.running.run_cell import failed_record
from suite.watcher import Silent


class Watched(Silent):
    """Keeps what it hears."""

    def __init__(self):
        self.heard = []

    def worker_at(self, worker, cell, progress):
        self.heard.append((worker, cell and cell.pattern, progress.phase))

    def cell_ended(self, cell, outcome, record=None):
        self.heard.append((cell.pattern, outcome))


class Script:
    """A pool of one worker that does what a function says of each cell it is given."""

    def __init__(self, happens):
        self.happens = happens
        self.given, self.ready, self.closed, self.busy = [], [], 0, False

    def idle(self, n_waiting):
        return [] if self.busy else ["w"]

    def give(self, worker, place, cell):
        self.busy = True
        self.given.append((place, cell))

    def wait(self):
        self.busy = False
        place, cell = self.given[-1]
        return self.happens(len(self.given), place, cell)

    def arrived(self):
        return self.ready

    def close(self):
        self.closed += 1


CELLS = [Cell(model="m", method="wanda", pattern=str(n), dtype="float32") for n in range(3)]


def done(place, cell):
    # A failed record will do: no number of it is looked at here.
    return Finished("w", place, failed_record(cell, "prune", InputError("as it was made up")), None)


def run(happens, tmp_path, cells=CELLS):
    pool, watched, store = Script(happens), Watched(), ResultStore(tmp_path)
    planned = [PlannedCell(cell, CellState("missing", ""), True) for cell in cells]
    writer = RecordWriter(store, watched)
    try:
        drive(planned, pool, writer, watched, {})
    finally:
        assert pool.closed == 1, "however it ends"
    return pool, watched, writer.outcome


def written(tmp_path):
    return sorted(path.name.split("--")[1] for path in tmp_path.rglob("*.json"))


def test_every_result_is_stored_and_told(tmp_path):
    pool, watched, outcome = run(
        lambda n, place, cell: [Told("w", place, Progress("prune", 1, 2)), done(place, cell)], tmp_path
    )
    assert [place for place, _ in pool.given] == [0, 1, 2]
    assert written(tmp_path) == ["0", "1", "2"]
    assert [failed.cell.pattern for failed in outcome.failed] == ["0", "1", "2"]
    assert ("w", "0", "prune") in watched.heard and ("w", None, "") in watched.heard


def test_a_cell_whose_worker_is_lost_runs_again(tmp_path):
    pool, _, outcome = run(
        lambda n, place, cell: [Lost("w", place, "killed")] if n == 1 else [done(place, cell)], tmp_path
    )
    assert [place for place, _ in pool.given] == [0, 0, 1, 2]
    assert len(outcome.failed) == 3


def test_a_cell_that_costs_three_workers_is_a_failure_and_the_others_run(tmp_path):
    _, _, outcome = run(
        lambda n, place, cell: [Lost("w", place, "killed by SIGKILL") if place == 1 else done(place, cell)],
        tmp_path,
    )
    reasons = {failed.cell.pattern: failed.reason for failed in outcome.failed}
    assert reasons["1"] == "run: its worker was lost 3 times, last w: killed by SIGKILL"
    assert written(tmp_path) == ["0", "1", "2"]


def test_workers_that_die_before_they_have_a_cell_end_the_run(tmp_path):
    with pytest.raises(PoolError, match="workers die before they get a cell, last w: no module"):
        run(lambda n, place, cell: 3 * [Lost("w", None, "no module")], tmp_path)


@pytest.mark.parametrize("end", [KeyboardInterrupt, PoolError])
def test_what_had_arrived_is_stored_when_the_run_is_ended(tmp_path, end):
    def happens(n, place, cell):
        if n == 1:
            return [done(place, cell)]
        pool.ready = [done(place, cell)]
        raise end("over")

    pool = Script(happens)
    planned = [PlannedCell(cell, CellState("missing", ""), True) for cell in CELLS]
    with pytest.raises(end):
        drive(planned, pool, RecordWriter(ResultStore(tmp_path), Watched()), Watched(), {})
    assert written(tmp_path) == ["0", "1"]
    assert pool.closed == 1


def test_kept_cells_are_told_and_given_to_nobody(tmp_path):
    pool, watched = Script(lambda n, place, cell: [done(place, cell)]), Watched()
    planned = [PlannedCell(cell, CellState("missing", ""), True) for cell in CELLS]
    planned[1] = replace(planned[1], runs=False)
    writer = RecordWriter(ResultStore(tmp_path), watched)
    drive(planned, pool, writer, watched, {})
    assert [cell.pattern for _, cell in pool.given] == ["0", "2"]
    assert writer.outcome.kept == (CELLS[1],)
    assert ("1", "kept") in watched.heard
