"""Outputs that overflow float32 cost a number of the report, and neither the checkpoint nor the record."""

import json

import pytest
from safetensors.torch import load_file, save_file

from suite.results import ResultStore
from tests.tiny import write_suite

FAILS = {"sparsegpt": "o_proj: its SparseGPT scores", "llm-barber": "q_proj: its gradients"}
FINISHES = ["magnitude", "wanda", "ria", "dsnot"]


def enlarge(folder):
    """Multiplies the projections of a stored model: its outputs are finite, their squares are not."""
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if "_proj." in name:
            tensor.mul_(1e15)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def modules(folder):
    text = (folder / "pruned" / "pruning.json").read_text()
    told = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return {module["module"]: module for module in told["record"]["modules"]}


@pytest.mark.parametrize("placement", ["resident", "onload"])
@pytest.mark.parametrize(
    "method", [*FINISHES, "llm-barber --set score=weight", "wanda --allocation owl"], ids=lambda m: m
)
def test_the_checkpoint_is_written_and_its_report_says_what_is_missing(
    prune, model, tmp_path, method, placement
):
    enlarge(model)
    code, _, err = prune("--method", *method.split(), "--sparsity", "0.5", "--placement", placement)
    assert code == 0, err
    assert (tmp_path / "pruned" / "config.json").exists()
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        module = modules(tmp_path)[f"model.layers.0.self_attn.{name}"]
        assert module["error_after"] is None
        said = [warning for warning in module["warnings"] if "output error is not finite" in warning]
        assert len(said) == (0 if method == "magnitude" else 1)
        assert all("overflow float32" in warning for warning in said)


@pytest.mark.parametrize("placement", ["resident", "onload"])
@pytest.mark.parametrize("method", FAILS)
def test_scores_that_overflow_end_in_one_line_and_leave_nothing(prune, model, tmp_path, method, placement):
    enlarge(model)
    before = set(tmp_path.iterdir())
    code, _, err = prune("--method", method, "--sparsity", "0.5", "--placement", placement)
    assert code == 3
    assert f"prunebench: model.layers.0.self_attn.{FAILS[method]}" in err.splitlines()[-1]
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("placement", ["resident", "onload"])
def test_a_record_holds_none_and_the_warning(prunebench, tmp_path, placement):
    suite = write_suite(tmp_path, methods="wanda dsnot sparsegpt", patterns=["0.5"])
    enlarge(tmp_path / "model")
    code, _, err = prunebench("run", suite, "--out", "runs", "--placement", placement)
    assert code == 3, err
    stored = ResultStore(tmp_path / "runs").records()
    assert not stored.unreadable
    records = {s.record.cell.method: s.record for s in stored.records}
    assert records["sparsegpt"].failure.error == "NonFiniteError"
    for method in ("wanda", "dsnot"):
        record = records[method]
        assert record.status == "complete", record.failure
        first = record.modules[0]
        assert first.error_after is None
        assert any("output error is not finite" in warning for warning in first.warnings)
        assert any(
            warning.startswith(f"{first.module}: ") and "output error is not finite" in warning
            for warning in record.warnings
        )
