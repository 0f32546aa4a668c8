"""Loads a written checkpoint again, and checks that it equals the model in memory bit for bit."""

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
"""Number of tokens of the forward pass that both models compute; enough to use every layer."""


class RoundTripError(PruningError):
    """A checkpoint that was loaded again differs from the model that was written."""


@torch.inference_mode()
def probe_logits(loaded: LoadedModel) -> Tensor:
    """Returns the logits of a few fixed tokens, `[PROBED_TOKENS, vocabulary]`; layers may be onloaded."""
    model = loaded.model
    n_tokens = model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(PROBED_TOKENS)[None] % n_tokens
    device = loaded.placement.device or model.device
    with own_forward(model, loaded.placement):
        logits: Tensor = model(input_ids=tokens.to(device), use_cache=False).logits[0]
    return logits


def check_round_trip(folder: Path, loaded: LoadedModel, *, trust_remote_code: bool) -> None:
    """Loads a checkpoint as its users will, and compares it with the model in memory.

    Compares names, dtypes, shapes and bits of all tensors, then the logits of a forward pass. For that pass
    the loaded model shares the weights in memory, which were found equal: it takes no device memory, and only
    the configuration, the code, and what is computed from them can still differ.

    Args:
        folder: the checkpoint.
        loaded: the model that was written.
        trust_remote_code: whether code that came with the model may run.

    Raises:
        RoundTripError: a tensor or the logits differ; names the first tensor that differs.
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
    """Does the same for a model whose layers are in files; each layer is moved to the device once, in turn.

    The bits of every layer were compared when it was written (`CheckpointStorage.store`).

    Args:
        folder: the checkpoint.
        cell: the cell that was pruned.
        loaded: the pruned model.
        expected: its `probe_logits`, computed before its layers became part of the checkpoint.

    Raises:
        RoundTripError: as for `check_round_trip`.
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
    """Checks dtype and shape of every stored tensor; of split or renamed ones only the dtype."""
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
        ("unexpected_keys", "was written, but the model has no such tensor"),
    ):
        if names := sorted(loading[key]):
            raise RoundTripError(f"{', '.join(names[:3])}: {what}")


def _share_tensors(reopened: nn.Module, model: nn.Module) -> None:
    """Makes `reopened` share the parameters and persistent buffers of `model`, which are equal."""
    persistent = model.state_dict().keys()
    for path, module in reopened.named_modules():
        original = model.get_submodule(path)
        for attribute in module._parameters:
            module._parameters[attribute] = original._parameters[attribute]
        for attribute in module._buffers:
            if (f"{path}.{attribute}" if path else attribute) in persistent:
                module._buffers[attribute] = original._buffers[attribute]


def _share_attention(reopened: nn.Module, model: nn.Module) -> None:
    """Makes both models use the same attention code: it is not part of a checkpoint, but affects rounding."""
    from transformers import PreTrainedModel

    for part, original in zip(reopened.modules(), model.modules(), strict=True):
        if isinstance(part, PreTrainedModel) and isinstance(original, PreTrainedModel):
            part.config._attn_implementation = original.config._attn_implementation


def _check_logits(reopened: LoadedModel, expected: Tensor) -> None:
    found = probe_logits(reopened)
    if not same_bits(found, expected):
        raise RoundTripError(
            "the checkpoint that was written computes other logits than the model in memory, although its "
            "weights are the same: its configuration or code differs from the pruned model's"
        )


__all__ = ["RoundTripError", "check_layered_round_trip", "check_round_trip", "probe_logits"]
