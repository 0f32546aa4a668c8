"""Gradients of one block, for LLM-Barber, and of one decoder layer, for the regional gradient score."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import frexp, prod
from typing import Any

import torch
from torch import Tensor

from methods.engine.hidden_states import LayerStream, relative_error
from methods.engine.hooks import BlockCall
from methods.engine.statistics import SquaredGradients
from methods.errors import StructureError
from methods.masks.selection import require_finite
from methods.structure.decoder import Block, DecoderLayer
from methods.structure.target import Target, TargetCall, noting_calls

# cuBLAS is deterministic only with a fixed workspace, which has to be set before it is first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@dataclass(frozen=True)
class BlockStudy:
    """The gradients and outputs of one block.

    Attributes:
        squared_gradients: target name -> fp32 `[out, in]`, mean over samples of the squared gradient of
            1/2 ||B_dense(a_j) - y_j||^2 at the dense weights; empty if gradients were not requested. It
            differs from the gradient of the mean squared error by a constant factor (and by the loss scale in
            fp16), which is the same for all weights of a block and does not change any mask.
        dense_probe: the dense block's output on the first batch.
        error_before: relative squared error of the sparse block's output on the first batch.
        n_tokens: target name -> number of tokens it read; empty if gradients were not requested.
    """

    squared_gradients: Mapping[str, Tensor]
    dense_probe: Tensor
    error_before: float | None
    n_tokens: Mapping[str, int]


def study_block(
    stream: LayerStream,
    layer: DecoderLayer,
    block: Block,
    dense: Mapping[str, Tensor],
    *,
    gradients: bool,
) -> BlockStudy:
    """Compares a block with current and with dense weights, on the inputs it gets in the current layer.

    Args:
        stream: the stream, positioned at the input of `layer`.
        layer: the decoder layer.
        block: one of its blocks.
        dense: target name -> dense weight `[out, in]`.
        gradients: whether to compute the squared gradients; otherwise only the first batch is run.

    Raises:
        NonFiniteError: an output or a gradient is not finite; names the module.
        StructureError: the block computes something else when run alone than inside the layer.
    """
    return stream.within_memory(lambda: _study(stream, layer, block, dense, gradients=gradients))


def _study(
    stream: LayerStream,
    layer: DecoderLayer,
    block: Block,
    dense: Mapping[str, Tensor],
    *,
    gradients: bool,
) -> BlockStudy:
    """Does the work of `study_block` with the current batch sizes."""
    targets = block.targets if gradients else {}
    sums = _empty_sums(targets)
    n_tokens = dict.fromkeys(targets, 0)
    run_dense = block.with_weights(dense)
    probe: Tensor | None = None
    error_before: float | None = None
    n_samples = 0
    scale: float | None = None
    for batch in range(stream.n_batches if gradients else 1):
        call = stream.call_of(layer, batch, block)
        require_finite(call.output, f"{layer.name} ({block.kind})", "its outputs")
        n_batch = stream.n_samples(batch)
        if batch == 0 and layer.index == 0:
            _require_faithful(layer, block, call)
        if gradients:
            output, scale = _add_gradients(block, run_dense, call, n_batch, sums, n_tokens, scale)
        else:
            output = run_dense(call.args, call.kwargs)
        if batch == 0:
            require_finite(output, f"{layer.name} ({block.kind})", "its dense outputs")
            probe = output
            error_before = relative_error(call.output, output)
        n_samples += n_batch
    assert probe is not None
    for name, total in sums.items():
        require_finite(total.value, name, "its gradients")
    for name, target in targets.items():
        if target.expert is None and not n_tokens[name]:
            raise StructureError(f"{name}: was never called in its block; expected every target to be")
    return BlockStudy(
        {name: total.value.div_(n_samples) for name, total in sums.items()}, probe, error_before, n_tokens
    )


def _add_gradients(
    block: Block,
    run_dense: Callable[[tuple[Any, ...], Mapping[str, Any]], Tensor],
    call: BlockCall,
    n_samples: int,
    sums: Mapping[str, SquaredGradients],
    n_tokens: dict[str, int],
    scale: float | None,
) -> tuple[Tensor, float]:
    """Runs the dense block on one batch and adds its squared gradients to `sums`.

    Returns:
        The block's output, and the loss scale, which is chosen on the first batch and used for all batches
        of the block.
    """
    with torch.enable_grad(), _noted_calls(block.targets) as noted:
        output = run_dense(call.args, call.kwargs)
        upstream = output.detach() - call.output
        if scale is None:
            scale = _loss_scale(upstream)
        upstream = upstream if scale == 1 else upstream * scale
        gradients = _gradients(output, [made.y for made in noted.values()], upstream)
    n_batch_tokens = call.output.numel() // call.output.shape[-1]
    for name, count in _add_noted(noted, gradients, n_samples, n_batch_tokens, sums).items():
        n_tokens[name] += count
    return output.detach(), scale


def _add_noted(
    noted: Mapping[str, TargetCall],
    gradients: Sequence[Tensor],
    n_samples: int,
    n_batch_tokens: int,
    sums: Mapping[str, SquaredGradients],
) -> dict[str, int]:
    """Adds the squared gradients of one batch; gives how many tokens each target has read in it."""
    n_tokens = {}
    for (name, made), dy in zip(noted.items(), gradients, strict=True):
        x_NI = made.x.reshape(-1, made.x.shape[-1])
        lengths = _tokens_by_sample(made, len(x_NI), n_samples, n_batch_tokens)
        sums[name].add(x_NI, dy.reshape(-1, dy.shape[-1]), lengths)
        n_tokens[name] = len(x_NI)
    return n_tokens


def regional_gradients(stream: LayerStream, layer: DecoderLayer) -> dict[str, Tensor]:
    """How the size of a dense layer's output depends on each of its weights (arXiv 2503.04992).

    Args:
        stream: at the input of `layer`.
        layer: the decoder layer, as it is now.

    Returns:
        Target name -> fp32 `[out, in]`, the mean over samples of the squared gradient of the output's norm
        ||f(X_n)||_2 over all tokens of the sample. 0 for an expert that no token reached.

    Raises:
        NonFiniteError: an output or a gradient is not finite; names the module.
        StructureError: a target was called twice, or rows of its input are missing.
    """
    return stream.within_memory(lambda: _regional_gradients(stream, layer))


def _regional_gradients(stream: LayerStream, layer: DecoderLayer) -> dict[str, Tensor]:
    """`regional_gradients`, on the batches as they are now."""
    sums = _empty_sums(layer.targets)
    n_samples = 0
    scale: float | None = None
    for batch in range(stream.n_batches):
        n_batch = stream.n_samples(batch)
        with torch.enable_grad(), _noted_calls(layer.targets) as noted:
            output = stream.forward(layer, batch)
        require_finite(output.detach(), layer.name, "its outputs")
        upstream, n_batch_tokens = _of_norms(output.detach(), n_batch), output.numel() // output.shape[-1]
        if scale is None:
            scale = _loss_scale(upstream)
        gradients = _gradients(output, [made.y for made in noted.values()], upstream * scale)
        _add_noted(noted, gradients, n_batch, n_batch_tokens, sums)
        n_samples += n_batch
    assert scale is not None
    for name, total in sums.items():
        require_finite(total.value, name, "its gradients")
    return {name: total.value.div_(n_samples * scale**2) for name, total in sums.items()}


def _of_norms(output: Tensor, n_samples: int) -> Tensor:
    """The gradient of each sample's norm with respect to the output: y / ||y||, and 0 where y is 0."""
    samples = output.reshape(n_samples, -1).float()
    norms = samples.norm(dim=1, keepdim=True)
    unit = torch.where(norms > 0, samples / norms, 0)
    return unit.reshape(output.shape).to(output.dtype)


def _empty_sums(targets: Mapping[str, Target]) -> dict[str, SquaredGradients]:
    """Returns one sum per target; all share one buffer for the gradient of a sample."""
    if not targets:
        return {}
    largest = max(targets.values(), key=lambda target: prod(target.shape))
    scratch = torch.empty(prod(largest.shape), dtype=torch.float32, device=largest.device)
    return {name: SquaredGradients(target.shape, target.device, scratch) for name, target in targets.items()}


def _tokens_by_sample(call: TargetCall, n_rows: int, n_samples: int, n_batch_tokens: int) -> list[int]:
    """Returns how many of the rows that a target read belong to each sample of the batch.

    Raises:
        StructureError: rows are missing, and it is unknown which.
    """
    seqlen = n_batch_tokens // n_samples
    if call.tokens is not None:
        counts: list[int] = torch.bincount(call.tokens // seqlen, minlength=n_samples).tolist()
        return counts
    if n_rows != n_batch_tokens:
        raise StructureError(
            f"{call.target.name}: read {n_rows} of {n_batch_tokens} tokens; expected all of them, or stacked "
            "experts whose routing can be observed"
        )
    return [seqlen] * n_samples


def _gradients(output: Tensor, of: Sequence[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    """Returns the gradient of `output` times `upstream` with respect to each of `of`, reproducibly.

    It is 0 for a tensor that `output` does not depend on, such as that of an indexer, which only selects
    tokens.

    On an accelerator the backward pass of attention sums in any order unless deterministic algorithms are
    enabled. If an operation of the model has no deterministic algorithm, the default one is used; the masks
    may then differ in ties.
    """
    with _deterministic():
        try:
            return torch.autograd.grad(output, of, upstream, retain_graph=True, materialize_grads=True)
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
    return torch.autograd.grad(output, of, upstream, materialize_grads=True)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Lets torch use only deterministic algorithms while the body runs, without filling new memory."""
    before, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    settings: Any = torch.utils.deterministic
    fills, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        settings.fill_uninitialized_memory = fills


def _loss_scale(upstream: Tensor) -> float:
    """Returns a power of two that keeps fp16 gradients from underflowing; 1 for all other types."""
    highest = float(upstream.abs().max())
    if upstream.dtype != torch.float16 or highest == 0:
        return 1.0
    return 2.0 ** min(15, max(0, -frexp(highest)[1]))


@contextmanager
def _noted_calls(targets: Mapping[str, Target]) -> Iterator[dict[str, TargetCall]]:
    """Records the call of every target while the body runs, and starts the autograd graph at their outputs.

    Autograd never computes a gradient of a weight or of the block's input: the graph begins at the outputs of
    the first targets, and the weight gradient of a sample is computed from the recorded inputs.
    """
    noted: dict[str, TargetCall] = {}

    def note(call: TargetCall) -> None:
        if call.target.name in noted:
            raise StructureError(f"{call.target.name}: was called twice in its block; expected once")
        if not call.y.requires_grad:
            call.y.requires_grad_()
        noted[call.target.name] = replace(call, x=call.x.detach())

    with noting_calls(targets, note):
        yield noted


def _require_faithful(layer: DecoderLayer, block: Block, call: BlockCall) -> None:
    """Raises `StructureError` if the block, run alone, computes something else than inside its layer."""
    alone = block.run({}, call.args, call.kwargs).float()
    # Scale the outputs so that their squares do not overflow.
    size = call.output.abs().max().float().clamp(min=torch.finfo(torch.float32).tiny)
    error = relative_error(alone / size, call.output.float() / size)
    if not error <= 1e-3:  # written this way so that NaN fails too
        raise StructureError(
            f"{layer.name}: its {block.kind}, run by itself, differs from what it does in the layer "
            f"(relative squared error {error})"
        )


__all__ = ["BlockStudy", "regional_gradients", "study_block"]
