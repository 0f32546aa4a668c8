"""Hooks that see what a block is given and gives while a forward runs, and that end the forward early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from methods.errors import StructureError
from methods.structure.decoder import Block, first_tensor


class Reached(BaseException):
    """Ends a forward early, once what it was run for has been seen."""


@dataclass(frozen=True)
class BlockCall:
    """One call of a block on one batch: what went in and what came out."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor


@contextmanager
def watching(blocks: Sequence[Block], *, copies: bool = False) -> Iterator[list[BlockCall]]:
    """Notes the calls of `blocks` while the body runs; the list is in the order of `blocks` at its end.

    Args:
        blocks: of one decoder layer.
        copies: whether outputs are copied, for a forward that goes on: a layer may add to one in place.

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
    """Ends the forward that runs in the body as soon as `module` is done."""
    hook = module.register_forward_hook(_end)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def ending_before(module: nn.Module) -> Iterator[None]:
    """Ends the forward that runs in the body as soon as `module` is reached."""
    hook = module.register_forward_pre_hook(_end)
    try:
        yield
    finally:
        hook.remove()


def _end(*_: Any) -> None:
    raise Reached


__all__ = ["BlockCall", "Reached", "ending_after", "ending_before", "watching"]
