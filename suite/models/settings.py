"""Settings that change what a forward or `generate` returns: set aside while a model is measured."""

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
"""Settings that change what a forward or `generate` returns, how much it does, or install hooks."""


def set_aside_flags(model: PreTrainedModel) -> None:
    """Makes `model` return what models return by default, whatever its configurations ask for.

    `restore_flags` gives a checkpoint the settings that the model came with.
    """
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    for config in configs.values():
        _set(config, _PLAIN_OUTPUTS)
    if model.generation_config is not None:
        _set(model.generation_config, _PLAIN_GENERATION)
        # The library refuses to save an invalid one that was changed since it was loaded, as this one is.
        model.generation_config._original_object_hash = hash(model.generation_config)


def _set(config: Any, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if getattr(config, name, None) not in (None, value):
            setattr(config, name, value)


def restore_flags(original: Path, written: Path) -> None:
    """Gives the configurations in a written folder what `set_aside_flags` changed, as `original` has it."""
    for file, names in (("config.json", _PLAIN_OUTPUTS), (GENERATION, _PLAIN_GENERATION)):
        if (original / file).is_file() and (written / file).is_file():
            source = json.loads((original / file).read_text(encoding="utf-8"))
            target = json.loads((written / file).read_text(encoding="utf-8"))
            if _copied(source, target, names):
                (written / file).write_text(json.dumps(target, indent=2) + "\n", encoding="utf-8")


def _copied(source: dict[str, Any], target: dict[str, Any], names: Iterable[str]) -> bool:
    """Copies settings of these names, in nested configurations too; whether any was another one."""
    changed = False
    for name in names:
        if name in source and target.get(name) != source[name]:
            target[name], changed = source[name], True
    for key in source.keys() & target.keys():
        if isinstance(source[key], dict) and isinstance(target[key], dict):
            changed |= _copied(source[key], target[key], names)
    return changed


__all__ = ["restore_flags", "set_aside_flags"]
