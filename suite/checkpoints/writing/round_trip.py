"""What was written is opened again, and has to be the model that is in memory, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.errors import InputError, PruningError
from methods.masks.bits import same_bits
from methods.placement.onloaded_forward import own_forward
from methods.placement.tensor_files import TensorFiles
from suite.models.layered import LayeredModel, load_layered_model
from suite.models.loading import LoadedModel
from suite.models.loading_errors import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from suite.cell import Cell

PROBED_TOKENS = 8
"""Of the forward that both models have to agree on: enough to pass through every layer and every position."""


class RoundTripError(PruningError):
    """A checkpoint, read again, is not the model that was written."""


@torch.inference_mode()
def probe_logits(loaded: LoadedModel) -> Tensor:
    """The model's logits of a few fixed tokens, `[PROBED_TOKENS, vocabulary]`; layers may be onloaded."""
    model = loaded.model
    n_tokens = model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(PROBED_TOKENS)[None] % n_tokens
    device = loaded.placement.device or model.device
    with own_forward(model, loaded.placement):
        logits: Tensor = model(input_ids=tokens.to(device), use_cache=False).logits[0]
    return logits


def check_round_trip(folder: Path, loaded: LoadedModel, *, trust_remote_code: bool) -> None:
    """Opens a checkpoint as its users will, and holds it against the model in memory.

    Names, dtypes, shapes and bits of all tensors; then a forward, for which the weights that were found equal
    are those in memory, so that it takes no memory on the device and what may differ is all the rest: the
    configuration, the code, and what is computed from them.

    Args:
        folder: the checkpoint.
        loaded: what was written.
        trust_remote_code: whether code that came with the model may run.

    Raises:
        RoundTripError: names the first tensor that differs, or says that the forward does.
    """
    from transformers import AutoModelForCausalLM

    model = loaded.model
    try:
        _check_dtypes(TensorFiles.of_folder(folder), model)
        with quiet_transformers():
            reopened, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=model.dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise RoundTripError(f"the checkpoint that was written does not load: {error}") from error
    _check_names(loading)
    state, expected = reopened.state_dict(keep_vars=True), model.state_dict(keep_vars=True)
    if off := state.keys() ^ expected.keys():
        raise RoundTripError(
            f"{min(off)}: is in the model or in the checkpoint that was written, not in both"
        )
    for name, tensor in state.items():
        if not same_bits(tensor.detach(), expected[name].detach().to(tensor.device)):
            raise RoundTripError(f"{name}: was written, and reads back otherwise")
    _share_tensors(reopened, model)
    _share_attention(reopened, model)
    _check_logits(replace(loaded, model=reopened.to(model.device)), probe_logits(loaded))


def check_layered_round_trip(folder: Path, cell: Cell, loaded: LayeredModel, expected: Tensor) -> None:
    """Likewise for a model whose layers are in files; each visits the device once, one after another.

    The bits of every layer were compared when it was written (`CheckpointStorage.store`).

    Args:
        folder: the checkpoint.
        cell: what was pruned, and how.
        loaded: the pruned model.
        expected: its `probe_logits`, from before its layers became part of the checkpoint.

    Raises:
        RoundTripError: as `check_round_trip`.
    """
    written = cell.model_copy(update={"model": str(folder), "revision": None})
    try:
        _check_dtypes(TensorFiles.of_folder(folder), loaded.model)
        reopened = load_layered_model(written, None, known=loaded.model.state_dict())
    except InputError as error:
        raise RoundTripError(f"the checkpoint that was written does not load: {error}") from error
    _share_attention(reopened.model, loaded.model)
    device = loaded.placement.device
    assert device is not None
    _check_logits(reopened.staged(None, device), expected)


def _check_dtypes(files: TensorFiles, model: PreTrainedModel) -> None:
    """Every stored tensor has the dtype and shape of the model's; where it was split or renamed, a dtype."""
    state = model.state_dict()
    dtypes = {tensor.dtype for tensor in state.values()}
    for name, stored in files.stored.items():
        tensor = state.get(name)
        if stored.dtype not in (dtypes if tensor is None else {tensor.dtype}):
            raise RoundTripError(f"{name}: was written as {stored.dtype}")
        if tensor is not None and tuple(tensor.shape) != stored.shape:
            raise RoundTripError(f"{name}: was written with shape {list(stored.shape)}")


def _check_names(loading: Mapping[str, Any]) -> None:
    for key, what in (
        ("missing_keys", "was not written"),
        ("unexpected_keys", "was written, and the model has no place for it"),
    ):
        if names := sorted(loading[key]):
            raise RoundTripError(f"{', '.join(names[:3])}: {what}")


def _share_tensors(reopened: nn.Module, model: nn.Module) -> None:
    """Gives `reopened` the parameters and persistent buffers of `model`, which are equal."""
    persistent = model.state_dict().keys()
    for path, module in reopened.named_modules():
        original = model.get_submodule(path)
        for attribute in module._parameters:
            module._parameters[attribute] = original._parameters[attribute]
        for attribute in module._buffers:
            if (f"{path}.{attribute}" if path else attribute) in persistent:
                module._buffers[attribute] = original._buffers[attribute]


def _share_attention(reopened: nn.Module, model: nn.Module) -> None:
    """Lets attention be computed by the same code: which one is no part of a checkpoint, and others round."""
    from transformers import PreTrainedModel

    for part, original in zip(reopened.modules(), model.modules(), strict=True):
        if isinstance(part, PreTrainedModel) and isinstance(original, PreTrainedModel):
            part.config._attn_implementation = original.config._attn_implementation


def _check_logits(reopened: LoadedModel, expected: Tensor) -> None:
    found = probe_logits(reopened)
    if not same_bits(found, expected):
        raise RoundTripError(
            "the checkpoint that was written computes other logits than the model in memory, though its "
            "weights are the same: its configuration or code is not what was pruned"
        )


__all__ = ["RoundTripError", "check_layered_round_trip", "check_round_trip", "probe_logits"]
