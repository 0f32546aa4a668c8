"""Computes the memory and disk space that a cell needs from the model's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.machine.memory_available import Memory

if TYPE_CHECKING:
    from methods.base import Weights

LIBRARIES_BYTES = 900 * 2**20
"""Host memory that the imported libraries take, in bytes."""
BATCH_BYTES = 512 * 2**20
"""Working memory in bytes besides weights and hidden states: a batch, a layer's statistics."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that an estimate needs.

    Attributes:
        n_parameters: number of all parameters, tied ones counted once.
        n_target_weights: number of weights in target modules, which every token is multiplied with.
        n_largest_layer: number of parameters of the largest decoder layer.
        n_outside: number of parameters outside the decoder layers.
        hidden_size: size of a hidden state.
        vocabulary: number of logits per token.
        n_gram: minimum total number of elements of a layer's Gram matrices, for the layer with most.
        n_widest_gram: number of elements of the largest Gram matrix.
    """

    n_parameters: int
    n_target_weights: int
    n_largest_layer: int
    n_outside: int
    hidden_size: int
    vocabulary: int
    n_gram: int
    n_widest_gram: int


def memory_of(
    shape: ModelShape,
    *,
    itemsize: int,
    calibration: int,
    carried: int,
    reference: int,
    on_gpu: bool,
    weights: Weights,
    prunes: bool,
    starts_from_mask: bool,
    gathers_gram: bool = False,
    solver_bytes: int = 0,
) -> Memory:
    """Computes the memory that a cell needs.

    Args:
        shape: the model's shape.
        itemsize: size of one parameter in bytes.
        calibration: number of calibration tokens.
        carried: number of tokens that go through onloaded layers together: those of the longest text, or of
            the largest group of questions.
        reference: number of tokens whose dense hidden states are kept.
        on_gpu: whether layers compute on an accelerator.
        weights: where the layers are stored.
        prunes: whether anything is pruned, so that the dense weights are kept as well.
        starts_from_mask: whether the method keeps the dense weights in addition to those that another method
            pruned.
        gathers_gram: whether Gram matrices are accumulated in fp32, all of a layer at a time.
        solver_bytes: bytes that a step takes per element of one Gram matrix.
    """
    gram = 4 * shape.n_gram if gathers_gram else 0
    solver = solver_bytes * shape.n_widest_gram
    hidden = shape.hidden_size * itemsize
    kept = reference * hidden
    if weights == "onload":
        # The next layer is fetched while the current one is in memory with its dense weights and statistics.
        layers = 3 * shape.n_largest_layer * itemsize + 4 * shape.n_largest_layer
        outside = shape.n_outside * itemsize
        stream = max(2 * calibration if prunes else 0, carried) * hidden
        scratch = shape.n_target_weights * itemsize if prunes else 0
        if on_gpu:
            host = outside + layers + kept
            return Memory(
                LIBRARIES_BYTES + host + stream,
                outside + layers + BATCH_BYTES + gram + solver,
                host,
                outside + 2 * shape.n_largest_layer * itemsize + gram,
                scratch,
            )
        least = outside + 2 * shape.n_largest_layer * itemsize + gram + kept + stream // 2
        host = LIBRARIES_BYTES + BATCH_BYTES + outside + layers + gram + solver + kept + stream
        return Memory(host, None, least, None, scratch)
    model = shape.n_parameters * itemsize
    copies = shape.n_target_weights * itemsize if starts_from_mask else 0
    stream = 2 * calibration * hidden if prunes else 0
    if on_gpu:
        # The dense weights and the dense hidden states are kept on the host.
        host = model + kept
        device = model + copies + gram
        return Memory(LIBRARIES_BYTES + host, device + solver + stream + BATCH_BYTES, host, device)
    least = 2 * model + copies + gram + kept + stream // 2
    host = LIBRARIES_BYTES + BATCH_BYTES + 2 * model + copies + gram + solver + stream + kept
    return Memory(host, None, least, None)


__all__ = ["ModelShape", "memory_of"]
