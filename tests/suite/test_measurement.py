"""What a record holds of a measured model, and what is held against the dense one."""

import math
from dataclasses import replace

import pytest
import torch

from methods.layer_report import LayerReport
from suite.cell import AnswersSpec, Cell, PerplexitySpec, SpeedSpec, TaskSpec
from suite.data.corpora import evaluation_windows
from suite.data.prompts import load_prompts
from suite.evaluation.cost import add_size
from suite.evaluation.inputs import Inputs
from suite.evaluation.lm_eval_tasks.loading import load_task
from suite.evaluation.measure import DenseReference, measure_dense, measure_pruned
from suite.evaluation.measured import Measured
from suite.evaluation.speed.sparse_kernels import why_no_kernel
from suite.machine import energy
from suite.machine.phases import PhaseLog
from suite.models.loading import load_model
from suite.results.statistics.single import mean_stderr
from suite.watcher import Silent
from tests.tiny import save_tiny_model, write_task, write_text

CPU = torch.device("cpu")


@pytest.fixture
def cell(tmp_path):
    text = write_text(tmp_path / "text.txt")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "the tree"}\n{"prompt": "rain and moon", "kind": "facts"}\n')
    return Cell(
        model=str(save_tiny_model(tmp_path / "model")),
        method="wanda",
        pattern="0.5",
        dtype="float32",
        perplexity=(PerplexitySpec(corpus=str(text), seqlen=32, max_tokens=256),),
        divergence=True,
        tasks=(TaskSpec(name="mine", folder=str(write_task(tmp_path / "tasks", n_items=30))),),
        answers=AnswersSpec(prompts=str(prompts), max_new_tokens=6),
    )


@pytest.fixture
def inputs(cell):
    loaded = load_model(cell.model)
    return Inputs(
        calibrations={},
        windows={spec: evaluation_windows(spec, loaded.tokenizer) for spec in cell.perplexity},
        revision=None,
        folder_digest=None,
        tasks={spec: load_task(spec) for spec in cell.tasks},
        prompts={cell.answers.prompts: load_prompts(cell.answers.prompts)},
    )


def both(cell, inputs, damage):
    """The dense model's measurements and those of one that `damage` changed."""
    log, reference = PhaseLog(CPU, Silent()), DenseReference()
    dense = measure_dense(load_model(cell.model), cell, inputs, reference, log)
    pruned = load_model(cell.model)
    damage(pruned.model)
    found = measure_pruned(pruned, cell, inputs, reference, log, dense_again=lambda: load_model(cell.model))
    return dense, found


def values(measured):
    return {metric.name: metric.value for metric in measured.metrics}


def ruin(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                weight.copy_(torch.randn(weight.shape, generator=generator))


def test_a_model_held_against_itself_differs_in_nothing(cell, inputs):
    dense, found = both(cell, inputs, lambda model: None)
    metrics = values(found)
    assert metrics["kl_divergence"] == 0.0
    assert metrics["top1_agreement"] == 1.0
    assert metrics["flips_right_to_wrong"] == metrics["flips_wrong_to_right"] == 0.0
    assert metrics["answers_as_dense"] == 1.0
    assert [answer.parted_at for answer in found.answers.answers] == [None, None]
    assert metrics["perplexity"] == values(dense)["perplexity"]


def test_a_damaged_model_parts_from_the_dense_one(cell, inputs):
    dense, found = both(cell, inputs, ruin)
    metrics = values(found)
    assert metrics["kl_divergence"] > 0
    assert metrics["top1_agreement"] < 1
    (before,), (after,) = dense.tasks, found.tasks
    lost = sum(b == "1" and a == "0" for b, a in zip(before.outcomes, after.outcomes, strict=True))
    gained = sum(b == "0" and a == "1" for b, a in zip(before.outcomes, after.outcomes, strict=True))
    assert lost + gained > 0
    assert metrics["flips_right_to_wrong"] == pytest.approx(lost / 30)
    assert metrics["flips_wrong_to_right"] == pytest.approx(gained / 30)
    assert metrics["acc"] == pytest.approx(after.outcomes.count("1") / 30)
    assert (before.items_digest, before.docs_digest) == (after.items_digest, after.docs_digest)
    for ours, theirs in zip(found.answers.answers, dense.answers.answers, strict=True):
        assert ours.text == theirs.text or ours.parted_at is not None
        assert ours.dense_nll > 0


def test_the_side_file_has_every_item_and_the_metrics_follow_from_it(cell, inputs):
    _, found = both(cell, inputs, ruin)
    frame = found.items()
    text, task = cell.perplexity[0].protocol, "mine-0shot"
    for metric, protocol in (("nll", text), ("kl", text), ("agreement", text), ("acc", task)):
        rows = frame[(frame.metric == metric) & (frame.protocol == protocol)]
        assert rows.item.tolist() == list(range(len(rows)))
        name = {"nll": "perplexity", "kl": "kl_divergence", "agreement": "top1_agreement"}.get(metric, metric)
        expected = math.exp(rows.value.mean()) if metric == "nll" else rows.value.mean()
        assert values(found)[name] == pytest.approx(expected)
    assert frame[frame.protocol == task].prompt_hash.notna().all()
    assert frame[frame.protocol == text].n_tokens.eq(31).all()


def test_every_number_that_comes_from_items_has_an_interval(cell, inputs):
    dense, found = both(cell, inputs, ruin)
    for metric in [*dense.metrics, *found.metrics]:
        assert metric.n is not None
        assert metric.stderr is not None
        assert metric.low <= metric.value + 1e-12
        assert metric.value <= metric.high + 1e-12


def test_only_what_is_missing_of_the_dense_model_is_measured_again(cell, inputs):
    reference = DenseReference()
    assert reference.missing(cell).perplexity == cell.perplexity
    measure_dense(load_model(cell.model), cell, inputs, reference, PhaseLog(CPU, Silent()))
    assert reference.missing(cell) is None
    other = cell.tasks[0].model_copy(update={"limit": 5})
    rest = reference.missing(cell.model_copy(update={"tasks": (*cell.tasks, other)}))
    assert (rest.tasks, rest.perplexity, rest.answers) == ((other,), (), None)


def test_speed_is_measured_and_a_missing_kernel_is_said(cell, inputs):
    asked = cell.model_copy(
        update={
            "perplexity": (),
            "tasks": (),
            "answers": None,
            "speed": SpeedSpec(prompt_tokens=8, new_tokens=2),
        }
    )
    _, found = both(asked, inputs, ruin)
    by_name = {metric.name: metric for metric in found.metrics}
    assert by_name["prefill_tokens_per_second"].value > 0
    assert by_name["generation_tokens_per_second"].n == 3
    sparse = by_name["sparse_generation_tokens_per_second"]
    assert sparse.value is None
    assert sparse.status == "unstructured zeros bring no speed here: there is no kernel for them"


def test_why_there_is_no_sparse_kernel(cell):
    model = load_model(cell.model).model
    assert "no kernel for 4:8" in why_no_kernel(model, "4:8")
    assert "no 2:4 kernel on this device" in why_no_kernel(model, "2:4")


def test_sizes_are_those_of_the_bits(cell):
    loaded = load_model(cell.model, dtype="bfloat16")
    stored = sum(p.numel() * 2 for p in loaded.model.parameters())

    def sizes(modules, pattern):
        measured = Measured()
        add_size(measured, loaded, modules, pattern)
        assert {(metric.protocol, metric.direction) for metric in measured.metrics} == {("bfloat16", "lower")}
        return {metric.name: metric.value for metric in measured.metrics}

    modules = [
        LayerReport(module="m", layer=0, block="mlp", shape=shape, n_pruned=n)
        for shape, n in (((8, 8), 32), ((10, 10), 75))
    ]
    others = stored - 2 * 164
    assert sizes(modules, "2:4") == {
        "checkpoint_bytes": stored,
        "bitmask_bytes": others + 2 * 57 + 8 + 13,
        "packed_bytes": others + 2 * 57 + 8 + 7,  # two bits a survivor: its place in a group of four
    }
    assert sizes(modules, "0.5")["packed_bytes"] is None
    assert sizes([], None) == {"checkpoint_bytes": stored}


def test_intervals_of_shares_stay_among_shares(cell, inputs):
    """From two windows, and two prompts, Student t alone would reach far below 0."""

    def tilt(model):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("proj.weight"):
                    weight += 0.2 * torch.randn(weight.shape, generator=generator)

    windows = {spec: replace(text, input_ids=text.input_ids[:2]) for spec, text in inputs.windows.items()}
    _, found = both(cell, replace(inputs, windows=windows), tilt)
    (divergence,) = found.divergences
    shares = {
        "top1_agreement": divergence.agreement,
        "answer_repetition": [answer.repetition for answer in found.answers.answers],
    }
    for name, items in shares.items():
        assert mean_stderr(items).low < 0
        (metric,) = (metric for metric in found.metrics if metric.name == name)
        assert 0 == metric.low < metric.value < metric.high <= 1


def test_an_estimate_of_no_answers_is_none():
    assert mean_stderr([]).value is None


@pytest.fixture
def rapl(tmp_path, monkeypatch):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for part, name in (("", "package-0"), (":0", "core")):
        folder = tmp_path / f"intel-rapl:0{part}"
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text("5000000\n")
        (folder / "max_energy_range_uj").write_text("9000000\n")
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    return zone / "energy_uj"


def test_energy_is_what_the_packages_counter_moved(rapl):
    with energy.EnergyMeter() as meter:
        rapl.write_text("7500000\n")
    assert meter.joules == {"package-0": pytest.approx(2.5)}
    assert meter.total == pytest.approx(2.5)


def test_a_counter_that_started_anew_has_not_gone_back(rapl):
    with energy.EnergyMeter() as meter:
        rapl.write_text("1000000\n")
    assert meter.total == pytest.approx(5.0)


def test_a_machine_that_does_not_count_energy_says_nothing(tmp_path, monkeypatch, rapl):
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path / "none")
    with energy.EnergyMeter() as meter:
        pass
    assert meter.total is None
    assert energy.meters() == ()
