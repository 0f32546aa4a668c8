"""Masks of two types are held against each other bit by bit."""

import json
import math

import pytest
import torch

from benchmarks.precision import agreement, compared, main
from methods.base import PruneResult
from methods.errors import InputError
from methods.masks.keep_mask import KeepMask
from tests.tiny import save_tiny_model, write_text


def result(**masks: list[bool]) -> PruneResult:
    return PruneResult({name: KeepMask.pack(torch.tensor(mask)) for name, mask in masks.items()}, (), {})


def test_agreement_is_the_share_of_all_weights():
    one = result(a=[True] * 6, b=[True, False, True, False])
    other = result(a=[True] * 6, b=[False, True, True, False])
    assert agreement(one, other) == pytest.approx(0.8)
    assert agreement(one, one) == 1


def test_other_models_cannot_be_compared():
    with pytest.raises(InputError, match="different models"):
        agreement(result(a=[True]), result(b=[True]))


def test_the_difference_is_paired_over_windows():
    """What all windows share cancels: the error is that of the differences, by hand."""
    masks = (result(a=[True, False]), result(a=[True, True]))
    in_fp32 = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    row = compared("wanda", "0.5", masks, (in_fp32, in_fp32 + torch.tensor([0.01, 0.02, 0.03])))
    assert row.perplexity_fp32 == pytest.approx(math.exp(3))
    assert row.log_difference == pytest.approx(0.02)
    assert row.standard_error == pytest.approx(0.01 / math.sqrt(3), rel=1e-5)
    assert row.change == pytest.approx(row.perplexity_bf16 / row.perplexity_fp32 - 1)
    assert row.change_error == pytest.approx(math.exp(0.02) * row.standard_error)
    assert row.agreement == 0.5


def test_a_single_window_has_no_error():
    masks = (result(a=[True]), result(a=[True]))
    row = compared("wanda", "0.5", masks, (torch.tensor([1.0]), torch.tensor([1.5])))
    assert (
        row.log_difference == pytest.approx(0.5) and row.standard_error is None and row.change_error is None
    )


def test_a_model_is_pruned_in_both_types(tmp_path, capsys):
    texts = write_text(tmp_path / "text.txt")
    model = save_tiny_model(tmp_path / "model")
    asked = ["--n-samples", "4", "--seqlen", "16", "--calibration", str(texts), "--evaluation", str(texts)]
    out = tmp_path / "runs" / "precision.json"
    assert main([str(model), *asked, "--methods", "wanda", "--windows", "5", "--out", str(out)]) == 0
    made = json.loads(out.read_text())
    (row,), protocol = made["rows"], made["protocol"]
    assert row["agreement"] > 0.9
    assert row["perplexity_bf16"] == pytest.approx(row["perplexity_fp32"], rel=0.05)
    assert abs(row["log_difference"]) < 0.05 and row["standard_error"] > 0
    assert protocol == {
        "perplexity": "text.txt-token-s16",
        "n_windows": 5,
        "window_tokens": 16,
        "calibration": "text.txt",
        "n_samples": 4,
        "sample_tokens": 16,
        "n_weights": 4608,
        "better": "lower",
    }
    said = capsys.readouterr().out
    assert "text.txt-token-s16, n = 5 windows of 16 tokens, in fp32, lower is better" in said
    assert "4 x 16 = 64 tokens" in said
    assert "| wanda | 0.5 |" in said and " ± " in said
    assert str(tmp_path) not in said + out.read_text()


def test_a_model_that_does_not_exist_is_one_line(capsys):
    assert main(["nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
