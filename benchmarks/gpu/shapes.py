"""Models of known shapes with random weights, created directly on their device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from methods.base import CalibrationSet

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

SEED = 17

_LLAMA = {"vocab_size": 32000, "max_position_embeddings": 2048}
_TINY = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 128}


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, and of its calibration set.

    Attributes:
        name: name in the rows.
        model_type: its name in transformers.
        config: arguments of its configuration.
        n_samples: number of calibration sequences.
        seqlen: tokens per sequence.
        dtype: dtype of the weights.
    """

    name: str
    model_type: str
    config: Mapping[str, Any] = field(repr=False)
    n_samples: int = 128
    seqlen: int = 2048
    dtype: torch.dtype = torch.bfloat16

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return int(self.config["num_hidden_layers"])

    def with_layers(self, n_layers: int) -> Shape:
        """Returns the shape with fewer decoder layers."""
        return replace(self, config={**self.config, "num_hidden_layers": n_layers})

    def calibration(self) -> CalibrationSet:
        """Returns random tokens, the same each time."""
        generator = torch.Generator().manual_seed(SEED)
        tokens = torch.randint(self.config["vocab_size"], (self.n_samples, self.seqlen), generator=generator)
        return CalibrationSet(tokens, "random tokens", SEED)

    def build(self, device: torch.device | str) -> PreTrainedModel:
        """Builds the model on `device`, in evaluation mode; on the meta device without values."""
        config: Any = AutoConfig.for_model(self.model_type, **self.config)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=self.dtype)
        if torch.device(device).type != "meta":
            fill(model)
        return cast("PreTrainedModel", model.eval())


def fill(module: nn.Module) -> None:
    """Fills every matrix with random weights, the same each time; biases with 0, norms with 1.

    A matrix `[out, in]` has standard deviation 1 / sqrt(in), so that an input of unit variance, as produced
    by every norm, gives an output of unit variance, and nothing overflows even in deep models.
    """
    with torch.no_grad():
        for index, (name, parameter) in enumerate(module.named_parameters()):
            if parameter.ndim >= 2:
                generator = torch.Generator(parameter.device).manual_seed(SEED + index)
                spread = 1.0 if "embed" in name else parameter.shape[-1] ** -0.5
                parameter.normal_(0, spread, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def _llama(name: str, hidden: int, inner: int, layers: int, heads: int, kv_heads: int | None = None) -> Shape:
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or heads,
    }
    return Shape(name, "llama", {**_LLAMA, **sizes})


SHAPES = {
    "7b": _llama("LLaMA-7B", 4096, 11008, 32, 32),
    "13b": _llama("LLaMA-13B", 5120, 13824, 40, 40),
    "opt": Shape(
        "OPT-6.7B",
        "opt",
        {
            "vocab_size": 50272,
            "max_position_embeddings": 2048,
            "hidden_size": 4096,
            "ffn_dim": 16384,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "word_embed_proj_dim": 4096,
        },
    ),
    "30b": _llama("LLaMA-30B", 6656, 17920, 60, 52),
    "70b": _llama("LLaMA-2-70B", 8192, 28672, 80, 64, 8),
}
"""Shapes by stage."""


def tiny(shape: Shape) -> Shape:
    """Returns a small shape of the same family for any machine; it runs exactly the same code."""
    small: dict[str, Any] = {
        **_TINY,
        "max_position_embeddings": 64,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    if shape.model_type == "opt":
        small |= {"ffn_dim": 160, "word_embed_proj_dim": 64}
    else:
        fewer = shape.config["num_key_value_heads"] < shape.config["num_attention_heads"]
        small |= {"intermediate_size": 160, "num_key_value_heads": 2 if fewer else 4}
    return Shape(f"{shape.name} (tiny)", shape.model_type, small, n_samples=4, seqlen=32)


__all__ = ["SHAPES", "Shape", "fill", "tiny"]
