"""Splits a plan into the same shards on every machine, for batch schedulers and CI matrices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from methods.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, cells: Sequence[T]) -> list[T]:
        """Returns the shard's part of a plan: consecutive cells, so that few models have to be loaded.

        Sizes differ by at most one; with more shards than cells, some are empty. The result depends only on
        the plan, so all machines split it in the same way.
        """
        start, end = (len(cells) * place // self.count for place in (self.index - 1, self.index))
        return list(cells[start:end])


def parse_shard(text: str) -> Shard:
    """Parses a shard such as `2/5`.

    Raises:
        InputError: the text is not i/n with i from 1 to n.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f"--shard {text}: write it as i/n, such as 1/4")
    index, count = int(match[1]), int(match[2])
    if not 1 <= index <= count:
        raise InputError(f"--shard {text}: shards of {count} go from 1/{count} to {count}/{count}")
    return Shard(index, count)


__all__ = ["Shard", "parse_shard"]
