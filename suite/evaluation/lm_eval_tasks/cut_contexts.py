"""Reports requests that lost the start of their context because the model has too few positions.

lm-eval cuts contexts that are too long from the left and reports this only in its log. The model then sees a
different question: examples or the beginning of a text are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class RequestLength(NamedTuple):
    """The number of positions that a request needs."""

    task: str | None
    """The task of the request; None if lm-eval does not specify it."""
    n_read: int
    """Number of tokens that the model reads, before any cut."""
    n_written: int
    """Number of tokens reserved for an answer that the model generates; 0 if it only scores one."""


def cut_contexts(lengths: Iterable[RequestLength], n_positions: int) -> Iterator[tuple[str | None, str]]:
    """Counts the requests that were cut, per task and length of the answers.

    Args:
        lengths: the lengths of all requests.
        n_positions: the maximum number of tokens that the model can process, read and generated together.

    Yields:
        A task, and a remark on how many of its requests were cut; nothing for tasks without such requests.
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
