"""DSnoT: swaps pruned for kept weights until each row's expected output is right (arXiv 2310.08915)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from methods.base import (
    CalibrationSet,
    LayerReport,
    Placement,
    PruneResult,
    PruningMethod,
    ignore_layer,
    with_calibration,
)
from methods.engine.layerwise import Solution, prune_layer_by_layer
from methods.errors import InputError
from methods.initial import UNREACHED, initial_mask, initial_settings
from methods.masks.pattern import SemiStructured, SparsityPattern, UniformPattern
from methods.masks.selection import require_finite
from methods.placement.layer_loading import residing
from methods.refinements.dsnot_swaps import MAX_VARIANCE_POWER, refine, reliabilities
from methods.registry import build
from methods.structure.decoder import read_decoder
from methods.structure.target import Target
from methods.wanda import wanda_scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class DSnoT:
    """Refines the mask of any other method without training: dynamic sparse, no training.

    The initial method prunes the whole model by itself. Then the weights are dense again, and layer by layer,
    on the stream made by the layers already refined, each row swaps weights one by one (`refine`). Survivors
    have their dense values: what an initial method reconstructed (SparseGPT) is thrown away. In the authors'
    code the initial mask of a layer is found on the refined stream too, in the same pass; here it is the
    initial method's own, whatever method that is.

    Attributes:
        initial: the method whose mask is refined.
        blocks: whose targets are refined; the others keep the initial mask. The authors skip the MLP.
        max_cycles: swaps that a row makes at most.
        update_threshold: a row is done once its error is not larger; in units of the output, summed over the
            tokens of a sample.
        variance_power: exponent of an input's variance in the order in which weights come back, in [0, 6];
            0 leaves the variance out.
        same_sign: a swap that changes the sign of a row's error ends that row and is not made. With N:M it
            always is so.
        initial_settings: hyper-parameters of the initial method.
    """

    initial: str = "wanda"
    blocks: Literal["attention", "mlp", "all"] = "attention"
    max_cycles: int = 50
    update_threshold: float = 0.1
    variance_power: float = 1.0
    same_sign: bool = False
    initial_settings: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "dsnot"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = True
    reconstructs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.max_cycles < 1:
            raise InputError(f"method 'dsnot': max_cycles must be at least 1, not {self.max_cycles}")
        if not self.update_threshold >= 0:
            raise InputError(
                f"method 'dsnot': update_threshold must be at least 0, not {self.update_threshold:g}"
            )
        if not 0 <= self.variance_power <= MAX_VARIANCE_POWER:
            raise InputError(
                f"method 'dsnot': variance_power {self.variance_power:g} is outside [0, {MAX_VARIANCE_POWER}]"
            )
        in_full = initial_settings(self.name, self.initial, self.initial_settings)
        object.__setattr__(self, "initial_settings", in_full)

    @property
    def initial_method(self) -> PruningMethod:
        """The method whose mask is refined, with its settings."""
        return build(self.initial, self.initial_settings)

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int]:
        """An output row, which loses as many weights as it had lost.

        Raises:
            InputError: the initial method cannot do `pattern`.
        """
        self.initial_method.comparison_group(shape, pattern)
        return (1, shape[1])

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """See `PruningMethod.prune`."""
        calibration = with_calibration(self.name, calibration)
        n_samples = calibration.n_samples
        decoder = read_decoder(model)
        targets = {target.name: (block.kind, target) for _, block, target in decoder.targets()}
        with torch.no_grad(), residing(model, decoder, placement) as residence:
            residence.remember_dense()
            first = initial_mask(self.initial_method, model, pattern, calibration, placement, weights=False)
            residence.restore_dense()

        def stands(name: str) -> Solution:
            """The initial mask as it is."""
            report, keep = first.report(targets[name][1]), first.keep(targets[name][1])
            return Solution(keep, damping=report.damping, standing=report)

        def unreached(name: str) -> Solution:
            kind, _ = targets[name]
            refined_here = self.blocks in ("all", kind)
            return replace(stands(name), swaps=0, warnings=(UNREACHED,)) if refined_here else stands(name)

        def solve(name: str, weight: Tensor, moments: InputMoments, pattern: UniformPattern) -> Solution:
            kind, target = targets[name]
            if self.blocks not in ("all", kind):
                return stands(name)
            keep, damping = first.keep(target), first.report(target).damping
            said = first.warnings(target)
            refined = self._refined(name, weight, keep, moments, n_samples, pattern)
            dead = int((moments.squares == 0).sum())
            own = (f"{dead} inputs were never active; their weights were not swapped",) if dead else ()
            return Solution(
                refined,
                damping=damping,
                swaps=int((refined & ~keep).sum()),
                warnings=(*said, *own),
            )

        result = prune_layer_by_layer(
            model,
            pattern,
            calibration,
            statistic=InputMoments.of,
            solve=solve,
            placement=placement,
            on_layer=on_layer,
            unreached=unreached,
        )
        return PruneResult(
            result.keep, result.layers, first.with_seconds(result.phases), initial=first.result
        )

    def _refined(
        self,
        name: str,
        weight: Tensor,
        keep: Tensor,
        moments: InputMoments,
        n_samples: int,
        pattern: UniformPattern,
    ) -> Tensor:
        """The refined keep-mask of one target."""
        influence = weight * (moments.total / n_samples)
        cost = wanda_scores(weight, moments.squares)
        require_finite(influence, name, "its influences on the output")
        require_finite(cost, name, "its Wanda scores")
        m = pattern.m if isinstance(pattern, SemiStructured) else None
        return refine(
            keep,
            influence,
            reliabilities(influence, moments.variance, self.variance_power),
            cost,
            m=m,
            max_cycles=self.max_cycles,
            threshold=self.update_threshold,
            same_sign=self.same_sign or m is not None,
        )


class InputMoments:
    """What DSnoT asks of each input over all tokens: sum, sum of squares and variance, `[in]` each, in fp32.

    Attributes:
        total: sum_t X_tj.
        squares: sum_t X_tj^2.
    """

    def __init__(self, n_inputs: int, device: torch.device) -> None:
        self.total = torch.zeros(n_inputs, dtype=torch.float32, device=device)
        self.squares = torch.zeros_like(self.total)
        self._spread = torch.zeros_like(self.total)
        self._n_tokens = 0

    @classmethod
    def of(cls, target: Target) -> Self:
        """An empty one for `target`."""
        return cls(target.n_inputs, target.device)

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens; N may be 0."""
        n_new, n_old = len(x_NI), self._n_tokens
        if n_new == 0:
            return
        x = x_NI.float()
        total = x.sum(0)
        # Squares about each batch's own mean, and what the means are apart: sum X^2 - (sum X)^2 / N would
        # lose every digit of a variance that is small beside the mean.
        self._spread += (x - total / n_new).square().sum(0)
        if n_old:
            apart = total / n_new - self.total / n_old
            self._spread += apart.square() * (n_old * n_new / (n_old + n_new))
        self.total += total
        self.squares += x.square().sum(0)
        self._n_tokens += n_new

    @property
    def variance(self) -> Tensor:
        """Population variance over all tokens; 0 before the first."""
        return self._spread / max(self._n_tokens, 1)

    @property
    def value(self) -> Tensor:
        """`[3, in]`: total, squares and variance."""
        return torch.stack([self.total, self.squares, self.variance])


__all__ = ["DSnoT", "InputMoments"]
