"""Whether a model's files hold what its config.json describes: refused, or remarked, before anything runs.

What the library would load without a word and compute something else from: quantized weights, an adapter
beside the model, tensors that the model has no place for, values that are no numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from methods.placement.tensor_files import TensorFiles


@dataclass(frozen=True)
class WeightFormat:
    """A way to store weights that can be read.

    Attributes:
        name: what people call it.
        quant_method: what a config.json says of it in `quantization_config`; None where it says nothing.
        description: one line.
    """

    name: str
    quant_method: str | None
    description: str


FORMATS = (
    WeightFormat("safetensors", None, "float64, float32, float16 or bfloat16"),
    WeightFormat("GGUF", None, "of the built-in model alone, dequantized when its folder is built"),
)
"""All formats that can be read. Weights in any other are refused, wherever a model is named."""

ADAPTER = "adapter_config.json"
GENERATION = "generation_config.json"
NAMED = 6
"""So many tensors are named in a remark."""

_SIZES = {
    *(
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "head_dim",
    ),
    *(
        "num_key_value_heads",
        "ffn_dim",
        "n_embd",
        "n_layer",
        "n_head",
        "n_inner",
        "d_model",
        "n_heads",
        "n_layers",
    ),
}
"""Settings that stand for a number of something, as most families call them."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTED_TO = (".json", ".safetensors", ".model", ".txt", ".jinja", ".py")
_CONSTANTS = re.compile(
    r"(^|\.)(masked_bias|causal_mask|attn\.bias|attention\.bias|(original_)?inv_freq|(cos|sin)_cached|freqs_cis"
    r"|position_ids|num_batches_tracked)$"
)
"""Buffers that earlier code stored and today's computes, or does not need: nothing in them was learned."""


def check_config(folder: Path, name: str) -> None:
    """Refuses what config.json and its neighbours give away; no weight is looked at.

    Args:
        folder: the model's.
        name: what the user calls it.

    Raises:
        InputError: a file is a Git LFS pointer or no JSON, a size is negative, its weights are quantized, an
            adapter lies beside it, or its weights have another name.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in _POINTED_TO and path.is_file() and _is_pointer(path, name):
            raise InputError(
                f"model {name!r}: its {path.name} is a Git LFS pointer, not the file: fetch it (git lfs pull)"
            )
    if (file := damaged_json(folder, ("config.json", GENERATION))) is not None:
        raise InputError(f"model {name!r}: its {file} is no JSON object")
    if (folder / ADAPTER).is_file():
        raise InputError(
            f"model {name!r} has an adapter beside it ({ADAPTER}): merge the two (peft's merge_and_unload) "
            "and save the result, or take the adapter's files away"
        )
    config = _config(folder)
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in _SIZES & part.keys():
            if isinstance(part[key], int) and part[key] < 0:
                raise InputError(f"model {name!r}: {key} is {part[key]} in its config.json")
    readable = {known.quant_method for known in FORMATS}
    if (method := _quantization(config)) is not None and method not in readable:
        raise _quantized(name, f"quant_method {method!r} in its config.json")
    if (weights := config.get("transformers_weights")) is not None:
        raise InputError(
            f"model {name!r}: its config.json takes the weights from {weights!r} (transformers_weights): "
            "call that file model.safetensors and drop the key"
        )


def check_stored(model: nn.Module, files: TensorFiles, name: str) -> None:
    """Refuses what the headers of a model's files give away, whatever its config.json says.

    Args:
        model: the model that config.json describes; its values are not looked at.
        files: what is stored.
        name: what the user calls it.

    Raises:
        InputError: weights are in 8 bits or fewer, or integers are where the model has no place for integers;
            or one tensor of the model is stored twice.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    seen: dict[str, str] = {}
    for tensor, stored in files.stored.items():
        twin = seen.setdefault(min(_spellings(tensor, model), key=len), tensor)
        if twin != tensor:
            raise InputError(
                f"model {name!r}: its files hold both {twin} and {tensor}, which are one tensor of it"
            )
        if stored.dtype.is_floating_point and stored.dtype.itemsize > 1:
            continue
        takes = [state[key].dtype for key in _spellings(tensor, model) if key in state]
        is_meant = any(not dtype.is_floating_point for dtype in takes) or _CONSTANTS.search(tensor)
        if not is_meant and stored.dtype.itemsize == 8:  # no format packs weights into so many bits
            raise InputError(
                f"model {name!r}: its files hold integers for which the model has no place by that name: "
                f"{tensor}"
            )
        if stored.dtype.is_floating_point or not is_meant:
            raise _quantized(name, f"{tensor} is stored as {_short(stored.dtype)}")


def other_shape(model: nn.Module, files: TensorFiles) -> str | None:
    """Says which stored tensor has another shape than the model's of that name; None where none has."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for tensor, stored in files.stored.items():
        for key in _spellings(tensor, model) & state.keys():
            if tuple(state[key].shape) != stored.shape:
                shapes = f"{list(stored.shape)} in its files, and {list(state[key].shape)} by its config.json"
                return f"{tensor} has shape {shapes}"
    return None


def check_tensors(model: nn.Module, loading: Mapping[str, Iterable[Any]], name: str) -> tuple[str, ...]:
    """Holds the library's account of loading a model against what must not be passed over.

    Args:
        model: the model; its values are not looked at.
        loading: `missing_keys` and `unexpected_keys`, less those that the architecture lists as ignorable.
        name: what the user calls it.

    Returns:
        What a reader should know, one sentence each: which tensors were left out.

    Raises:
        InputError: weights are missing, or a module that the model has is stored with more than it takes, so
            that the model is another one than was trained.
    """
    if missing := sorted(loading["missing_keys"]):
        # transformers fills them with random numbers and prints a warning, which we have silenced.
        raise InputError(f"model {name!r} lacks {len(missing)} of its weights, {missing[0]} for one")
    modules = dict(model.named_modules())
    left_out = sorted(key for key in loading["unexpected_keys"] if not is_constant(key, model))
    for key in left_out:
        owner = next(filter(None, (_owner(spelt, modules) for spelt in _spellings(key, model))), None)
        if owner is not None:
            raise InputError(
                f"model {name!r}: its files hold {key}, and {owner} takes no such tensor: its config.json "
                "describes another model than was stored"
            )
    return (_left_out(left_out),) if left_out else ()


def is_constant(tensor: str, model: nn.Module) -> bool:
    """Whether a stored tensor holds nothing that was learned: a buffer, of this model or of earlier code."""
    buffers = {buffer for buffer, _ in model.named_buffers()}
    return bool(_CONSTANTS.search(tensor)) or not buffers.isdisjoint(_spellings(tensor, model))


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
                    f"model {name!r}: {tensor} holds NaN or infinity ({n_bad} of {weight.numel():,} values "
                    f"as {_short(weight.dtype)}), and so would what is computed from it"
                )
        yield tensor, weight


def damaged_json(folder: Path, files: Iterable[str]) -> str | None:
    """The first of these files of a folder that is there and is no JSON object; None where all are."""
    for file in files:
        try:
            if not isinstance(json.loads((folder / file).read_text(encoding="utf-8")), dict):
                return file
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError):
            return file
    return None


@contextmanager
def fault_named(folder: Path, name: str) -> Iterator[None]:
    """Where the library says only what it stumbled over, says in which file and under which key that stands.

    Args:
        folder: the model's.
        name: what the user calls it.

    Raises:
        InputError: a setting that the library does not know, a size of 0, a syntax error in the model's code.
    """
    try:
        yield
    except (KeyError, AttributeError) as error:
        value = error.name if isinstance(error, AttributeError) else error.args[0] if error.args else None
        key = None if value is None else _key_of(value, _config(folder))
        if key is None:
            raise
        raise InputError(
            f"model {name!r}: {value!r} ({key} in its config.json) is not known to transformers"
        ) from error
    except ZeroDivisionError as error:
        config = _config(folder)
        if (key := next((key for key in sorted(_SIZES & config.keys()) if config[key] == 0), None)) is None:
            raise
        raise InputError(f"model {name!r}: {key} is 0 in its config.json") from error
    except ValueError as error:
        if not str(error).startswith("Unrecognized configuration class"):
            raise
        kind = _config(folder).get("model_type")
        raise InputError(
            f"model {name!r}: transformers has no causal language model for model_type {kind!r}"
        ) from error
    except SyntaxError as error:
        where = next(filter(None, map(_syntax_error, sorted(folder.glob("*.py")))), None)
        which = "Python code that it imports" if where is None else f"its Python code ({where})"
        raise InputError(f"model {name!r}: {which} cannot be run: {error.msg}") from error


def _syntax_error(path: Path) -> str | None:
    """The file with the line of its syntax error; None where it has none."""
    try:
        compile(path.read_bytes(), path.name, "exec")
    except (SyntaxError, ValueError) as error:
        return f"{path.name}, line {getattr(error, 'lineno', 1)}"
    return None


def _key_of(value: object, config: Mapping[str, Any]) -> str | None:
    """The first key, dotted where it is nested, under which a configuration has `value`; None without."""
    for key, held in config.items():
        if isinstance(held, dict) and (inner := _key_of(value, held)) is not None:
            return f"{key}.{inner}"
        if type(held) is type(value) and held == value:
            return key
    return None


def _is_pointer(path: Path, name: str) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError as error:
        raise InputError(
            f"model {name!r}: its {path.name} cannot be read: {error.strerror or error}"
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


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
        "its files hold tensors that have no place in the model that config.json describes and were left "
        f"out: {', '.join(keys[:NAMED])}{more}"
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


__all__ = [
    "ADAPTER",
    "FORMATS",
    "GENERATION",
    "WeightFormat",
    "check_config",
    "check_finite",
    "check_stored",
    "check_tensors",
    "damaged_json",
    "fault_named",
    "is_constant",
    "other_shape",
]
