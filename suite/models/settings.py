"""Resets settings that change what a forward or `generate` returns, while a model is pruned and measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.models.files import GENERATION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PLAIN_OUTPUTS = {
    "output_attentions": False,
    "output_hidden_states": False,
    "output_router_logits": False,
    "return_dict": True,
    "is_encoder_decoder": False,
}


_PLAIN_GENERATION = {
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    "return_dict_in_generate": False,
    "num_return_sequences": 1,
    "max_new_tokens": None,
    "min_new_tokens": None,
}
"""Plain values of settings that change what `generate` returns or how much it computes, or install hooks."""


def set_aside_flags(model: PreTrainedModel) -> None:
    """Makes `model` return what models return by default, whatever its configurations say.

    `restore_flags` writes the model's original settings into a saved checkpoint.
    """
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    for config in configs.values():
        _set(config, _PLAIN_OUTPUTS)
    if model.generation_config is not None:
        _set(model.generation_config, _PLAIN_GENERATION)
        # The library refuses to save an invalid generation config that was changed since it was loaded.
        model.generation_config._original_object_hash = hash(model.generation_config)


def _set(config: Any, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if getattr(config, name, None) not in (None, value):
            setattr(config, name, value)


def restore_flags(original: Path, written: Path) -> None:
    """Restores the settings that `set_aside_flags` changed, from folder `original` into folder `written`."""
    for file, names in (("config.json", _PLAIN_OUTPUTS), (GENERATION, _PLAIN_GENERATION)):
        if (original / file).is_file() and (written / file).is_file():
            source = json.loads((original / file).read_text(encoding="utf-8"))
            target = json.loads((written / file).read_text(encoding="utf-8"))
            if _copied(source, target, names):
                (written / file).write_text(json.dumps(target, indent=2) + "\n", encoding="utf-8")


def _copied(source: dict[str, Any], target: dict[str, Any], names: Iterable[str]) -> bool:
    """Copies settings of these names, also in nested configurations; returns whether any value changed."""
    changed = False
    for name in names:
        if name in source and target.get(name) != source[name]:
            target[name], changed = source[name], True
    for key in source.keys() & target.keys():
        if isinstance(source[key], dict) and isinstance(target[key], dict):
            changed |= _copied(source[key], target[key], names)
    return changed


__all__ = ["restore_flags", "set_aside_flags"]
