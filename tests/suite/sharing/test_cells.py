"""Cells of one plan share the dense reference and initial masks, and get the numbers they would get alone."""

from collections import Counter

import pytest
import torch

from methods.dsnot import DSnoT
from methods.scores.wanda import Wanda
from suite.planning.preflight import preflight
from suite.planning.suite_cells import load_suite, plan
from suite.results import ResultStore
from suite.results.verification import verify
from suite.running import run_cell as run_cell_module
from suite.running.model_session import ModelSession
from suite.running.run_cell import run_cell
from suite.sharing import SharedWork, initial_cell, wanted_initials
from suite.sharing.folder import SharedFolder
from tests.tiny import write_suite

BARBERS = """
[[methods]]
name = "llm-barber"
settings = { rebuild_ratio = 0.1 }
[[methods]]
name = "llm-barber"
settings = { rebuild_ratio = 0.2, granularity = "layer" }
[[methods]]
name = "llm-barber"
settings = { initial = "sparsegpt", keep_reconstruction = true }
[[methods]]
name = "llm-barber"
settings = { initial = "sparsegpt", rebuild_ratio = 0.3 }
[[methods]]
name = "dsnot"
settings = { initial = "sparsegpt" }
[[methods]]
name = "llm-barber"
settings = { initial = "dsnot" }
"""


@pytest.fixture
def cells(tmp_path):
    path = write_suite(tmp_path, "wanda", patterns=["0.5"])
    path.write_text("divergence = true\nthreads = 1\n" + path.read_text() + BARBERS)
    return plan(load_suite(str(path)), dtype="float32")


@pytest.fixture
def calls(monkeypatch):
    """How often each of what is shared was really done."""
    counted = Counter()

    def counting(owner, name, key):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            counted[key] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counting(Wanda, "prune", "wanda")
    counting(DSnoT, "prune", "dsnot")
    counting(run_cell_module, "measure_dense", "dense")
    return counted


def run(cells, folder=None, inputs=None, store=None):
    """The records of cells, run one after another by one process, and written where there is a store."""
    shared = SharedWork(None if folder is None else SharedFolder(folder), wanted_initials(cells))
    bench = ModelSession(torch.device("cpu"), inputs or preflight(cells), shared=shared)
    records = []
    for cell in cells:
        record, items = run_cell(cell, bench)
        assert record.failure is None, record.failure.traceback
        if store is not None:
            store.write(record, items)
        records.append(record)
    return records


def numbers(record):
    """What must not depend on what was shared."""
    costs = ("prune_seconds", "own_prune_seconds", "peak_host_bytes", "prune_energy_joules")
    metrics = [metric for metric in record.metrics if metric.name not in costs]
    return (
        *(record.mask_digest, record.initial_mask_digest, record.windows, record.divergences),
        *(record.modules, metrics, record.warnings),
    )


def part(record, what):
    return [shared for shared in record.shared if shared.what == what]


def test_shared_work_is_done_once_and_changes_no_number(cells, tmp_path, calls):
    alone = [run([cell])[0] for cell in cells]
    calls.clear()
    together = run(cells, tmp_path / "shared")
    assert [numbers(record) for record in together] == [numbers(record) for record in alone]
    # Wanda's own cell prunes for two rebuilds and a refinement; the two refinements differ.
    assert calls == {"wanda": 1, "dense": 1, "dsnot": 2}


def test_the_record_says_what_was_reused_and_prune_time_is_told_both_ways(cells, tmp_path):
    records = run(cells, tmp_path / "shared")
    by_method = {record.cell.variant: record for record in records}
    wanda = next(record for record in records if record.cell.method == "wanda")
    rebuilt = next(record for name, record in by_method.items() if "wanda" in name and "barber" in name)
    (initial,) = part(rebuilt, "initial mask")
    assert (initial.name, initial.reused) == ("wanda", True)
    prune = {phase.name: phase.seconds for phase in wanda.phases}["prune"]
    assert initial.seconds == prune
    phases = {phase.name: phase.seconds for phase in rebuilt.phases}
    assert phases["initial"] == initial.seconds
    whole, own = rebuilt.metric("prune_seconds"), rebuilt.metric("own_prune_seconds")
    assert whole.value == pytest.approx(phases["calibrate"] + phases["initial"] + phases["prune"])
    assert own.value == pytest.approx(phases["prune"])
    assert sum(phases[name] for name in ("statistics", "solve", "propagate")) <= phases["prune"]
    # The first rebuild of SparseGPT found the mask itself: nothing is charged twice.
    first, second = (r for name, r in by_method.items() if "barber" in name and "sparsegpt" in name)
    assert [p.reused for p in part(first, "initial mask") + part(second, "initial mask")] == [False, True]
    assert "initial" not in {phase.name for phase in first.phases}
    assert first.metric("own_prune_seconds").value < first.metric("prune_seconds").value
    (drawn,) = part(rebuilt, "calibration")
    assert drawn.digest == rebuilt.calibration.digest and drawn.reused
    (dense,) = part(rebuilt, "dense reference")
    assert dense.reused and dense.name == rebuilt.windows[0].protocol and dense.seconds > 0


def test_records_of_shared_work_pass_verification(cells, tmp_path):
    run(cells, tmp_path / "shared", store=ResultStore(tmp_path / "runs"))
    found = verify([tmp_path / "runs"])
    assert len(found.records) == len(cells)
    problems = [f for record in found.records for f in record.findings if f.level == "problem"]
    assert problems == []


def test_another_process_finds_what_one_left(cells, tmp_path, calls):
    inputs = preflight(cells)
    first = run(cells, tmp_path / "shared", inputs)
    calls.clear()
    again = run(cells[2:], tmp_path / "shared", inputs)
    assert [numbers(record) for record in again] == [numbers(record) for record in first[2:]]
    assert calls["dense"] == 0 and calls["wanda"] == 0
    assert all(entry.reused for record in again for entry in record.shared)


def test_what_is_damaged_is_done_again(cells, tmp_path, calls):
    inputs = preflight(cells)
    first = run(cells, tmp_path / "shared", inputs)
    for entry in (tmp_path / "shared").rglob("*.safetensors"):
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    calls.clear()
    again = run(cells[2:], tmp_path / "shared", inputs)
    assert [numbers(record) for record in again] == [numbers(record) for record in first[2:]]
    assert calls["dense"] == 1 and calls["wanda"] == 1


def test_on_a_full_disk_everything_is_done_where_it_is_needed(cells, tmp_path, monkeypatch, calls):
    monkeypatch.setattr("suite.sharing.folder.SPARE_SHARE", 1.0)
    alone = [numbers(record) for record in run(cells)]
    calls.clear()
    assert [numbers(record) for record in run(cells, tmp_path / "shared")] == alone
    assert calls["wanda"] > 1
    assert [path.suffix for path in (tmp_path / "shared").iterdir() if path.suffix != ".lock"] == []


def test_other_threads_share_nothing(cells, tmp_path, calls):
    inputs = preflight(cells)
    run(cells, tmp_path / "shared", inputs)
    calls.clear()
    run([cell.model_copy(update={"threads": 2}) for cell in cells[2:4]], tmp_path / "shared", inputs)
    assert calls["dense"] == 1 and calls["wanda"] == 1


def test_only_what_several_cells_start_from_is_kept(cells):
    wanda, *barbers = cells[1:]
    assert wanted_initials([wanda]) == frozenset()
    assert wanted_initials(barbers[:1]) == frozenset()
    assert wanted_initials(barbers[:2]) == {initial_cell(wanda, Wanda()).digest}
    assert wanted_initials([wanda, barbers[0]]) == {initial_cell(wanda, Wanda()).digest}
    other = barbers[0].model_copy(update={"pattern": "0.6"})
    assert wanted_initials([barbers[0], other]) == frozenset()


def test_a_cell_that_fails_says_what_it_had_shared(cells, tmp_path, monkeypatch):
    monkeypatch.setattr("suite.models.reusable.check_contract", lambda *_: 1 / 0)
    shared = SharedWork(SharedFolder(tmp_path / "shared"), wanted_initials(cells))
    record, _ = run_cell(cells[2], ModelSession(torch.device("cpu"), preflight(cells), shared=shared))
    assert record.failure.error == "ZeroDivisionError"
    assert [entry.what for entry in record.shared] == ["dense reference", "calibration", "initial mask"]
