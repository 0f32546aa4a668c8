"""Reads single tensors from safetensors files, without holding the rest of the file in memory.

The library's own reader maps the whole file into the process as private memory, which counts against a memory
limit. The format is simple: eight bytes of length, a JSON header with each tensor's offsets, the bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.errors import InputError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_LENGTH = struct.Struct("<Q")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}


@dataclass(frozen=True)
class StoredTensor:
    """Position and type of one tensor in a file.

    Attributes:
        file: the file that contains it.
        dtype: the dtype in which it is stored.
        shape: its shape.
        start: offset of its first byte in the file.
    """

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def n_bytes(self) -> int:
        """Size of the tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorFiles:
    """Reads the tensors of some safetensors files by name.

    Attributes:
        stored: tensor name -> its position and type.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Reads the headers.

        Raises:
            InputError: a file is damaged; names it.
            OSError: a file cannot be read.
        """
        self.stored: dict[str, StoredTensor] = {}
        for file in files:
            self.stored.update(_read_header(file))

    @classmethod
    def of_folder(cls, folder: Path) -> TensorFiles:
        """Opens a checkpoint folder, which contains `model.safetensors` or the index of its shards.

        Raises:
            InputError: a file is damaged, or a shard lacks a tensor that the index lists.
            OSError: a file cannot be read.
        """
        # If both exist, transformers reads the single file.
        if (folder / SINGLE_FILE).is_file():
            return cls([folder / SINGLE_FILE])
        index = folder / INDEX_FILE
        try:
            shard_of: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = cls(folder / shard for shard in sorted(set(shard_of.values())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{index}: is not an index of safetensors files") from error
        if absent := sorted(shard_of.keys() - files.stored.keys()):
            raise InputError(f"{index}: lists {absent[0]}, which {shard_of[absent[0]]} does not contain")
        return files

    def read(self, name: str, *, dtype: torch.dtype | None = None, pinned: bool = False) -> Tensor:
        """Reads one tensor into newly allocated CPU memory.

        Args:
            name: name of the tensor.
            dtype: the dtype to cast it to; None = as it is stored.
            pinned: whether to return pinned memory, from which a GPU can copy asynchronously.

        Raises:
            InputError: the file ends before the tensor does; names the file.
            OSError: the file cannot be read.
        """
        (found,) = self.read_all({name: dtype}, pinned=pinned).values()
        return found

    def floating(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yields (name, tensor) for the floating-point tensors among `names`, reading one at a time."""
        for name in names:
            if self.stored[name].dtype.is_floating_point:
                yield name, self.read(name)

    def read_all(
        self, wanted: Mapping[str, torch.dtype | None], *, pinned: bool = False
    ) -> dict[str, Tensor]:
        """Reads several tensors, opening each file once; `wanted` is name -> dtype to cast to. See `read`."""
        found: dict[str, Tensor] = {}
        by_file: dict[Path, list[str]] = {}
        for name in wanted:
            by_file.setdefault(self.stored[name].file, []).append(name)
        for path, names in by_file.items():
            with path.open("rb", buffering=0) as file:
                for name in sorted(names, key=lambda name: self.stored[name].start):
                    found[name] = _read(file, self.stored[name], wanted[name], pinned)
        return {name: found[name] for name in wanted}


def _read(file: Any, stored: StoredTensor, dtype: torch.dtype | None, pinned: bool) -> Tensor:
    cast = dtype is not None and dtype != stored.dtype
    raw = torch.empty(stored.n_bytes, dtype=torch.uint8, pin_memory=pinned and not cast)
    view, n_read = raw.numpy().data, 0
    file.seek(stored.start)
    while n_read < stored.n_bytes:
        # One call reads at most two gigabytes.
        if not (n_more := file.readinto(view[n_read:])):
            raise InputError(f"{stored.file}: ends before its tensors do; download or copy it again")
        n_read += n_more
    tensor = raw.view(stored.dtype).reshape(stored.shape)
    if not cast:
        return tensor
    return torch.empty(stored.shape, dtype=dtype, pin_memory=pinned).copy_(tensor)


def _read_header(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else size
        start = _LENGTH.size + length
        if start > size:
            raise InputError(f"{path}: is not a safetensors file, or is truncated")
        text = file.read(length)
    try:
        header = json.loads(text)
        end_of_last = start
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in _DTYPES:
                raise InputError(
                    f"{path}: {name} is stored as {entry['dtype']}, which is not supported; quantized "
                    "weights cannot be read"
                )
            stored = StoredTensor(path, _DTYPES[entry["dtype"]], tuple(entry["shape"]), start + begin)
            if end - begin != stored.n_bytes or begin < 0:
                raise InputError(f"{path}: the offsets of {name} in the file do not fit its shape")
            if start + end > size:
                raise InputError(f"{path}: ends before its tensors do; download or copy it again")
            end_of_last = max(end_of_last, start + end)
            yield name, stored
        if end_of_last != size:
            raise InputError(f"{path}: is longer than its tensors; download or copy it again")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not a safetensors file, or its header is damaged") from error


__all__ = ["INDEX_FILE", "SINGLE_FILE", "StoredTensor", "TensorFiles"]
