"""Telling that memory ran out from everything else that can go wrong."""

from __future__ import annotations

import torch

_SAID_BY_THE_HOST = ("can't allocate memory", "not enough memory")
"""torch has no error class of its own for memory of the host."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID_BY_THE_HOST)


__all__ = ["is_out_of_memory"]
