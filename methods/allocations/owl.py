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

    Outliers are counted in the dense model. The larger a layer's share of outliers, the lower its sparsity;
    the sparsities of all layers stay within a span of twice `max_deviation`. The model's sparsity is met
    over all target weights, even if layers differ in size; for layers of equal size this is the authors'
    formula. If all layers have the same share of outliers, they get the same sparsity.

    Attributes:
        outlier_threshold: a weight is an outlier if its Wanda score exceeds this multiple of its layer's mean
            score; above 0, the paper's M.
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
    """Returns the exact share of scores that exceed `threshold` times the mean over all tensors.

    Args:
        scores: fp32 tensors, finite and not negative; iterated twice.
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
    """Returns each layer's sparsity, lower the higher its share of outliers is (arXiv 2310.05175).

    With r = (share - lowest) / (highest - lowest) * 2 * max_deviation, a layer keeps 1 - sparsity + r -
    mean(r) of its weights, the mean taken over all weights of the model. If all shares are equal, every
    layer gets `sparsity`.

    Args:
        shares: share of outliers per layer.
        sizes: number of target weights per layer.
        sparsity: the overall sparsity.
        max_deviation: lambda, converted exactly from its decimal form.

    Returns:
        One sparsity per layer to `DECIMALS` decimals, which may be outside [0, 1).
    """
    lowest, span = min(shares), max(shares) - min(shares)
    if not span:
        return [sparsity] * len(shares)
    raised = [(share - lowest) / span * 2 * Fraction(repr(max_deviation)) for share in shares]
    mean = sum((r * size for r, size in zip(raised, sizes, strict=True)), Fraction()) / sum(sizes)
    return [round(sparsity - r + mean, DECIMALS) for r in raised]


@dataclass(frozen=True)
class _LayerScores:
    """Iterates over the Wanda scores of a layer's targets.

    They are recomputed on each iteration, because all of them together are as large as the layer.
    """

    layer: DecoderLayer
    norms: Mapping[str, InputNorms]

    def __iter__(self) -> Iterator[Tensor]:
        for name, norms in self.norms.items():
            scores = wanda_scores(self.layer.targets[name].weight.float(), norms.value)
            require_finite(scores, name, "its Wanda scores")
            yield scores


def _advance(stream: LayerStream, layer: DecoderLayer) -> dict[str, InputNorms]:
    """Moves the stream to the layer's output, and returns the input norms of its targets.

    Experts that no token reached are left out, because nothing is known about their outliers.
    """
    gathered, stream.hidden = stream.within_memory(partial(_gather, stream, layer))
    # Checked in this order, so that the error names the first module with non-finite values, not its layer.
    reached = {n: t for n, t in layer.targets.items() if t.expert is None or gathered.n_tokens(n)}
    norms = {name: gathered.judged(target) for name, target in reached.items()}
    for name, target in reached.items():
        require_finite(norms[name].value, name, "the activations it reads, or their squares,")
        require_finite(target.weight, name, "its weights")
    for batch in range(stream.n_batches):
        require_finite(stream.on_device(batch), layer.name, "its outputs")
    return norms


def _gather(stream: LayerStream, layer: DecoderLayer) -> tuple[SharedInputs[InputNorms], list[Tensor]]:
    """Returns the input norms of a layer's targets, and the layer's outputs, without moving the stream."""
    gathered = SharedInputs(layer.targets, InputNorms.of)
    outputs = []
    for batch in range(stream.n_batches):
        with gathered.collecting():
            outputs.append(stream.put_away(stream.forward(layer, batch)))
    return gathered, outputs


__all__ = ["OWL", "layer_sparsities", "outlier_share"]
