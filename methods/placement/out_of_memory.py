"""Distinguishes out-of-memory errors from all other errors."""

from __future__ import annotations

import torch

_MESSAGES = (
    *("can't allocate memory", "not enough memory"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED"),
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of messages of out-of-memory errors for which torch has no error class: of host memory, and of
libraries that allocate device memory themselves."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` was raised because the device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MESSAGES)


__all__ = ["is_out_of_memory"]
