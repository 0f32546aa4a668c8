"""ADMM's update of the surviving weights, which approximates the dense outputs (arXiv 2401.02938)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from methods.engine.statistics import GramMatrix
from methods.engine.steps import Problem, Solution, Update
from methods.errors import InputError, SingularHessianError
from methods.updates.scaled_gram import ScaledGram

Chooser = Callable[[int, Tensor], Tensor | None]
"""(iteration, V + U `[out, in]`) -> a new keep-mask, or None to keep the last one."""


@dataclass(frozen=True)
class ADMMUpdate(Update):
    """The alternating direction method of multipliers with a given mask, rho = 1.

    Attributes:
        iterations: number of iterations.
        damping: damping added to the diagonal of the scaled Gram matrix, relative to its mean.
    """

    iterations: int = 20
    damping: float = 0.1

    name: ClassVar[str] = "admm-update"
    version: ClassVar[int] = 1
    statistics = (GramMatrix,)
    solver_bytes: ClassVar[int] = 12

    def __post_init__(self) -> None:
        require_admm_settings("step 'admm-update'", self.iterations, self.damping)

    def update(self, problem: Problem, found: Solution) -> Solution:
        """See `Update.update`."""
        system = ADMMSystem.of(problem, self.damping)
        weight = system.solve(
            problem.weight, self.iterations, lambda step, _: found.keep if step == 0 else None
        )[1]
        return replace(found, weight=weight, damping=self.damping)


@dataclass(frozen=True)
class ADMMSystem:
    """The matrices that all Linears with the same inputs share.

    Attributes:
        scaled: the scaled and damped Gram matrix A.
        inverse: (A + I)^-1, `[in, in]`.
    """

    scaled: ScaledGram
    inverse: Tensor

    @classmethod
    def of(cls, problem: Problem, damping: float) -> ADMMSystem:
        """Returns the system of a target's inputs, shared by all targets that read the same inputs."""
        return problem.shared((cls, damping), lambda: cls.of_gram(problem.name, problem.gram, damping))

    @classmethod
    def of_gram(cls, name: str, gram: Tensor, damping: float) -> ADMMSystem:
        """Creates the system of a Gram matrix `[in, in]`, in its dtype.

        Raises:
            SingularHessianError: A + I cannot be factorized; names `name`.
        """
        scaled = ScaledGram.damped_last(gram, damping)
        shifted = scaled.matrix.clone()
        shifted.diagonal().add_(1)
        lower, failed = torch.linalg.cholesky_ex(shifted)
        if int(failed):
            raise SingularHessianError(f"{name}: its scaled Gram matrix is not positive")
        return cls(scaled, torch.cholesky_inverse(lower))

    def solve(self, weight: Tensor, iterations: int, choose: Chooser) -> tuple[Tensor, Tensor]:
        """Iterates V = (T + Z - U) R, Z = V + U where kept, U += V - Z, with R = (A + I)^-1.

        Args:
            weight: dense weight, `[out, in]`.
            iterations: number of iterations.
            choose: chooses the mask; it must return one in the first iteration.

        Returns:
            keep bool `[out, in]` and the new weight `[out, in]`, zero where pruned.
        """
        scale = self.scaled.scale
        v = weight * scale
        targets = self.scaled.targets(v)
        u = torch.zeros_like(v)
        keep: Tensor | None = None
        for iteration in range(iterations):
            # `u` is now V + U; Z is its kept part.
            u += v
            chosen = choose(iteration, u)
            keep = keep if chosen is None else chosen
            assert keep is not None
            z = u.masked_fill(~keep, 0)
            u -= z
            v = (targets + z - u) @ self.inverse
        assert keep is not None
        return keep, u.add_(v).masked_fill_(~keep, 0).div_(scale)


def require_admm_settings(owner: str, iterations: int, damping: float) -> None:
    """Raises `InputError` for iterations below 1 or a negative damping."""
    if iterations < 1:
        raise InputError(f"{owner}: iterations must be at least 1, not {iterations}")
    if not 0 <= damping < inf:
        raise InputError(f"{owner}: damping must be at least 0, not {damping:g}")


__all__ = ["ADMMSystem", "ADMMUpdate", "require_admm_settings"]
