"""What LLM-Barber asks of one block: how its dense weights would move to meet the sparse block's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import frexp
from typing import Any

import torch
from torch import Tensor, nn

from methods.decoder import Block, DecoderLayer
from methods.errors import StructureError
from methods.pattern import require_finite
from methods.statistics import SquaredGradients
from methods.stream import BlockCall, LayerStream, relative_error


@dataclass(frozen=True)
class BlockStudy:
    """What was found out about one block.

    Attributes:
        squared_gradients: target name -> fp32 `[out, in]`, mean over samples of the squared gradient of
            1/2 ||B_dense(a_j) - y_j||^2 at the dense weights; empty if gradients were not asked for. The
            constant by which this differs from the mean squared error's (the loss is scaled in fp16) is the
            same for all weights of a block and changes no mask.
        dense_probe: the dense block's output on the first batch.
        error_before: relative squared error of the sparse block's output there.
    """

    squared_gradients: Mapping[str, Tensor]
    dense_probe: Tensor
    error_before: float | None


def study_block(
    stream: LayerStream,
    layer: DecoderLayer,
    block: Block,
    dense: Mapping[str, Tensor],
    *,
    gradients: bool,
) -> BlockStudy:
    """Compares a block as it is now with its dense self, on the inputs it gets in the layer as it is now.

    Args:
        stream: at the input of `layer`.
        layer: the decoder layer.
        block: one of its blocks.
        dense: target name -> dense weight `[out, in]`.
        gradients: whether to form the squared gradients; without them only the probe is run.

    Raises:
        NonFiniteError: an output or a gradient is not finite; names the module.
        StructureError: the block, run by itself, does not do what it does inside the layer.
    """
    sums = {name: SquaredGradients(weight) for name, weight in dense.items()} if gradients else {}
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
            output, scale = _add_gradients(block, dense, call, n_batch, sums, scale)
        else:
            output = block.run(dense, call.args, call.kwargs)
        if batch == 0:
            require_finite(output, f"{layer.name} ({block.kind})", "its dense outputs")
            probe = output
            error_before = relative_error(call.output, output)
        n_samples += n_batch
    assert probe is not None
    for name, total in sums.items():
        require_finite(total.value, name, "its gradients")
    return BlockStudy({name: total.value / n_samples for name, total in sums.items()}, probe, error_before)


def _add_gradients(
    block: Block,
    dense: Mapping[str, Tensor],
    call: BlockCall,
    n_samples: int,
    sums: Mapping[str, SquaredGradients],
    scale: float | None,
) -> tuple[Tensor, float]:
    """Runs the dense block on one batch and adds the squared gradients.

    Returns:
        The block's output, and the constant by which the loss was scaled: one for all batches of a block,
        found on the first.
    """
    with torch.enable_grad(), _noting_linears(block) as noted:
        output = block.run(dense, call.args, call.kwargs)
        upstream = output.detach() - call.output
        if scale is None:
            scale = _loss_scale(upstream)
        gradients = torch.autograd.grad(output, [y for _, y in noted.values()], upstream * scale)
    for (name, (x, _)), dy in zip(noted.items(), gradients, strict=True):
        sums[name].add(x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1]), n_samples)
    return output.detach(), scale


def _loss_scale(upstream: Tensor) -> float:
    """A power of two that lifts fp16 gradients above underflow; 1 in types whose range is fp32's."""
    highest = float(upstream.abs().max())
    if upstream.dtype != torch.float16 or highest == 0:
        return 1.0
    return 2.0 ** min(15, max(0, -frexp(highest)[1]))


@contextmanager
def _noting_linears(block: Block) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Notes input and output of every target while the body runs, and starts the graph at the outputs.

    No gradient of a weight or of the block's input is ever formed: the graph begins at the first targets'
    outputs, and a sample's weight gradient is made from the noted inputs.
    """
    noted: dict[str, tuple[Tensor, Tensor]] = {}
    with ExitStack() as hooks:
        for name, linear in block.targets.items():

            def note(_: nn.Module, args: tuple[Any, ...], output: Tensor, name: str = name) -> None:
                if not output.requires_grad:
                    output.requires_grad_()
                noted[name] = (args[0].detach(), output)

            hooks.callback(linear.register_forward_hook(note).remove)
        yield noted


def _require_faithful(layer: DecoderLayer, block: Block, call: BlockCall) -> None:
    """Checks once that running the block by itself gives what it gave inside its layer."""
    error = relative_error(block.run({}, call.args, call.kwargs), call.output)
    if error is None or error > 1e-3:
        raise StructureError(
            f"{layer.name}: its {block.kind}, run by itself, differs from what it does in the layer "
            f"(relative squared error {error})"
        )


__all__ = ["BlockStudy", "study_block"]
