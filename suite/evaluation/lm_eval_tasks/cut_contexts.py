"""Which requests lost the start of their context because the model has no positions for it.

lm-eval cuts a context that is too long from the left, and says so on its log alone. What is then asked is no
longer the question of the task: examples are missing, or the beginning of a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class RequestLength(NamedTuple):
    """How much room a request needs."""

    task: str | None
    """The task that asks; None where lm-eval does not say."""
    n_read: int
    """Tokens that the model reads, before anything is cut."""
    n_written: int
    """Tokens kept free for an answer that the model writes; 0 where it only scores one."""


def cut_contexts(lengths: Iterable[RequestLength], n_positions: int) -> Iterator[tuple[str | None, str]]:
    """Counts what was cut, for each task and each length of its answers.

    Args:
        lengths: all requests.
        n_positions: as many tokens as the model takes, read and written together.

    Yields:
        A task, and a remark on how many of its requests were cut; nothing for a task that lost none.
    """
    asked: Counter[tuple[str | None, int]] = Counter()
    cut: Counter[tuple[str | None, int]] = Counter()
    for task, n_read, n_written in lengths:
        asked[task, n_written] += 1
        cut[task, n_written] += n_read + n_written > n_positions
    for (task, n_written), n_asked in asked.items():
        if n_cut := cut[task, n_written]:
            were, their = ("was", "its") if n_cut == 1 else ("were", "their")
            room = f"the model's {n_positions} positions"
            if n_written:
                room += f" less the {n_written} kept for an answer"
            lost = f"longer than {room} and lost the start of {their} context"
            yield task, f"{n_cut} of {n_asked} requests {were} {lost}"


__all__ = ["RequestLength", "cut_contexts"]
