"""Checks that a model's files match its config.json; refuses or remarks on them before anything runs.

Finds what transformers would load silently and compute something else from: quantized weights, an adapter in
the model's folder, tensors that the model does not have, values that are not finite.
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
    """A format of stored weights that can be read.

    Attributes:
        name: the usual name of the format.
        quant_method: its `quant_method` in the `quantization_config` of config.json; None if it has none.
        description: a description in one line.
    """

    name: str
    quant_method: str | None
    description: str


FORMATS = (
    WeightFormat("safetensors", None, "float64, float32, float16 or bfloat16"),
    WeightFormat("GGUF", None, "of the built-in model only, dequantized when its folder is built"),
)
"""All formats that can be read. Weights in any other format are refused, wherever a model is named."""

ADAPTER = "adapter_config.json"
GENERATION = "generation_config.json"
NAMED = 6
"""Maximum number of tensors listed in a remark."""

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
"""Settings that are sizes or counts, by the names that most families use."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTED_TO = (".json", ".safetensors", ".model", ".txt", ".jinja", ".py")
_CONSTANTS = re.compile(
    r"(^|\.)(masked_bias|causal_mask|attn\.bias|attention\.bias|(original_)?inv_freq|(cos|sin)_cached|freqs_cis"
    r"|position_ids|num_batches_tracked)$"
)
"""Buffers that older code stored and current code computes or does not need: they were not learned."""


def check_config(folder: Path, name: str) -> None:
    """Checks config.json and the files next to it; weights are not read.

    Args:
        folder: the model's folder.
        name: the user's name for the model.

    Raises:
        InputError: a file is a Git LFS pointer or not JSON, a size is negative, the weights are quantized or
            have another file name, or there is an adapter in the folder.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in _POINTED_TO and path.is_file() and _is_pointer(path, name):
            raise InputError(
                f"model {name!r}: its {path.name} is a Git LFS pointer, not the file: fetch it (git lfs pull)"
            )
    if (file := damaged_json(folder, ("config.json", GENERATION))) is not None:
        raise InputError(f"model {name!r}: its {file} is not a JSON object")
    if (folder / ADAPTER).is_file():
        raise InputError(
            f"model {name!r} has an adapter in its folder ({ADAPTER}): merge the two (merge_and_unload of "
            "peft) and save the result, or remove the adapter's files"
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
            "rename that file to model.safetensors and remove the key"
        )


def check_stored(model: nn.Module, files: TensorFiles, name: str) -> None:
    """Checks the headers of a model's files, whatever its config.json says.

    Args:
        model: the model that config.json describes; its values are not read.
        files: the stored tensors.
        name: the user's name for the model.

    Raises:
        InputError: weights are stored in 8 bits or fewer, integers are stored where the model has none, or
            one tensor of the model is stored twice.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    seen: dict[str, str] = {}
    for tensor, stored in files.stored.items():
        twin = seen.setdefault(min(_spellings(tensor, model), key=len), tensor)
        if twin != tensor:
            raise InputError(
                f"model {name!r}: its files contain both {twin} and {tensor}, which are the same tensor"
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
    """Describes the first stored tensor with another shape than the model's tensor; None if there is none."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for tensor, stored in files.stored.items():
        for key in _spellings(tensor, model) & state.keys():
            if tuple(state[key].shape) != stored.shape:
                shapes = f"{list(stored.shape)} in its files, but {list(state[key].shape)} by its config.json"
                return f"{tensor} has shape {shapes}"
    return None


def check_tensors(model: nn.Module, loading: Mapping[str, Iterable[Any]], name: str) -> tuple[str, ...]:
    """Checks the loading info of transformers for problems that must not be ignored.

    Args:
        model: the model; its values are not read.
        loading: `missing_keys` and `unexpected_keys`, without those that the architecture lists as ignorable.
        name: the user's name for the model.

    Returns:
        Remarks for the reader, one sentence each: which tensors were left out.

    Raises:
        InputError: weights are missing, or the files have tensors for one of the model's modules that this
            module does not have, so that the loaded model is not the trained one.
    """
    if missing := sorted(loading["missing_keys"]):
        # transformers fills them with random numbers and prints a warning, which we have silenced.
        raise InputError(f"model {name!r} lacks {len(missing)} of its weights, for example {missing[0]}")
    modules = dict(model.named_modules())
    left_out = sorted(key for key in loading["unexpected_keys"] if not is_constant(key, model))
    for key in left_out:
        owner = next(filter(None, (_owner(spelt, modules) for spelt in _spellings(key, model))), None)
        if owner is not None:
            raise InputError(
                f"model {name!r}: its files contain {key}, but {owner} has no such tensor: its config.json "
                "describes a model other than the stored one"
            )
    return (_left_out(left_out),) if left_out else ()


def is_constant(tensor: str, model: nn.Module) -> bool:
    """Whether a stored tensor was not learned: it is a buffer of this model or of older code."""
    buffers = {buffer for buffer, _ in model.named_buffers()}
    return bool(_CONSTANTS.search(tensor)) or not buffers.isdisjoint(_spellings(tensor, model))


def check_finite(weights: Iterable[tuple[str, Tensor]], name: str) -> Iterator[tuple[str, Tensor]]:
    """Yields the given names and weights; raises at the first weight with NaN or infinity.

    Raises:
        InputError: a weight has NaN or infinity; the message names it.
    """
    import torch

    for tensor, weight in weights:
        # Quick check: a value that is not finite always makes the sum not finite; an overflow may, too.
        if not bool(torch.isfinite(weight.sum(dtype=torch.float32))):
            n_bad = weight.numel() - int(torch.isfinite(weight).sum())
            if n_bad:
                raise InputError(
                    f"model {name!r}: {tensor} has NaN or infinity ({n_bad} of {weight.numel():,} values "
                    f"as {_short(weight.dtype)}), so its results would be invalid"
                )
        yield tensor, weight


def damaged_json(folder: Path, files: Iterable[str]) -> str | None:
    """Returns the first of these files that exists and is not a JSON object; None if there is none."""
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
def explain_errors(folder: Path, name: str) -> Iterator[None]:
    """Turns terse errors of transformers into `InputError`s that name the file and the key at fault.

    Args:
        folder: the model's folder.
        name: the user's name for the model.

    Raises:
        InputError: transformers does not know a setting, a size is 0, or the model's code has a syntax error.
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
    """Returns the file's name with the line of its syntax error; None if it has none."""
    try:
        compile(path.read_bytes(), path.name, "exec")
    except (SyntaxError, ValueError) as error:
        return f"{path.name}, line {getattr(error, 'lineno', 1)}"
    return None


def _key_of(value: object, config: Mapping[str, Any]) -> str | None:
    """Returns the first key with `value` in a configuration, dotted if nested; None if there is none."""
    for key, found in config.items():
        if isinstance(found, dict) and (inner := _key_of(value, found)) is not None:
            return f"{key}.{inner}"
        if type(found) is type(value) and found == value:
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
    """Returns the quantization method in the configuration or one of its parts; None if not quantized."""
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
    """Returns a tensor's possible names in the model: files may omit or add the prefix of its body."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return {key, prefix + key, key.removeprefix(prefix)} if prefix != "." else {key}


def _owner(key: str, modules: Mapping[str, nn.Module]) -> str | None:
    """Returns the module of a tensor, if it is in a layer or has parameters of its own; otherwise None."""
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
        "its files contain tensors that the model described by config.json does not have; they were left "
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
    "explain_errors",
    "is_constant",
    "other_shape",
]
