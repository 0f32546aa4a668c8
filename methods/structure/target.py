"""A matrix to prune, presented as the weight `[out, in]` of a Linear, however the model stores it."""

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
    """One target module, or one expert's matrix if experts are stacked in one parameter.

    Attributes:
        name: the name in reports: the module's dotted name, or `...experts.gate_up_proj[3]`.
        module: the module that holds the parameter.
        attribute: the parameter's name in that module.
        parameter_name: the parameter's dotted name in the model.
        transposed: whether the matrix is stored as `[in, out]`, like in GPT-2's `Conv1D`.
        expert: index of the matrix in a stacked parameter; None if the parameter is not stacked.
    """

    name: str
    module: nn.Module
    attribute: str
    parameter_name: str
    transposed: bool = False
    expert: int | None = None

    @property
    def mask_name(self) -> str:
        """Key in `PruneResult.keep`: the parameter's name, with the expert's index if it is stacked."""
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
        """Number of inputs."""
        return self.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the matrix."""
        return self.stored.device

    def turned(self, matrix: Tensor) -> Tensor:
        """Converts `matrix` from its stored layout to `[out, in]`, or back."""
        return matrix.T if self.transposed else matrix

    def write(self, weight: Tensor, keep: Tensor) -> None:
        """Writes `weight` `[out, in]` where `keep` is True, and exact zeros elsewhere."""
        zero = torch.zeros((), dtype=weight.dtype, device=weight.device)
        self.weight.copy_(torch.where(keep, weight, zero))

    def pack(self, keep: Tensor) -> KeepMask:
        """Packs bool `[out, in]` into a keep-mask in the stored layout of the matrix."""
        return KeepMask.pack(self.turned(keep))

    def unpack(self, mask: KeepMask, device: torch.device | None = None) -> Tensor:
        """Unpacks a keep-mask of this target to bool `[out, in]`, on `device` (None = the CPU)."""
        return self.turned(mask.unpack(device))


@dataclass(frozen=True)
class TargetCall:
    """One call of a target during a forward.

    Attributes:
        target: the target.
        x: its input, `[..., in]`.
        y: its output, `[..., out]`.
        tokens: int64 `[N]`, ascending: if a router chose the tokens, the index in the batch of each row of
            `x` `[N, in]`; None if the target read all tokens in order.
    """

    target: Target
    x: Tensor
    y: Tensor
    tokens: Tensor | None = None


@contextmanager
def noting_calls(targets: Mapping[str, Target], note: Callable[[TargetCall], None]) -> Iterator[None]:
    """Calls `note` right after every call of one of `targets` while the body runs a forward.

    Stacked experts are observed only inside `methods.engine.hidden_states.at_rest`.
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
    """Calls `note` with a target and its input, `[..., in]`, before the target runs if it is a module.

    A forward that is run only for these inputs may therefore end in `note`. Stacked experts are observed
    after they have run, by `noting_calls`.
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
