"""Booleans in packed bits, on whatever device they are: eight in a byte, the first one in its highest bit."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = (128, 64, 32, 16, 8, 4, 2, 1)


def packed(flags: Tensor) -> Tensor:
    """What `np.packbits` makes of a bool tensor of any shape, row-major: uint8 `[ceil(numel / 8)]`."""
    flat = flags.reshape(-1).view(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).reshape(-1, 8)
    return (padded * _bits(flags.device)).sum(-1, dtype=torch.uint8)


def unpacked(bits: Tensor, count: int) -> Tensor:
    """The first `count` booleans of uint8 `[bytes]`: bool `[count]`."""
    return ((bits[:, None] & _bits(bits.device)) != 0).reshape(-1)[:count]


def _bits(device: torch.device) -> Tensor:
    return torch.tensor(BITS, dtype=torch.uint8, device=device)


__all__ = ["packed", "unpacked"]
