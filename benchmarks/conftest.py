"""The model of the benchmarks, and the comparison of a time with its floor and a plain implementation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from methods.base import CalibrationSet

N_SAMPLES, SEQLEN = 8, 256


@pytest.fixture(scope="session")
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="session")
def calibration() -> CalibrationSet:
    generator = torch.Generator().manual_seed(1)
    return CalibrationSet(torch.randint(4096, (N_SAMPLES, SEQLEN), generator=generator), "random tokens")


@dataclass(frozen=True)
class Judge:
    """Compares the time of a benchmark with its floors; prints and stores the result."""

    benchmark: Any

    def compare(
        self,
        name: str,
        floor_seconds: float,
        plain: Callable[[], object],
        *,
        strict_seconds: float | None = None,
        before_plain: Callable[[], object] = lambda: None,
    ) -> None:
        """Times `plain` once after a warm-up run, and compares the benchmark's median with it and the floors.

        Args:
            name: what was timed.
            floor_seconds: the floor of the benchmark.
            plain: does the same work without optimizations.
            strict_seconds: the strict floor, if there is one.
            before_plain: called before each run of `plain`, not timed.
        """
        # Without --benchmark-enable only results are compared, because there are no times.
        timed = bool(self.benchmark.stats)
        if timed:
            before_plain()
            plain()
        before_plain()
        start = time.perf_counter()
        plain()
        plain_seconds = time.perf_counter() - start
        if not timed:
            return
        median = self.benchmark.stats.stats.median
        self.benchmark.extra_info |= {
            "floor_seconds": floor_seconds,
            "ratio_to_floor": median / floor_seconds,
            "plain_seconds": plain_seconds,
            "ratio_to_plain": median / plain_seconds,
        }
        floors = f"floor {floor_seconds:.3g} s, ratio {median / floor_seconds:.2f}"
        if strict_seconds is not None:
            self.benchmark.extra_info |= {
                "strict_floor_seconds": strict_seconds,
                "ratio_to_strict_floor": median / strict_seconds,
            }
            floors += f"; strict floor {strict_seconds:.3g} s, ratio {median / strict_seconds:.2f}"
        print(
            f"\n{name}: {median:.4g} s, {floors}; "
            f"plain {plain_seconds:.4g} s, {plain_seconds / median:.1f} times as long"
        )


@pytest.fixture
def judge(benchmark: Any) -> Judge:
    return Judge(benchmark)
