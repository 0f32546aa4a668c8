"""Hooks that record the inputs and outputs of blocks during a forward, and that end a forward early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from methods.errors import StructureError
from methods.structure.decoder import Block, first_tensor


class Reached(BaseException):
    """Ends a forward early, once the recorded values are complete."""


@dataclass(frozen=True)
class BlockCall:
    """One call of a block on one batch: its arguments and its output."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor


@contextmanager
def watching(blocks: Sequence[Block], *, copies: bool = False) -> Iterator[list[BlockCall]]:
    """Records the calls of `blocks` while the body runs.

    Args:
        blocks: the blocks of one decoder layer.
        copies: whether to copy outputs. Needed if the forward goes on afterwards, because a layer may add to
            an output in place.

    Yields:
        A list that is filled when the body ends: one call per block, in the order of `blocks`.

    Raises:
        StructureError: the layer did not call one of them.
    """
    inputs: dict[int, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}
    outputs: dict[int, Tensor] = {}
    calls: list[BlockCall] = []
    with ExitStack() as hooks:
        for index, block in enumerate(blocks):

            def entered(_: nn.Module, args: Any, kwargs: Any, index: int = index) -> None:
                inputs[index] = (args, kwargs)

            def left(_: nn.Module, args: Any, output: Any, index: int = index) -> None:
                outputs[index] = first_tensor(output).clone() if copies else first_tensor(output)

            hooks.callback(block.entry.register_forward_pre_hook(entered, with_kwargs=True).remove)
            hooks.callback(block.exit.register_forward_hook(left).remove)
        yield calls
    for index, block in enumerate(blocks):
        if index not in inputs or index not in outputs:
            raise StructureError(
                f"the {block.kind} that holds {next(iter(block.targets))} is not run as a whole; expected a "
                "decoder layer to call each of its blocks"
            )
        calls.append(BlockCall(*inputs[index], outputs[index]))


@contextmanager
def ending_after(module: nn.Module) -> Iterator[None]:
    """Ends the forward that runs in the body as soon as `module` has returned."""
    hook = module.register_forward_hook(_end)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def ending_before(module: nn.Module) -> Iterator[None]:
    """Ends the forward that runs in the body as soon as `module` is called."""
    hook = module.register_forward_pre_hook(_end)
    try:
        yield
    finally:
        hook.remove()


def _end(*_: Any) -> None:
    raise Reached


__all__ = ["BlockCall", "Reached", "ending_after", "ending_before", "watching"]
