"""The number of threads that a cell computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def using_threads(n: int | None) -> Iterator[None]:
    """Runs the body with `n` intra-op threads of torch, then restores the number; None changes nothing."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["using_threads"]
