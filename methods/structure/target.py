"""A matrix to prune, seen as the weight `[out, in]` of a Linear whatever way the model stores it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from methods.masks.keep_mask import KeepMask
from methods.structure.experts import RoutedForward


@dataclass(frozen=True)
class Target:
    """One target module, or one expert's matrix where experts are stacked in one parameter.

    Attributes:
        name: how reports call it: the module's dotted name, or `...experts.gate_up_proj[3]`.
        module: the module that holds the parameter.
        attribute: the parameter's name in that module.
        parameter_name: its dotted name in the model.
        transposed: stored `[in, out]`, as GPT-2's `Conv1D` does.
        expert: which matrix of a stacked parameter; None where the parameter is the matrix.
    """

    name: str
    module: nn.Module
    attribute: str
    parameter_name: str
    transposed: bool = False
    expert: int | None = None

    @property
    def mask_name(self) -> str:
        """Its key in `PruneResult.keep`: the parameter's name, with the expert's index."""
        return self.parameter_name if self.expert is None else f"{self.parameter_name}[{self.expert}]"

    @property
    def stored(self) -> Tensor:
        """The matrix as the model stores it: a view, without gradient."""
        parameter: Tensor = getattr(self.module, self.attribute).detach()
        return parameter if self.expert is None else parameter[self.expert]

    @property
    def weight(self) -> Tensor:
        """The matrix `[out, in]`: a view, without gradient."""
        return self.turned(self.stored)

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)`."""
        rows, columns = self.weight.shape
        return rows, columns

    @property
    def n_inputs(self) -> int:
        """How many inputs it reads."""
        return self.shape[1]

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.stored.device

    def turned(self, matrix: Tensor) -> Tensor:
        """`matrix` from the way it is stored to `[out, in]`, or back."""
        return matrix.T if self.transposed else matrix

    def write(self, weight: Tensor, keep: Tensor) -> None:
        """Stores `weight` `[out, in]` where `keep` is True, and exact zeros elsewhere."""
        zero = torch.zeros((), dtype=weight.dtype, device=weight.device)
        self.weight.copy_(torch.where(keep, weight, zero))

    def pack(self, keep: Tensor) -> KeepMask:
        """The keep-mask of bool `[out, in]`, laid out as the matrix is stored."""
        return KeepMask.pack(self.turned(keep))

    def unpack(self, mask: KeepMask, device: torch.device | None = None) -> Tensor:
        """The bool `[out, in]` of its keep-mask, on the CPU or `device`."""
        return self.turned(mask.unpack(device))


@dataclass(frozen=True)
class TargetCall:
    """One call of a target while a forward ran.

    Attributes:
        target: which one.
        x: what it read, `[..., in]`.
        y: what it gave, `[..., out]`.
        tokens: int64 `[N]`, ascending: which tokens of the batch the rows of `x` `[N, in]` are, where a
            router chose them; None where it read all tokens in their order.
    """

    target: Target
    x: Tensor
    y: Tensor
    tokens: Tensor | None = None


@contextmanager
def noting_calls(targets: Mapping[str, Target], note: Callable[[TargetCall], None]) -> Iterator[None]:
    """Calls `note` with every call of `targets` while the body runs a forward, as soon as it is made.

    Experts in one parameter are seen only inside `stream.at_rest`.
    """
    routed: dict[int, tuple[RoutedForward, dict[tuple[str, int], Target]]] = {}
    with ExitStack() as hooks:
        for target in targets.values():
            if target.expert is None:
                hooks.callback(_hook(target, note))
            else:
                forward = cast(RoutedForward, target.module.forward)
                _, members = routed.setdefault(id(target.module), (forward, {}))
                members[target.attribute, target.expert] = target
        for forward, members in routed.values():

            def noted(
                attribute: str,
                expert: int,
                x: Tensor,
                y: Tensor,
                tokens: Tensor,
                members: Mapping[tuple[str, int], Target] = members,
            ) -> None:
                if target := members.get((attribute, expert)):
                    note(TargetCall(target, x, y, tokens))

            hooks.enter_context(forward.noting(noted))
        yield


@contextmanager
def noting_inputs(targets: Mapping[str, Target], note: Callable[[Target, Tensor], None]) -> Iterator[None]:
    """Calls `note` with a target and what it reads, `[..., in]`, before it is run where it is a module.

    So a forward that is run for these inputs alone may end there. Experts in one parameter are noted as
    `noting_calls` does.
    """
    stacked = {name: target for name, target in targets.items() if target.expert is not None}
    with ExitStack() as hooks:
        for target in targets.values():
            if target.expert is None:
                hooks.callback(_pre_hook(target, note))
        if stacked:
            hooks.enter_context(noting_calls(stacked, lambda call: note(call.target, call.x)))
        yield


def _pre_hook(target: Target, note: Callable[[Target, Tensor], None]) -> Callable[[], None]:
    def reached(_: nn.Module, args: tuple[Any, ...]) -> None:
        note(target, args[0])

    return target.module.register_forward_pre_hook(reached).remove


def _hook(target: Target, note: Callable[[TargetCall], None]) -> Callable[[], None]:
    def called(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        note(TargetCall(target, args[0], output))

    return target.module.register_forward_hook(called).remove


__all__ = ["Target", "TargetCall", "noting_calls", "noting_inputs"]
