"""Packs booleans into bytes (eight per byte, highest bit first), and compares tensors bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = (128, 64, 32, 16, 8, 4, 2, 1)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Size of an element in bytes -> integer dtype of that size."""


def packed(flags: Tensor) -> Tensor:
    """Packs a bool tensor of any shape, row-major, like `np.packbits`: uint8 `[ceil(numel / 8)]`."""
    flat = flags.reshape(-1).view(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).reshape(-1, 8)
    return (padded * _bits(flags.device)).sum(-1, dtype=torch.uint8)


def unpacked(bits: Tensor, count: int) -> Tensor:
    """Unpacks the first `count` booleans from uint8 `[bytes]`: bool `[count]`."""
    return ((bits[:, None] & _bits(bits.device)) != 0).reshape(-1)[:count]


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors on one device have the same dtype, shape and bytes.

    Unlike in `torch.equal`, NaN equals itself, and -0.0 differs from 0.0.
    """
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.is_complex:
        one, other = torch.view_as_real(one.resolve_conj()), torch.view_as_real(other.resolve_conj())
    as_integers = _INTEGERS.get(one.element_size()) if one.dtype.is_floating_point else None
    if as_integers is None:
        return torch.equal(one, other)
    return torch.equal(one.view(as_integers), other.view(as_integers))


def _bits(device: torch.device) -> Tensor:
    return torch.tensor(BITS, dtype=torch.uint8, device=device)


__all__ = ["packed", "same_bits", "unpacked"]
