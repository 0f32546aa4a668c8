"""`python -m benchmarks.gpu` on small shapes: the code is the same, only the machine is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import contract, resident
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.onload import sharing_model
from benchmarks.gpu.shapes import SHAPES, tiny
from benchmarks.rows import load_rows
from methods.base import Placement
from methods.masks.pattern import parse_pattern
from methods.registry import build
from methods.structure.decoder import read_decoder
from methods.updates.sparsegpt_block import solve_block
from tests import PATIENCE_S, run_python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
METHODS = {"wanda", "sparsegpt", "llm-barber", "magnitude"}


def rows_of(folder, stage):
    rows, _ = load_rows(folder / f"{stage}.json")
    return rows


def test_one_command_makes_the_rows_of_every_stage(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device", "cpu", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,  # it waits for no answer: a loaded machine takes minutes
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for stage in ("7b", "13b", "opt", "30b"):
        rows = rows_of(tmp_path, stage)
        assert {(row.method, row.pattern) for row in rows} == {
            (m, p) for m in METHODS for p in ("0.5", "2:4")
        }
        for row in rows:
            assert row.status == "ok"
            assert row.placement == ("onload" if stage == "30b" else "resident")
            assert row.seconds > 0 and row.floor_seconds > 0 and row.ratio > 0 and row.phases
            assert sum(row.floor_parts.values()) == pytest.approx(row.floor_seconds)
            assert sum(row.strict_parts.values()) == pytest.approx(row.strict_floor)
            assert (row.roofline_seconds > 0) == (row.method != "magnitude")
    contract_rows = rows_of(tmp_path, "contract")
    assert {row.pattern for row in contract_rows if row.method == "solve_columns"} == {
        "0.5",
        "2:4",
        "4:8",
        "1:4",
    }
    assert all(row.status == "ok" for row in contract_rows)
    twice = [row for row in contract_rows if row.model.startswith("LLaMA-7B (tiny), 3 layers, bfloat16")]
    assert [(row.method, row.pattern) for row in twice] == [("llm-barber", "0.5"), ("llm-barber", "2:4")]
    assert {row.detail for row in twice} == {"pruned twice on cpu: the same masks"}
    cases = json.loads((tmp_path / "contract-cases.json").read_text())["cases"].values()
    assert len(cases) == 12 and {case["verdict"] for case in cases} == {"kept"}
    evaluated = rows_of(tmp_path, "model")
    assert {row.method for row in evaluated} == METHODS | {"dense"}
    assert all(row.detail.startswith("perplexity ") for row in evaluated)
    assert (tmp_path / "model" / "results" / "resident" / "report.html").is_file()
    for line in ("| LLaMA-30B (tiny) | 3 | onload | llm-barber | 2:4 |", "| checked | pattern | outcome |"):
        assert line in done.stdout
    assert "cpu (" in done.stdout
    assert str(tmp_path) not in done.stdout


def test_the_table_is_read_from_the_saved_rows(tmp_path, capsys):
    assert main([*_tiny(tmp_path), "--methods", "magnitude"]) == 0
    made = capsys.readouterr().out
    assert main(["--table", str(tmp_path)]) == 0
    assert capsys.readouterr().out == made
    assert "| LLaMA-7B (tiny) | 3 | resident | magnitude | 0.5 |" in made


def test_a_row_that_fails_stands_in_the_table_and_the_others_follow(tmp_path, capsys):
    assert main([*_tiny(tmp_path), "--methods", "nosuch", "magnitude"]) == 3
    failed, made = rows_of(tmp_path, "7b")
    assert failed.status == "failed" and "unknown method 'nosuch'" in failed.detail
    assert (made.method, made.status) == ("magnitude", "ok")
    assert "failed InputError: unknown method 'nosuch'" in capsys.readouterr().out


def test_a_model_that_does_not_fit_is_a_row_and_the_other_stages_go_on(tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("benchmarks.gpu.resident.measuring", full)
    assert main([*_tiny(tmp_path, "7b", "30b"), "--methods", "magnitude"]) == 3
    assert "OutOfMemoryError: no room" in rows_of(tmp_path, "7b")[0].detail
    assert rows_of(tmp_path, "30b")[0].status == "ok"


def test_a_run_that_is_cut_keeps_its_rows_and_a_rerun_goes_on_from_there(tmp_path, monkeypatch):
    real, timed = resident.time_method, []

    def cut_at_the_second(bench, method, pattern, **given):
        timed.append(method)
        if len(timed) == 2:
            raise KeyboardInterrupt
        return real(bench, method, pattern, **given)

    monkeypatch.setattr(resident, "time_method", cut_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        main([*_tiny(tmp_path), "--methods", "magnitude", "wanda", "sparsegpt"])
    (first,) = rows_of(tmp_path, "7b")
    assert first.method == "magnitude"
    assert main([*_tiny(tmp_path), "--methods", "magnitude", "wanda", "sparsegpt"]) == 0
    assert timed == ["magnitude", "wanda", "wanda", "sparsegpt"]
    assert rows_of(tmp_path, "7b")[0] == first


def test_no_row_is_begun_once_the_budget_is_spent(tmp_path, capsys):
    assert main([*_tiny(tmp_path, "7b", "contract"), "--budget-seconds", "0"]) == 0
    said = capsys.readouterr()
    assert said.out == "no rows yet\n"
    assert "not started, 0 s are left: LLaMA-7B (tiny) wanda 0.5" in said.err


def test_a_row_that_would_not_end_in_time_is_not_begun(tmp_path, capsys, monkeypatch):
    expected = {"magnitude": 1, "wanda": 10_000}
    monkeypatch.setattr(resident, "expected_seconds", lambda bench, method, rates: expected[method])
    assert main([*_tiny(tmp_path), "--methods", "wanda", "magnitude"]) == 0
    assert [row.method for row in rows_of(tmp_path, "7b")] == ["magnitude"]
    assert "it needs about 10000 s: LLaMA-7B (tiny) wanda 0.5" in capsys.readouterr().err


def test_without_a_gpu_it_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path)]) == 2
    assert "--tiny runs the same" in capsys.readouterr().err


def test_the_stage_of_a_real_model_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.checkpoint.NEEDED", ("json", "no_such_package"))
    assert main([*_tiny(tmp_path, "model")]) == 3
    assert "also needs no_such_package: copy their wheels" in rows_of(tmp_path, "model")[0].detail


def test_timing_needs_neither_pydantic_nor_the_command_line():
    probe = (
        "import sys, tempfile;"
        "sys.modules.update(dict.fromkeys(['pydantic', 'typer', 'lm_eval', 'pandas', 'datasets']));"
        "from benchmarks.gpu.__main__ import main;"
        "asked = ['--tiny', '--stage', '7b', '30b', '--methods', 'wanda', '--out', tempfile.mkdtemp()];"
        "sys.exit(main(asked))"
    )
    done = run_python(probe)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("spoil", "status"), [(0, "ok"), (1, "differs")])
def test_a_kernel_is_held_against_its_twin(tmp_path, monkeypatch, spoil, status):
    def kernel(weight, keep, factor, pattern, start, end):
        errors = solve_block(weight, keep, factor, pattern, start, end)
        keep[:, start : start + spoil] = True
        return errors

    monkeypatch.setattr("benchmarks.gpu.contract.block_solver", lambda weight: kernel)
    main(_tiny(tmp_path, "contract"))
    walks = [row for row in rows_of(tmp_path, "contract") if row.method == "solve_columns"]
    assert {row.status for row in walks} == {status}
    assert all("kernel and twin on cpu, one block: masks agree on" in row.detail for row in walks)


def test_a_prune_that_is_not_repeatable_is_seen(tmp_path, monkeypatch):
    real, tried = contract.build, []

    def other_each_time(name):
        tried.append(name)
        return real("magnitude" if len(tried) % 2 else name)

    monkeypatch.setattr(contract, "build", other_each_time)
    assert main(_tiny(tmp_path, "contract")) == 3
    twice = [
        row
        for row in rows_of(tmp_path, "contract")
        if row.pattern in ("0.5", "2:4") and row.dtype == "bfloat16"
    ]
    assert [row.status for row in twice] == ["differs", "differs"]
    assert all("pruned twice on cpu: masks agree on " in row.detail for row in twice)


def test_rows_of_another_version_are_not_read(tmp_path, capsys):
    (tmp_path / "7b.json").write_text('{"row_version": 1, "setting": {}, "rows": []}')
    for asked in (["--table", str(tmp_path)], _tiny(tmp_path)):
        assert main(asked) == 2
        assert "7b.json holds rows of version 1, expected 2: measure them again" in capsys.readouterr().err


def test_a_profile_names_what_took_long(tmp_path, capsys):
    asked = ["--tiny", "--device", "cpu", "--profile", "wanda", "--patterns", "2:4", "--out", str(tmp_path)]
    assert main(asked) == 0
    table = (tmp_path / "profile-wanda-2of4.txt").read_text()
    assert "aten::mm" in table and "wanda 2:4 on LLaMA-7B (tiny)" in table


@pytest.mark.parametrize("stage", SHAPES)
def test_activations_of_random_weights_stay_finite(stage):
    shape = tiny(SHAPES[stage])
    model = shape.build("cpu")
    logits = model(input_ids=shape.calibration().input_ids).logits
    assert model.dtype == torch.bfloat16
    assert 0.1 < float(logits.detach().float().std()) < 100


def test_weights_are_the_same_every_time():
    shape = tiny(SHAPES["7b"])
    one, other = shape.build("cpu"), shape.build("cpu")
    assert all(torch.equal(p, other.get_parameter(name)) for name, p in one.named_parameters())


@pytest.mark.parametrize("method", ["wanda", "llm-barber"])
def test_layers_that_share_storage_are_pruned_as_layers_that_do_not(method):
    """Of one layer, shared storage is no other storage."""
    shape = tiny(SHAPES["30b"]).with_layers(1)
    model, storage = sharing_model(shape, torch.device("cpu"))
    assert len(read_decoder(model).layers) == 1
    placement = Placement(weights="onload", device=torch.device("cpu"), storage=storage)
    arguments = (parse_pattern("0.5"), shape.calibration())
    shared = build(method).prune(model, *arguments, placement=placement)
    resident_result = build(method).prune(shape.build("cpu"), *arguments)
    assert shared.mask_digest == resident_result.mask_digest


def test_a_stored_layer_is_given_what_was_stored_last():
    model, storage = sharing_model(tiny(SHAPES["30b"]), torch.device("cpu"))
    first, second, third = read_decoder(model).layers
    dense = storage.fetch(third)
    name = next(iter(storage.dense(first)))
    for number, layer in enumerate((first, second), 1):
        storage.store(layer, {name: torch.full_like(dense[name], number)})
    for layer in (first, second):
        found = storage.fetch(layer)
        assert bool((found.pop(name) == 2).all())
        assert all(torch.equal(value, dense[other]) for other, value in found.items())
    assert torch.equal(storage.fetch(third)[name], dense[name])
    storage.restore_dense()
    assert torch.equal(storage.fetch(first)[name], dense[name])


def _tiny(folder, *stages):
    return [
        *("--tiny", "--device", "cpu", "--stage", *(stages or ("7b",))),
        *("--patterns", "0.5", "--out", str(folder)),
    ]
