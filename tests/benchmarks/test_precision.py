"""Masks of two types are held against each other bit by bit."""

import json

import pytest
import torch

from benchmarks.precision import agreement, main
from methods.base import KeepMask, PruneResult
from methods.errors import InputError
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


def test_a_model_is_pruned_in_both_types(tmp_path, capsys):
    texts = write_text(tmp_path / "text.txt")
    model = save_tiny_model(tmp_path / "model")
    asked = ["--n-samples", "4", "--seqlen", "16", "--calibration", str(texts), "--evaluation", str(texts)]
    out = tmp_path / "runs" / "precision.json"
    assert main([str(model), *asked, "--methods", "wanda", "--out", str(out)]) == 0
    row = json.loads(out.read_text())["rows"][0]
    assert row["agreement"] > 0.9
    assert row["perplexity_bf16"] == pytest.approx(row["perplexity_fp32"], rel=0.05)
    assert "| wanda | 0.5 |" in capsys.readouterr().out


def test_a_model_that_does_not_exist_is_one_line(capsys):
    assert main(["nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
