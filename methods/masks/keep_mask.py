"""Keep-masks, which mark the weights that survive, in packed bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.masks.bits import packed, unpacked


@dataclass(frozen=True)
class KeepMask:
    """A keep-mask in packed bits: bit 1 = the weight survives, row-major, highest bit first."""

    bits: bytes
    shape: tuple[int, ...]

    @classmethod
    def pack(cls, keep: Tensor) -> KeepMask:
        """Packs a bool tensor of any shape."""
        if keep.dtype != torch.bool:
            raise TypeError(f"a keep-mask is bool, not {keep.dtype}")
        # Pack on the tensor's device, so that only an eighth of the bytes is copied to the host.
        on_host = keep.device.type == "cpu"
        bits = np.packbits(keep.numpy().ravel()) if on_host else packed(keep).cpu().numpy()
        return cls(bits.tobytes(), tuple(keep.shape))

    def unpack(self, device: torch.device | None = None) -> Tensor:
        """Returns the mask as a bool tensor of the original shape, on `device` (None = the CPU)."""
        if device is not None and device.type != "cpu":
            bits = torch.from_numpy(np.frombuffer(self.bits, dtype=np.uint8).copy()).to(device)
            return unpacked(bits, self.numel).reshape(self.shape)
        flat = np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8), count=self.numel)
        return torch.from_numpy(flat.view(np.bool_)).reshape(self.shape)

    @property
    def numel(self) -> int:
        """Number of weights that the mask covers."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def n_kept(self) -> int:
        """Number of weights that survive."""
        return int(np.bitwise_count(np.frombuffer(self.bits, dtype=np.uint8)).sum())


__all__ = ["KeepMask"]
