"""Whether a model's files hold what its config.json describes: refused, or remarked, before anything runs.

What the library would load without a word and compute something else from: quantized weights, an adapter
beside the model, tensors that the model has no place for, values that are no numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from methods.tensor_files import TensorFiles


@dataclass(frozen=True)
class WeightFormat:
    """A way to store weights that can be read.

    Attributes:
        name: as `quantization_config.quant_method` of a config.json has it; `plain` where there is none.
        description: one line.
    """

    name: str
    description: str


FORMATS = (
    WeightFormat("plain", "safetensors in float64, float32, float16 or bfloat16"),
    WeightFormat("gguf", "of the built-in model: dequantized to float32 when its folder is built"),
)
"""All formats that can be read. Weights in any other are refused, wherever a model is named."""

ADAPTER = "adapter_config.json"
NAMED = 6
"""So many tensors are named in a remark."""

_CONSTANTS = re.compile(
    r"(^|\.)(masked_bias|(original_)?inv_freq|(cos|sin)_cached|freqs_cis|position_ids|attn\.bias|attention\.bias)$"
)
"""Buffers that earlier code stored and today's computes: they hold nothing that was learned."""


def check_config(folder: Path, name: str) -> None:
    """Refuses what config.json and its neighbours give away; no weight is looked at.

    Args:
        folder: the model's.
        name: what the user calls it.

    Raises:
        InputError: its weights are quantized, an adapter lies beside it, or its weights have another name.
    """
    if (folder / ADAPTER).is_file():
        raise InputError(
            f"model {name!r} has an adapter beside it ({ADAPTER}): merge the two (peft's merge_and_unload) "
            "and save the result, or take the adapter's files away"
        )
    config = _config(folder)
    if (method := _quantization(config)) is not None and method not in {known.name for known in FORMATS}:
        raise _quantized(name, f"quant_method {method!r} in its config.json")
    if (weights := config.get("transformers_weights")) is not None:
        raise InputError(
            f"model {name!r}: its config.json takes the weights from {weights!r} (transformers_weights): "
            "call that file model.safetensors and drop the key"
        )


def check_dtypes(files: TensorFiles, name: str) -> None:
    """Refuses weights in 8 bits or fewer, which no config.json needs to mention.

    Raises:
        InputError: names the first of them.
    """
    for tensor, stored in files.stored.items():
        if stored.dtype.is_floating_point and stored.dtype.itemsize < 2:
            raise _quantized(name, f"{tensor} is stored as {_short(stored.dtype)}")


def check_tensors(
    model: nn.Module, files: TensorFiles, loading: Mapping[str, Iterable[Any]], name: str
) -> tuple[str, ...]:
    """Holds the tensors of a model's files against the model that its config.json describes.

    Args:
        model: the model; its values are not looked at.
        files: what is stored.
        loading: the library's account of loading it: `missing_keys` and `unexpected_keys`, less those that
            the architecture itself lists as ignorable.
        name: what the user calls it.

    Returns:
        What a reader should know, one sentence each: which tensors were left out.

    Raises:
        InputError: weights are quantized or missing, or a module that the model has is stored with more than
            it takes, so that the model is another one than was trained.
    """
    parameters = dict(model.named_parameters())
    buffers = {buffer for buffer, _ in model.named_buffers()}
    missing = sorted(loading["missing_keys"])
    left_out = sorted(key for key in loading["unexpected_keys"] if not buffers & _spellings(key, model))
    for tensor, stored in files.stored.items():
        if stored.dtype.is_floating_point:
            continue
        takes = [parameters[key] for key in _spellings(tensor, model) if key in parameters]
        if tensor in left_out or any(weight.dtype.is_floating_point for weight in takes):
            raise _quantized(name, f"{tensor} is stored as {_short(stored.dtype)}")
    if missing:
        # transformers fills them with random numbers and prints a warning, which we have silenced.
        raise InputError(f"model {name!r} lacks {len(missing)} of its weights, {missing[0]} for one")
    modules = dict(model.named_modules())
    for key in left_out:
        owner = next(filter(None, (_owner(spelt, modules) for spelt in _spellings(key, model))), None)
        if owner is not None and not _CONSTANTS.search(key):
            raise InputError(
                f"model {name!r}: its files hold {key}, and {owner} takes no such tensor: its config.json "
                "describes another model than was stored"
            )
    return (_left_out(left_out),) if left_out else ()


def check_finite(weights: Iterable[tuple[str, Tensor]], name: str) -> Iterator[tuple[str, Tensor]]:
    """Passes weights with their names on, and refuses the first that holds NaN or infinity.

    Raises:
        InputError: names it.
    """
    import torch

    for tensor, weight in weights:
        # The sum of finite numbers may overflow, but one of them that is not finite always shows in it.
        if not bool(torch.isfinite(weight.sum(dtype=torch.float32))):
            n_bad = weight.numel() - int(torch.isfinite(weight).sum())
            if n_bad:
                raise InputError(
                    f"model {name!r}: {tensor} holds {n_bad} values that are NaN or infinite as "
                    f"{_short(weight.dtype)}, and what is computed from them would be too"
                )
        yield tensor, weight


def _config(folder: Path) -> dict[str, Any]:
    """config.json as it stands; empty where it is damaged, which loading it will say."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _quantization(config: Mapping[str, Any]) -> str | None:
    """What quantized the weights, by the configuration or that of one of its parts; None if nothing did."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in ("quantization_config", "compression_config"):
            if (found := part.get(key)) is not None:
                method = found.get("quant_method") if isinstance(found, dict) else found
                return str(method or "not named")
    return None


def _quantized(name: str, why: str) -> InputError:
    return InputError(
        f"model {name!r} is quantized ({why}), and only dense floating-point weights can be pruned and "
        "measured: dequantize it, and save it in bfloat16 or float32"
    )


def _spellings(key: str, model: nn.Module) -> set[str]:
    """A tensor's possible names in the model: files may leave out the name of the model's body, or add it."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return {key, prefix + key, key.removeprefix(prefix)} if prefix != "." else {key}


def _owner(key: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The module that a tensor belongs into: part of a layer, or one with parameters; None where none is."""
    module = key
    while "." in module:
        module = module.rpartition(".")[0]
        if module in modules:
            in_layer = any(part.isdigit() for part in module.split("."))
            computes = next(modules[module].parameters(recurse=False), None) is not None
            return module if in_layer or computes else None
    return None


def _left_out(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return (
        f"{len(keys)} tensors of its files have no place in the model that config.json describes and were "
        f"left out: {', '.join(keys[:NAMED])}{more}"
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


__all__ = [
    "ADAPTER",
    "FORMATS",
    "WeightFormat",
    "check_config",
    "check_dtypes",
    "check_finite",
    "check_tensors",
]
