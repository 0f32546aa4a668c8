"""One part of a plan, cut the same way on every machine: for batch schedulers and CI matrices."""

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
        """The shard's part of a plan: neighbours, so that few models are loaded; sizes differ by one at most.

        Nothing but the plan is looked at, so all machines cut alike. With more shards than cells some are
        empty.
        """
        start, end = (len(cells) * place // self.count for place in (self.index - 1, self.index))
        return list(cells[start:end])


def parse_shard(text: str) -> Shard:
    """`2/5` as a shard.

    Raises:
        InputError: it is not i/n with i from 1 to n.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None:
        raise InputError(f"--shard {text}: write it as i/n, such as 1/4")
    index, count = int(match[1]), int(match[2])
    if not 1 <= index <= count:
        raise InputError(f"--shard {text}: shards of {count} go from 1/{count} to {count}/{count}")
    return Shard(index, count)


__all__ = ["Shard", "parse_shard"]
