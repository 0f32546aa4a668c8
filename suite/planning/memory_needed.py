"""The memory and disk a cell needs, worked out from the model's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.machine.memory_available import Memory

if TYPE_CHECKING:
    from methods.base import Weights

LIBRARIES_BYTES = 900 * 2**20
"""Of host memory that the imported libraries take."""
BATCH_BYTES = 512 * 2**20
"""Of working memory beside weights and hidden states: a batch, a layer's statistics."""


@dataclass(frozen=True)
class ModelShape:
    """What an estimate needs of a model.

    Attributes:
        n_parameters: all of them, tied ones once.
        n_target_weights: those in target modules, which every token is multiplied with.
        n_largest_layer: parameters of the largest decoder layer.
        n_outside: parameters outside the decoder layers.
        hidden_size: of a hidden state.
        vocabulary: of the logits.
        n_gram: elements of the Gram matrices that a layer has together at least, of the layer with most.
        n_widest_gram: of the largest of them.
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
    """What a cell takes.

    Args:
        shape: of the model.
        itemsize: bytes of a parameter.
        calibration: tokens that are looked at.
        carried: tokens that go through the layers together where these are onloaded: of the longest text, or
            of the largest group of questions.
        reference: tokens whose dense hidden states are kept.
        on_gpu: whether layers compute on an accelerator.
        weights: where they are.
        prunes: whether anything is pruned, so that dense weights are kept beside.
        starts_from_mask: whether the method keeps the dense weights beside those that another one pruned.
        gathers_gram: whether Gram matrices are summed, in fp32, those of a layer together.
        solver_bytes: that a step takes for each element of one of them.
    """
    gram = 4 * shape.n_gram if gathers_gram else 0
    solver = solver_bytes * shape.n_widest_gram
    hidden = shape.hidden_size * itemsize
    kept = reference * hidden
    if weights == "onload":
        # The next layer is fetched while one is there with its dense weights and what is found out about it.
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
    whole = shape.n_parameters * itemsize
    copies = shape.n_target_weights * itemsize if starts_from_mask else 0
    stream = 2 * calibration * hidden if prunes else 0
    if on_gpu:
        # The dense weights and the dense hidden states wait on the host.
        host = whole + kept
        device = whole + copies + gram
        return Memory(LIBRARIES_BYTES + host, device + solver + stream + BATCH_BYTES, host, device)
    least = 2 * whole + copies + gram + kept + stream // 2
    host = LIBRARIES_BYTES + BATCH_BYTES + 2 * whole + copies + gram + solver + stream + kept
    return Memory(host, None, least, None)


__all__ = ["ModelShape", "memory_of"]
