"""Telling that memory ran out from everything else that can go wrong."""

from __future__ import annotations

import torch

_SAID = (
    *("can't allocate memory", "not enough memory"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED"),
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""torch has no error class for memory of the host, nor for what libraries ask of the device themselves."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


__all__ = ["is_out_of_memory"]
