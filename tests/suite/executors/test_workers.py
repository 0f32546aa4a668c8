"""What goes to workers and comes from them, and what is said where there can be none."""

import io
import pickle
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from methods.errors import InputError
from suite.cell import Cell, TaskSpec
from suite.commands.output.progress import ProgressBars
from suite.evaluation.inputs import Inputs
from suite.evaluation.lm_eval_tasks.loading import load_task
from suite.executors.worker import Progress, Reporter
from suite.executors.worker_inputs import WorkerInputs
from tests.suite.conftest import refusal
from tests.tiny import write_suite, write_task

CELL = Cell(model="m", method="wanda", pattern="0.5", dtype="float32")


def test_without_ray_it_is_said_how_to_get_it(prunebench, tmp_path, monkeypatch):
    path = write_suite(tmp_path, "magnitude", patterns=["0.5"])
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refusal(prunebench("run", path, "--executor", "ray"))
    assert line.endswith("--executor ray needs Ray: pip install 'prunebench[ray]'")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--address", "auto"], "--address auto: needs --executor ray"),
        (["--workers", "0"], "--workers"),
        (["--executor", "ray", "--device", "cuda:0"], "Ray chooses the GPU; give auto, cpu or cuda"),
        (["--executor", "slurm"], "slurm"),
    ],
)
def test_options_that_make_no_sense_are_one_line(prunebench, tmp_path, arguments, said):
    path = write_suite(tmp_path, "magnitude", patterns=["0.5"])
    assert said in refusal(prunebench("run", path, *arguments))
    assert not (tmp_path / "results").exists()


def test_questions_are_loaded_by_the_worker_and_have_to_be_the_same(tmp_path):
    spec = TaskSpec(name="mine", folder=str(write_task(tmp_path / "tasks")))
    sent = WorkerInputs.of(Inputs({}, {}, None, "digest", {spec: load_task(spec)}))
    arrived = pickle.loads(pickle.dumps(sent)).unpacked()
    assert arrived.tasks[spec].digests == sent.task_digests[spec]
    assert arrived.folder_digest == "digest"
    with pytest.raises(InputError, match="has different questions on this worker's machine"):
        replace(sent, task_digests={spec: {"mine-0shot": "0" * 64}}).unpacked()


def test_a_worker_tells_how_far_it_is_a_few_times_a_second():
    told: list[Progress] = []
    reporter = Reporter(told.append)
    reporter.cell_started(CELL)
    reporter.phase_started("prune", 1000)
    for _ in range(1000):
        reporter.stepped()
    assert reporter.now == Progress("prune", 1000, 1000)
    assert 1 <= len(told) < 20


def test_several_workers_have_a_line_each():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, highlight=False)
    with ProgressBars(2, console) as bars:
        bars.worker_at("cuda:0", CELL, Progress("prune", 3, 10))
        bars.worker_at("cuda:1", CELL, Progress("evaluate", 1, 2))
        bars.worker_at("cuda:1", None, Progress(""))
        bars.cell_ended(CELL, "complete")
    shown = screen.getvalue()
    assert "cuda:0: m wanda 0.5: prune, 3/10" in shown
    assert "complete  m wanda 0.5" in shown
