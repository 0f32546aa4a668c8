"""Loads models, whole or as a structure without weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.base import Placement
from methods.errors import InputError
from methods.placement.tensor_files import TensorFiles
from suite.models.files import (
    GENERATION,
    check_finite,
    check_stored,
    check_tensors,
    explain_errors,
    is_constant,
    other_shape,
)
from suite.models.loading_errors import one_line, quiet_transformers
from suite.models.settings import set_aside_flags
from suite.models.source import find_model, folder_digest
from suite.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from suite.cell import DType
    from suite.results.records.record import ModelIdentity


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode.

    Attributes:
        model: the causal language model.
        tokenizer: its tokenizer; None if the model comes without one.
        identity: identifies the weights, for the record.
        placement: where its decoder layers are stored, for code that runs them.
        remarks: remarks on the model's files for readers of its results, one sentence each.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    identity: ModelIdentity
    placement: Placement = field(default=Placement(), kw_only=True)
    remarks: tuple[str, ...] = field(default=(), kw_only=True)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields every parameter with its name, in the order of names, tied ones once."""
        yield from sorted(self.model.named_parameters(), key=lambda named: named[0])


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights.

    Attributes:
        model: the model on the meta device.
        tokenizer: its tokenizer; None if the model comes without one.
        revision: see `ModelIdentity`.
        folder_digest: see `ModelIdentity`.
        remarks: see `LoadedModel`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    revision: str | None
    folder_digest: str | None
    remarks: tuple[str, ...]


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: DType = "float32",
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
    placement: Placement = Placement(),
) -> LoadedModel:
    """Loads a model and its tokenizer.

    Args:
        name: a built-in name, a local folder or a hub id.
        revision: a branch, tag or commit on the hub; None = the default branch, or not a hub model.
        dtype: dtype of the weights in memory.
        device: the device to put the model on.
        trust_remote_code: whether Python files that come with the model may run.
        placement: a resident placement, with the batch size for calibration.

    Raises:
        InputError: there is no such model, it is damaged, or its weights are pickled, quantized, not finite,
            or do not match its config.json.
        AssetError: a built-in model could not be fetched.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from suite.results.records.record import ModelIdentity

    folder, found_revision = find_model(name, revision)
    check_stored(skeleton_of(folder, name, trust_remote_code), tensor_files(folder, name), name)
    tokenizer = load_tokenizer(folder, name, trust_remote_code)
    with quiet_transformers(), one_line(name):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    remarks = check_tensors(model, loading, name)
    set_aside_flags(model)
    model.eval()
    model.to(device)
    identity = ModelIdentity(
        name=name,
        revision=found_revision,
        architecture=type(model).__name__,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_digest=digest_of_weights(check_finite(sorted(model.named_parameters()), name)),
        dtype=dtype,
        folder_digest=folder_digest(folder, found_revision),
    )
    return LoadedModel(model, tokenizer, identity, placement=placement, remarks=remarks)


def load_skeleton(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Skeleton:
    """Loads a model's structure and tokenizer and checks its files; no weight stays in memory.

    Args:
        name: a built-in name, a local folder or a hub id.
        revision: as for `load_model`.
        trust_remote_code: as for `load_model`.

    Raises:
        InputError: there is no such model, or it is damaged, as for `load_model`.
        AssetError: a built-in model could not be fetched.
    """
    import torch

    folder, found_revision = find_model(name, revision)
    files = tensor_files(folder, name)
    model = skeleton_of(folder, name, trust_remote_code)
    check_stored(model, files, name)
    with quiet_transformers(), one_line(name):
        try:
            _, loading = load_without_values(type(model), model.config, files, torch.float32)
        except RuntimeError as error:
            if (fault := other_shape(model, files)) is not None:
                raise InputError(f"model {name!r}: {fault}") from error
            raise
    tokenizer = load_tokenizer(folder, name, trust_remote_code)
    remarks = check_tensors(model, loading, name)
    digest = folder_digest(folder, found_revision)
    if digest is not None:  # a local folder, whose files were just read completely
        unused = set(loading["unexpected_keys"])
        used = (key for key in files.stored if key not in unused and not is_constant(key, model))
        for _ in check_finite(files.floating(used), name):
            pass
    return Skeleton(model, tokenizer, found_revision, digest, remarks)


def tensor_files(folder: Path, name: str) -> TensorFiles:
    """Reads the headers of the tensors in a model's folder.

    Raises:
        InputError: a file is damaged or cannot be read.
    """
    try:
        return TensorFiles.of_folder(folder)
    except OSError as error:
        raise InputError(f"model {name!r} cannot be read: {error}") from error


def stored_dtypes(name: str, revision: str | None = None) -> list[torch.dtype]:
    """Returns the floating-point dtypes in which a model's weights are stored, the one with most bytes first.

    Raises:
        InputError: there is no such model, or it is damaged, as for `load_model`.
        AssetError: a built-in model could not be fetched.
    """
    n_bytes: Counter[torch.dtype] = Counter()
    for stored in tensor_files(find_model(name, revision)[0], name).stored.values():
        if stored.dtype.is_floating_point:
            n_bytes[stored.dtype] += stored.n_bytes
    return [dtype for dtype, _ in n_bytes.most_common()]


def load_without_values(
    model_class: type[PreTrainedModel], config: Any, files: TensorFiles, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Builds a model on the meta device with the dtypes, ties and names that it has when it is loaded.

    Args:
        model_class: the model's class.
        config: its configuration.
        files: its stored tensors.
        dtype: dtype of the weights in memory.

    Returns:
        The model, and the loading info of transformers: missing and unexpected names.
    """
    import torch

    empty = {
        tensor: torch.empty(stored.shape, dtype=stored.dtype, device="meta")
        for tensor, stored in files.stored.items()
    }
    model, loading = model_class.from_pretrained(
        None,
        config=config,
        state_dict=empty,
        device_map={"": "meta"},
        dtype=dtype,
        output_loading_info=True,
    )
    return model, loading


def skeleton_of(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedModel:
    """Builds the model that the configuration in `folder` describes, on the meta device.

    Raises:
        InputError: the configuration or generation config is damaged; the message calls the model `name`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet_transformers(), one_line(name, "config.json"), explain_errors(folder, name):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=trust_remote_code
            )
    read_generation_config(folder, name, model)
    return model


def read_generation_config(folder: Path, name: str, model: PreTrainedModel) -> None:
    """Sets a model's generation config from its folder, if there is one.

    Raises:
        InputError: it is damaged, which transformers ignores when it loads a whole model.
    """
    from transformers import GenerationConfig

    if model.can_generate() and (folder / GENERATION).is_file():
        with quiet_transformers(), one_line(name, GENERATION):
            model.generation_config = GenerationConfig.from_pretrained(folder)


def weight_digest(model: nn.Module) -> str:
    """Returns the SHA-256 (hex) over every parameter's name, dtype, shape and bytes, in the order of names.

    Tied parameters are included once. Parameters are copied to the host one at a time.
    """
    return digest_of_weights(sorted(model.named_parameters()))


def digest_of_weights(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Returns the digest of names and weights, consumed one at a time in the given order."""
    import torch

    digest = hashlib.sha256()
    for name, weight in weights:
        dtype = str(weight.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{list(weight.shape)}\0".encode())
        flat = weight.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


__all__ = [
    "LoadedModel",
    "Skeleton",
    "digest_of_weights",
    "load_model",
    "load_skeleton",
    "load_without_values",
    "read_generation_config",
    "skeleton_of",
    "stored_dtypes",
    "tensor_files",
    "weight_digest",
]
