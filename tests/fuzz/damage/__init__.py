"""Damages or decorates a valid model folder at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError

from tests.fuzz.damage import config, files, tensors, tokenizer
from tests.fuzz.damage.base import Damaged, bases, write_bases

KINDS: Mapping[str, Callable[[Damaged], str]] = {
    "tensor dropped": tensors.drop_tensor,
    "tensor added": tensors.add_tensor,
    "tensor renamed": tensors.rename_tensor,
    "tensor retyped": tensors.retype_tensor,
    "all tensors retyped": tensors.retype_all,
    "tensor reshaped": tensors.reshape_tensor,
    "tensor transposed": tensors.transpose_tensor,
    "tensor duplicated": tensors.duplicate_tensor,
    "values of a tensor": tensors.spoil_values,
    "values of all tensors": tensors.spoil_all_values,
    "config flag": config.config_flag,
    "config value": config.config_value,
    "config type": config.config_type,
    "config key dropped": config.config_drop,
    "other config": config.config_other,
    "JSON file": files.spoil_json,
    "no tokenizer": tokenizer.no_tokenizer,
    "other tokenizer": tokenizer.other_tokenizer,
    "tokenizer value": tokenizer.tokenizer_value,
    "tokenizer.json": tokenizer.tokenizer_json,
    "beside the tokenizer": tokenizer.tokenizer_extra,
    "generation config": config.generation_config,
    "weight file": files.spoil_weight_file,
    "index": files.spoil_index,
    "layout": files.other_layout,
    "extra file": files.extra_files,
    "no plain file": files.other_kind_of_file,
}
"""Each kind of damage, and what does it and says what it did."""

WEIGHTS = {"config flag": 2, "config value": 5, "config type": 3, "JSON file": 2, "tokenizer value": 2}
"""How much more often than others those come up that have many variants."""


def damage(folder: Path, chance: random.Random, kinds: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Damages a model's folder once to three times.

    Args:
        folder: the model's.
        chance: decides what is damaged, and how.
        kinds: the kinds of damage that may be done; none = all of them.

    Returns:
        Kind and description of each damage. One that no longer applies after those before it is left out.
    """
    at = Damaged(folder, chance)
    kinds = kinds or list(KINDS)
    done: list[tuple[str, str]] = []
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3])):
        kind = chance.choices(kinds, [WEIGHTS.get(kind, 1) for kind in kinds])[0]
        try:
            done.append((kind, KINDS[kind](at)))
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError):
            continue  # an earlier damage left nothing that it could work on
    return done


__all__ = ["KINDS", "bases", "damage", "write_bases"]
