"""AlphaPruning: layers whose spectra have heavier tails are pruned less (arXiv 2410.10912)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import log10
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from methods.allocations.layer_allocation import DECIMALS, LayerAllocation, layer_sizes
from methods.base import CalibrationSet
from methods.errors import InputError, NonFiniteError
from methods.masks.selection import require_finite
from methods.placement.layer_loading import Residence
from methods.structure.decoder import Decoder, DecoderLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PeakRange = Literal["released", "eigenvalues"]

N_BINS = 100


@dataclass(frozen=True)
class AlphaPruning(LayerAllocation):
    """Gives every decoder layer one sparsity, chosen by how heavy the tails of its weights' spectra are.

    The squared singular values of a trained weight follow a power law in their tail, whose exponent alpha is
    small if the layer is well trained. A layer's alpha is the plain mean over its targets (a small key
    projection counts as much as a large MLP matrix). Its sparsity grows linearly with alpha, from
    `1 - max_deviation` to `1 + max_deviation` times the model's; then all are scaled so that together they
    have the model's sparsity. No calibration is used. If all layers have the same alpha, they get the same
    sparsity (the authors' code divides 0 by 0).

    Attributes:
        max_deviation: relative to the sparsity, in [0, 1]; the paper's epsilon.
        peak_range: range around the peak x of the spectrum's histogram in which the tail may begin.
            `released`: from log10(0.95 x) to 1.5 x, as in the authors' code, which compares a logarithm with
            eigenvalues, so that the lower bound seldom excludes any. `eigenvalues`: from 0.95 x to 1.5 x.
    """

    max_deviation: float = 0.3
    peak_range: PeakRange = "released"

    name: ClassVar[str] = "alphapruning"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_deviation <= 1:
            raise InputError(
                f"allocation 'alphapruning': max_deviation {self.max_deviation:g} is outside [0, 1]"
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
        alphas: list[float] = []
        for layer in decoder.layers:
            with residence.loaded(layer, read_only=True):
                alphas.append(self._alpha_of(layer))
        ratios = layer_ratios(alphas, layer_sizes(decoder), float(sparsity), self.max_deviation)
        return [round(Fraction(ratio), DECIMALS) for ratio in ratios]

    def _alpha_of(self, layer: DecoderLayer) -> float:
        """Returns the plain mean of the alphas of a layer's targets."""
        alphas = []
        for name, target in layer.targets.items():
            require_finite(target.weight, name, "its weights")
            alpha = tail_exponent(spectrum(target.weight.float()), self.peak_range)
            if alpha is None:
                raise NonFiniteError(f"{name}: its spectrum has no tail that a power law could be fitted to")
            alphas.append(alpha)
        return sum(alphas) / len(alphas)


def spectrum(weight: Tensor) -> Tensor:
    """Returns the squared singular values of a weight `[out, in]`, ascending, `[min(out, in)]`.

    They are the eigenvalues of the smaller Gram matrix. Computing these in float64 is several times as fast
    as computing singular values in fp32, and as exact.
    """
    wide = weight.double() if len(weight) <= weight.shape[1] else weight.double().T
    values: Tensor = torch.linalg.eigvalsh(wide @ wide.T)
    return values.clamp_(min=0).to(weight.dtype)


def tail_exponent(eigenvalues: Tensor, peak_range: PeakRange) -> float | None:
    """Fits a power law to the tail and returns its exponent alpha.

    Every eigenvalue near the peak of the histogram of their logarithms (the first of the fullest of 100 equal
    bins) is tried as the start of the tail; the fit with the smallest Kolmogorov-Smirnov distance wins. For
    a tail e_i ... e_N of n values alpha = 1 + n / sum ln(e_j / e_i), and its distance is the largest
    |1 - (e_j / e_i)^(1 - alpha) - (j - i) / n|.

    Args:
        eigenvalues: ascending, `[N]`; those that are 0 in fp32 are left out.
        peak_range: see `AlphaPruning`.

    Returns:
        alpha; None if no tail begins near the peak, or if the values of every tail are equal.
    """
    values = eigenvalues.cpu()  # the search below takes many small steps, which are slow on a GPU
    values = values[values > 0]
    if len(values) < 2:
        return None
    logarithms = values.log10()
    low, high = float(logarithms[0]), float(logarithms[-1])
    fullest = int(torch.histc(logarithms, N_BINS, low, high).argmax())
    peak = 10 ** (low + fullest * (high - low) / N_BINS)
    lowest = log10(0.95 * peak) if peak_range == "released" else 0.95 * peak
    starts = ((values >= lowest) & (values <= 1.5 * peak)).nonzero()[:, 0]
    best: tuple[float, float] | None = None
    for start in starts.tolist():
        if start > len(values) - 2:
            break
        ratios = values[start:] / values[start]
        n = len(ratios)
        total = float(ratios.log().sum())
        if total <= 0:
            continue
        alpha = 1 + n / total
        steps = torch.arange(n, device=values.device) / n
        distance = float((1 - ratios.pow(1 - alpha) - steps).abs().max())
        if best is None or distance < best[0]:
            best = distance, alpha
    return best[1] if best else None


def layer_ratios(
    alphas: Sequence[float], sizes: Sequence[int], sparsity: float, max_deviation: float
) -> list[float]:
    """Returns each layer's sparsity, w s sum(p) / sum(p w).

    w grows linearly with alpha, from 1 - epsilon at the lowest alpha to 1 + epsilon at the highest.

    Args:
        alphas: one per layer.
        sizes: p, the number of target weights per layer.
        sparsity: s, the overall sparsity.
        max_deviation: epsilon.

    Returns:
        One sparsity per layer, which may be above 1.
    """
    lowest, span = min(alphas), max(alphas) - min(alphas)
    if not span:
        return [sparsity] * len(alphas)
    weights = [1 - max_deviation + 2 * max_deviation * (alpha - lowest) / span for alpha in alphas]
    weighted = sum(size * weight for size, weight in zip(sizes, weights, strict=True))
    return [weight * sparsity * sum(sizes) / weighted for weight in weights]


__all__ = ["AlphaPruning", "layer_ratios", "spectrum", "tail_exponent"]
