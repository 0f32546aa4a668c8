"""OWL: layers with more outliers are pruned less (arXiv 2310.05175)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import inf
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from methods.allocations.layer_allocation import DECIMALS, LayerAllocation, layer_sizes
from methods.base import CalibrationSet
from methods.engine.hidden_states import LayerStream
from methods.engine.statistics import InputNorms, SharedInputs
from methods.errors import InputError
from methods.masks.selection import require_finite
from methods.placement.layer_loading import Residence
from methods.scores.wanda import wanda_scores
from methods.structure.decoder import Decoder, DecoderLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class OWL(LayerAllocation):
    """Outlier-weighed layerwise sparsity: every decoder layer gets one sparsity for all its targets.

    The model is looked at as it is, dense. A layer's share of outliers moves its sparsity away from that of
    the model, all layers staying within a span of twice `max_deviation`. The model's sparsity is met over all
    target weights, also where layers differ in size; for equal layers that is the authors' formula. Where all
    layers have the same share of outliers, they get the same sparsity.

    Attributes:
        outlier_threshold: a weight is an outlier if its Wanda score is above so many times its layer's mean;
            above 0, the paper's M.
        max_deviation: half the span of the layers' sparsities, at least 0, the paper's lambda.
    """

    outlier_threshold: float = 5.0
    max_deviation: float = 0.08

    name: ClassVar[str] = "owl"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.outlier_threshold < inf:
            raise InputError(
                f"allocation 'owl': outlier_threshold must be above 0, not {self.outlier_threshold:g}"
            )
        if not 0 <= self.max_deviation < inf:
            raise InputError(
                f"allocation 'owl': max_deviation must be at least 0, not {self.max_deviation:g}"
            )

    def sparsities(
        self,
        model: PreTrainedModel,
        decoder: Decoder,
        residence: Residence,
        sparsity: Fraction,
        calibration: CalibrationSet | None,
    ) -> Sequence[Fraction]:
        """See `LayerAllocation.sparsities`."""
        assert calibration is not None
        shares: list[Fraction] = []
        stream = LayerStream.of_calibration(model, decoder, calibration, residence)
        for layer in decoder.layers:
            with residence.loaded(layer, read_only=True):
                scores = _LayerScores(layer, _advance(stream, layer))
                shares.append(outlier_share(scores, self.outlier_threshold))
        return layer_sparsities(shares, layer_sizes(decoder), sparsity, self.max_deviation)


def outlier_share(scores: Iterable[Tensor], threshold: float) -> Fraction:
    """The share of scores above `threshold` times their mean over all tensors, exact.

    Args:
        scores: fp32 tensors, finite and not negative; gone through twice.
        threshold: above 0.
    """
    total, n_scores = 0.0, 0
    for tensor in scores:
        total += float(tensor.sum(dtype=torch.float64))
        n_scores += tensor.numel()
    limit = threshold * (total / n_scores)
    return Fraction(sum(int((tensor > limit).sum()) for tensor in scores), n_scores)


def layer_sparsities(
    shares: Sequence[Fraction], sizes: Sequence[int], sparsity: Fraction, max_deviation: float
) -> list[Fraction]:
    """Each layer's sparsity: less where the share of outliers is higher (arXiv 2310.05175).

    With r = (share - lowest) / (highest - lowest) * 2 * max_deviation, a layer keeps 1 - sparsity + r -
    mean(r) of its weights, the mean taken over all weights of the model. All shares equal: all layers alike.

    Args:
        shares: of outliers, one per layer.
        sizes: target weights, one per layer.
        sparsity: of all of them together.
        max_deviation: lambda, taken as the decimal it is written as.

    Returns:
        One sparsity per layer to `DECIMALS` decimals, which may lie outside [0, 1).
    """
    lowest, span = min(shares), max(shares) - min(shares)
    if not span:
        return [sparsity] * len(shares)
    raised = [(share - lowest) / span * 2 * Fraction(repr(max_deviation)) for share in shares]
    mean = sum((r * size for r, size in zip(raised, sizes, strict=True)), Fraction()) / sum(sizes)
    return [round(sparsity - r + mean, DECIMALS) for r in raised]


@dataclass(frozen=True)
class _LayerScores:
    """The Wanda scores of a layer's targets, formed anew each time: together they are as large as it is."""

    layer: DecoderLayer
    norms: Mapping[str, InputNorms]

    def __iter__(self) -> Iterator[Tensor]:
        for name, norms in self.norms.items():
            scores = wanda_scores(self.layer.targets[name].weight.float(), norms.value)
            require_finite(scores, name, "its Wanda scores")
            yield scores


def _advance(stream: LayerStream, layer: DecoderLayer) -> dict[str, InputNorms]:
    """Moves the stream to the layer's output, and gives the norms of what its targets read on the way.

    Experts that no token reached are left out: of their outliers nothing is known.
    """
    gathered, stream.hidden = stream.within_memory(partial(_gather, stream, layer))
    # In this order the first module that holds what is not finite is named, not its layer.
    reached = {n: t for n, t in layer.targets.items() if t.expert is None or gathered.n_tokens(n)}
    norms = {name: gathered.judged(target) for name, target in reached.items()}
    for name, target in reached.items():
        require_finite(norms[name].value, name, "the activations it reads, or their squares,")
        require_finite(target.weight, name, "its weights")
    for batch in range(stream.n_batches):
        require_finite(stream.on_device(batch), layer.name, "its outputs")
    return norms


def _gather(stream: LayerStream, layer: DecoderLayer) -> tuple[SharedInputs[InputNorms], list[Tensor]]:
    """What the targets of a layer read, and the layer's outputs, the stream staying where it is."""
    gathered = SharedInputs(layer.targets, InputNorms.of)
    outputs = []
    for batch in range(stream.n_batches):
        with gathered.collecting():
            outputs.append(stream.put_away(stream.forward(layer, batch)))
    return gathered, outputs


__all__ = ["OWL", "layer_sparsities", "outlier_share"]
