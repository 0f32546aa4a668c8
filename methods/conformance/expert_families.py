"""Mixture-of-experts families: experts are stacked in 3-D parameters, and routers are never pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from methods.conformance.family import POSITIONS, VOCABULARY, Family, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EXPERTS = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "num_experts_per_tok": 2,
}
_ATTENTION = Weights("model.layers.*.self_attn.*_proj.weight")
_STACKED = Weights("model.layers.*.mlp.experts.*_proj")

STARVED_EXPERT = 4
"""The expert of `qwen3-moe` that no token is ever routed to."""


def _starve_one_expert(model: PreTrainedModel) -> None:
    """Makes sure that expert 4 of every layer is never chosen.

    The router rows of experts 0 and 1 are opposite, as are those of experts 2 and 3, so that in each pair one
    logit is above 0. The logit of expert 4 is always 0, and two experts are chosen.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter[1] = -parameter[0]
                parameter[3] = -parameter[2]
                parameter[STARVED_EXPERT] = 0


EXPERT_FAMILIES = (
    Family(
        "mixtral",
        "4 experts stacked in two 3-D parameters, gate and up in the same one",
        "mixtral",
        {**_EXPERTS, "num_local_experts": 4},
        (_ATTENTION, _STACKED),
    ),
    Family(
        "qwen2-moe",
        "the first layer is dense; the second has experts, and a shared expert with a separate gate",
        "qwen2_moe",
        {
            **_EXPERTS,
            "num_experts": 4,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 32,
            "mlp_only_layers": [0],
        },
        (
            _ATTENTION,
            _STACKED,
            Weights("model.layers.*.mlp.shared_expert.*_proj.weight"),
            Weights("model.layers.0.mlp.*_proj.weight"),
        ),
    ),
    Family(
        "qwen3-moe",
        "one of six experts never gets a token",
        "qwen3_moe",
        {**_EXPERTS, "num_experts": 6, "moe_intermediate_size": 16},
        (_ATTENTION, _STACKED),
        _starve_one_expert,
    ),
    Family(
        "gpt-oss",
        "experts are stored as [in, out] and have biases; gate and up alternate; attention has sinks",
        "gpt_oss",
        {
            **_EXPERTS,
            "num_local_experts": 4,
            "sliding_window": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        (_ATTENTION, Weights("model.layers.*.mlp.experts.*_proj", "in_out")),
    ),
)

__all__ = ["EXPERT_FAMILIES", "STARVED_EXPERT"]
