"""A model whose decoder layers stay in its files and are read one by one; everything else is loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.base import Placement
from methods.errors import InputError
from methods.masks.bits import same_bits
from methods.placement.layer_storage import CheckpointStorage
from methods.placement.tensor_files import TensorFiles
from methods.structure.decoder import Decoder, read_decoder
from suite.models.files import check_finite, check_stored, check_tensors
from suite.models.loading import (
    LoadedModel,
    digest_of_weights,
    load_without_values,
    read_generation_config,
    skeleton_of,
    tensor_files,
)
from suite.models.loading_errors import one_line, quiet_transformers
from suite.models.settings import set_aside_flags
from suite.models.source import find_model
from suite.models.tokenizer import load_tokenizer
from suite.results.records.record import ModelIdentity

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from suite.cell import Cell

_RESIDENT_CAN = "give --placement resident, for which the whole model must fit into memory"


@dataclass(frozen=True)
class LayeredModel(LoadedModel):
    """A model on the host whose decoder layers are on the meta device; its identity is the whole model's.

    Attributes:
        files: the tensors of its checkpoint.
        names: name of each parameter and persistent buffer of the model -> name of its tensor in `files`.
    """

    files: TensorFiles
    names: Mapping[str, str]

    def staged(
        self, staging: Path | None, device: torch.device, batch_size: int | None = None
    ) -> LayeredModel:
        """Returns the model with storage for its layers: dense ones in its files, pruned ones in `staging`.

        Args:
            staging: an empty folder that must exist as long as the returned model; None = nothing is pruned.
            device: the device on which loaded layers compute.
            batch_size: as for `Placement`.
        """
        storage = CheckpointStorage(self.files, staging, self.names)
        return replace(self, placement=Placement(batch_size, "onload", device, storage))

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `LoadedModel.weights`; dense weights of decoder layers are read from the model's files."""
        yield from _weights(self.model, self.files, self.names)

    def dense_weight(self, name: str) -> Tensor:
        """Reads one parameter from the model's files to the host."""
        dtype = self.model.get_parameter(name).dtype
        return self.files.read(self.names[name], dtype=dtype)

    @property
    def storage(self) -> CheckpointStorage:
        """The storage of its layers; call `staged` first."""
        storage = self.placement.storage
        assert isinstance(storage, CheckpointStorage)
        return storage


def load_layered_model(
    cell: Cell, folder_digest: str | None, known: Mapping[str, Tensor] | None = None
) -> LayeredModel:
    """Loads the cell's model except for its decoder layers.

    Args:
        cell: the cell, which determines the model and the dtype of its weights.
        folder_digest: digest of the model's files, computed by the preflight (`Inputs.folder_digest`).
        known: the expected parameters and buffers outside the layers, by name. They are used in place of
            those in the files, so that nothing is in memory twice; None = use those in the files.

    Raises:
        InputError: there is no such model, it is damaged, or the tensors in its files do not match the model
            or `known`.
    """
    folder, revision = find_model(cell.model, cell.revision)
    files = tensor_files(folder, cell.model)
    check_stored(skeleton_of(folder, cell.model, cell.trust_remote_code), files, cell.model)
    dtype: torch.dtype = getattr(torch, cell.dtype)
    with quiet_transformers(), one_line(cell.model):
        model, loading = _skeleton(folder, files, dtype, cell)
    tokenizer = load_tokenizer(folder, cell.model, cell.trust_remote_code)
    remarks = check_tensors(model, loading, cell.model)
    set_aside_flags(model)
    decoder = read_decoder(model)
    names = _names_in_files(model, files, cell.model)
    _fill_outside(model, decoder, files, names, known)
    model.eval()
    identity = ModelIdentity(
        name=cell.model,
        revision=revision,
        architecture=type(model).__name__,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_digest=digest_of_weights(check_finite(_weights(model, files, names), cell.model)),
        dtype=cell.dtype,
        folder_digest=folder_digest,
    )
    return LayeredModel(model, tokenizer, identity, remarks=remarks, files=files, names=names)


def outside_layers(model: PreTrainedModel, decoder: Decoder) -> dict[str, Tensor]:
    """Returns the parameters and persistent buffers outside the decoder layers by name, tied ones once."""
    layers = tuple(f"{layer.name}." for layer in decoder.layers)
    outside: dict[int, tuple[str, Tensor]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if not name.startswith(layers):
            outside.setdefault(id(value), (name, value.detach()))
    return dict(outside.values())


def _skeleton(
    folder: Path, files: TensorFiles, dtype: torch.dtype, cell: Cell
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Returns the model without values, except buffers that no checkpoint stores, and its loading info."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=cell.trust_remote_code)
    with init_empty_weights(include_buffers=False):
        # In fp32: the library computes such buffers in fp32, too, and casts them afterwards.
        with_buffers = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=torch.float32, trust_remote_code=cell.trust_remote_code
        )
    model, loading = load_without_values(type(with_buffers), config, files, dtype)
    persistent = model.state_dict().keys()
    values = dict(with_buffers.named_buffers())
    for name, module, attribute, buffer in _held(model, "_buffers"):
        if name not in persistent:
            module._buffers[attribute] = values[name].to(buffer.dtype)
    read_generation_config(folder, cell.model, model)
    model.config.name_or_path = str(folder)
    return model, loading


def _names_in_files(model: PreTrainedModel, files: TensorFiles, called: str) -> dict[str, str]:
    """Maps names in the model to names in the files; they may differ by a prefix or a plain renaming.

    Raises:
        InputError: a tensor of the model is missing, or would have to be computed from several others.
    """
    state = model.state_dict(keep_vars=True)
    # The library's record of how it converted names in files to names in the model.
    conversions = getattr(model, "_weight_conversions", None) or ()
    prefix = f"{model.base_model_prefix}."
    names: dict[str, str] = {}
    for stored in files.stored:
        renamed = stored
        for conversion in conversions:
            if not hasattr(conversion, "operations"):
                renamed, _ = conversion.rename_source_key(renamed)
        for name in (renamed, stored):
            for candidate in (name, prefix + name, name.removeprefix(prefix)):
                if candidate in state:
                    names.setdefault(candidate, stored)
    found = {id(state[name]): stored for name, stored in names.items()}
    absent = [name for name, value in state.items() if id(value) not in found]
    made = [pattern for c in conversions if hasattr(c, "operations") for pattern in c.target_patterns]
    if absent or made:
        raise InputError(
            f"model {called!r}: its files do not hold {(absent or made)[0]} as it is in the model, and "
            f"--placement onload makes no tensor from others: {_RESIDENT_CAN}"
        )
    # The files may contain any one of several tied parameters.
    return {name: names.get(name, found[id(value)]) for name, value in state.items()}


def _fill_outside(
    model: PreTrainedModel,
    decoder: Decoder,
    files: TensorFiles,
    names: Mapping[str, str],
    known: Mapping[str, Tensor] | None,
) -> None:
    """Fills in all values outside the decoder layers; `known` ones are used if the files have the same."""
    layers = tuple(f"{layer.name}." for layer in decoder.layers)
    filled: dict[int, Any] = {}
    held = [*_held(model, "_parameters"), *_held(model, "_buffers")]
    for name, _, _, value in held:
        if name in names and not name.startswith(layers) and id(value) not in filled:
            tensor = files.read(names[name], dtype=value.dtype)
            if known is not None:
                if name not in known or not same_bits(tensor, known[name].to("cpu")):
                    raise InputError(f"{name}: was written, and reads back otherwise")
                tensor = known[name]
            is_parameter = isinstance(value, nn.Parameter)
            filled[id(value)] = nn.Parameter(tensor, value.requires_grad) if is_parameter else tensor
    for _, module, attribute, value in held:
        if id(value) in filled:
            setattr(module, attribute, filled[id(value)])
    # Without values the library could not see whether two tensors that may be tied are equal.
    model.tie_weights(missing_keys=set(), recompute_mapping=False)


def _held(model: nn.Module, kind: str) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Yields (full name, module, attribute, tensor) of all parameters or buffers, tied ones repeatedly."""
    for prefix, module in model.named_modules():
        for attribute, value in list(getattr(module, kind).items()):
            if value is not None:
                yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute, value


def _weights(
    model: PreTrainedModel, files: TensorFiles, names: Mapping[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Yields every parameter in the order of names; those of decoder layers are read on demand."""
    for name, parameter in sorted(model.named_parameters(), key=lambda named: named[0]):
        is_there = parameter.device.type != "meta"
        yield name, parameter if is_there else files.read(names[name], dtype=parameter.dtype)


__all__ = ["LayeredModel", "load_layered_model", "outside_layers"]
