"""Work done batch by batch, in smaller batches where memory runs out."""

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
    """What `run` makes of the items, in their order; where memory runs out, in smaller batches.

    Args:
        items: anything that can be sliced: a list, or a tensor by its first dimension.
        size: items in a batch.
        run: gives an outcome an item.
        on_done: called with the number of items done, batch by batch.
        on_halved: called with the number of items in a batch from then on, where memory ran out.
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
        # Out here the error is gone, and with it what its frames held.
        size = len(batch) // 2
        if on_halved is not None:
            on_halved(size)
    return outcomes


__all__ = ["in_batches"]
