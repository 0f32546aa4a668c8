"""Processes items in batches, and in smaller batches if memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from methods.placement.out_of_memory import is_out_of_memory

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def in_batches(
    items: Sequence[Item],
    size: int,
    run: Callable[[Sequence[Item]], list[Outcome]],
    on_done: Callable[[int], None] | None,
    on_halved: Callable[[int], None] | None,
) -> list[Outcome]:
    """Returns the outcomes of `run` for all items, in order; if memory runs out, in smaller batches.

    Args:
        items: anything that can be sliced: a list, or a tensor by its first dimension.
        size: number of items per batch.
        run: returns one outcome per item.
        on_done: called with the number of finished items after each batch.
        on_halved: called with the new batch size when memory ran out.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(items):
        batch = items[len(outcomes) : len(outcomes) + size]
        try:
            of_batch = run(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
        else:
            outcomes += of_batch
            if on_done is not None:
                on_done(len(batch))
            continue
        # Outside the except block the error is freed, and with it the tensors in its frames.
        size = len(batch) // 2
        if on_halved is not None:
            on_halved(size)
    return outcomes


__all__ = ["in_batches"]
