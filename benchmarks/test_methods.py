"""Each method's time against the forwards it cannot do without."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from methods.base import CalibrationSet, Placement
from methods.contract import dense_weights
from methods.pattern import parse_pattern
from methods.registry import build
from suite.evaluation.efficiency import machine_floor

FORWARDS = {"magnitude": 0, "wanda": 2, "sparsegpt": 2, "llm-barber": 7}
"""Decoder forwards that a method needs: one to gather and one to move on, and for LLM-Barber from Wanda five
forward-equivalents more (sparse, dense, backward, weight gradients, rebuilt)."""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def calibration():
    return CalibrationSet(torch.randint(1024, (16, 512)), "random tokens")


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
@pytest.mark.parametrize("name", list(FORWARDS))
def test_prune(benchmark, model, calibration, name, pattern):
    dense = dense_weights(model)
    method = build(name)

    def restore():
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.copy_(dense[key])

    benchmark.pedantic(
        lambda: method.prune(model, parse_pattern(pattern), calibration),
        setup=restore,
        rounds=3,
        warmup_rounds=1,
    )
    restore()
    forward = calibration.input_ids.numel() / machine_floor(model, Placement()).forward_tokens_per_second
    benchmark.extra_info["floor_seconds"] = FORWARDS[name] * forward
    if FORWARDS[name] and benchmark.stats:
        ratio = benchmark.stats.stats.median / (FORWARDS[name] * forward)
        benchmark.extra_info["ratio_to_floor"] = ratio
        print(f"\n{name} {pattern}: {benchmark.stats.stats.median:.2f} s, {ratio:.2f} x floor")
