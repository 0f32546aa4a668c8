"""Small valid model folders, and what damages one at random."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedConfig,
)

from tests.tiny import byte_tokenizer

CONFIG, GENERATION = "config.json", "generation_config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
N_TOKENS, N_POSITIONS = 264, 128

T = TypeVar("T")


def bases() -> dict[str, PreTrainedConfig]:
    """The configuration of each valid model, two layers of hidden size 32.

    The weights are drawn ten times wider than usual: at the usual width all tokens are about equally likely,
    and no damage to a layer would show in the perplexity.
    """
    tokens: dict[str, Any] = {
        "vocab_size": N_TOKENS,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.2,
    }
    llama = {**tokens, **sizes, "intermediate_size": 64, "max_position_embeddings": N_POSITIONS}
    llama |= {"num_key_value_heads": 2, "tie_word_embeddings": False}
    opt = {**tokens, "hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "ffn_dim": 64}
    opt |= {"num_attention_heads": 4, "max_position_embeddings": N_POSITIONS, "init_std": 0.2}
    gpt2 = {**tokens, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": N_POSITIONS}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return {
        "llama": LlamaConfig(**llama),
        "llama-tied": LlamaConfig(**{**llama, "tie_word_embeddings": True}),
        "llama-sharded": LlamaConfig(**llama),
        "opt": OPTConfig(**opt),
        "gpt2": GPT2Config(**gpt2, initializer_range=0.2),
        "mixtral": MixtralConfig(**{**llama, **experts}),
    }


def write_bases(folder: Path) -> None:
    """Writes each valid model with a tokenizer of one token a byte into a folder of its name."""
    for name, config in bases().items():
        torch.manual_seed(0)
        sharded = {"max_shard_size": "60KB"} if name == "llama-sharded" else {}
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name, **sharded)
        byte_tokenizer().save_pretrained(folder / name)


@dataclass(frozen=True)
class Damaged:
    """A folder and the source of chance with which it is damaged.

    Attributes:
        folder: the model's.
        chance: decides what is damaged, and how.
    """

    folder: Path
    chance: random.Random

    def pick(self, values: Iterable[T]) -> T:
        """One of `values`, whatever their types."""
        return self.chance.choice(list(values))

    @property
    def weight_files(self) -> list[Path]:
        """The model's files of weights, in the order of names."""
        return sorted(path for path in self.folder.glob("model*.safetensors") if path.is_file())

    def change_tensors(self, change: Callable[[dict[str, Tensor]], str]) -> str:
        """Changes the tensors of one file of weights; an index, if there is one, mostly follows."""
        path = self.pick(self.weight_files)
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        told = change(tensors)
        save_file({k: t.contiguous() for k, t in tensors.items()}, path, metadata={"format": "pt"})
        if (index := self.folder / INDEX).is_file() and self.chance.random() < 0.7:
            content = json.loads(index.read_text())
            kept = {k: shard for k, shard in content["weight_map"].items() if shard != path.name}
            content["weight_map"] = kept | dict.fromkeys(tensors, path.name)
            index.write_text(json.dumps(content))
        return told

    def set_key(self, file: str, key: str, value: Any) -> str:
        """Gives a key of a JSON file a value; see `change_json`."""

        def change(content: dict[str, Any]) -> str:
            content[key] = value
            return f"{key} is {json.dumps(value)}"

        return self.change_json(file, change)

    def change_json(self, name: str, change: Callable[[dict[str, Any]], str]) -> str:
        """Changes a JSON file, which need not exist."""
        path = self.folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        told = change(content)
        path.write_text(json.dumps(content, indent=1))
        return f"{name}: {told}"
