"""Measures tokens per second: reading a prompt at once, and generating an answer token by token."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from methods.base import PhaseClock

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from suite.cell import SpeedSpec

REPEATS = 3


@dataclass(frozen=True)
class Speed:
    """Rates in tokens per second for one sequence at a time, one value per repeat.

    Attributes:
        prefill: rates of reading the prompt.
        generation: rates of generating tokens after it one by one, with the cache of keys and values.
    """

    prefill: tuple[float, ...]
    generation: tuple[float, ...]


@torch.inference_mode()
def measure_speed(model: PreTrainedModel, spec: SpeedSpec) -> Speed:
    """Times `model` on random tokens: one run for warming up, then `REPEATS` runs that count.

    Args:
        model: a causal language model in evaluation mode.
        spec: how many tokens are read and generated.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    shape = (1, spec.prompt_tokens + spec.new_tokens)
    tokens = torch.randint(vocabulary, shape, generator=generator).to(model.device)
    runs = [_once(model, tokens, spec.prompt_tokens) for _ in range(1 + REPEATS)][1:]
    return Speed(
        prefill=tuple(spec.prompt_tokens / read for read, _ in runs),
        generation=tuple(spec.new_tokens / written for _, written in runs),
    )


def _once(model: PreTrainedModel, tokens: torch.Tensor, n_prompt: int) -> tuple[float, float]:
    """Returns the seconds of reading and of generating."""
    # Only the last position's logits are needed; most families can leave the others out.
    known = inspect.signature(model.forward).parameters
    last_only: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    clock = PhaseClock(device=model.device)
    with clock.phase("read"):
        output = model(input_ids=tokens[:, :n_prompt], use_cache=True, **last_only)
    with clock.phase("write"):
        for place in range(n_prompt, tokens.shape[1]):
            output = model(
                input_ids=tokens[:, place : place + 1], past_key_values=output.past_key_values, use_cache=True
            )
    return clock.seconds["read"], clock.seconds["write"]


__all__ = ["REPEATS", "Speed", "measure_speed"]
