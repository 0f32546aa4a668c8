"""Items of tasks, their order, and their conversion to lm-eval's format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from datasets import DatasetDict

ORDER_SEED = 0
"""Seed of the random order of items; changing it changes every task and needs new task versions."""


@dataclass(frozen=True)
class ClozeItem:
    """A text whose continuation is to be predicted.

    Attributes:
        context: the text up to the continuation, without white space at its end.
        continuation: what follows, with the white space before it.
    """

    context: str
    continuation: str


@dataclass(frozen=True)
class ChoiceItem:
    """A text and its possible continuations.

    Attributes:
        context: the text up to the continuation, without white space at its end.
        choices: the continuations, each with the white space before it.
        answer: the index of the correct one.
    """

    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class ContextItem:
    """A continuation and the texts that it may continue.

    Attributes:
        contexts: the texts, without white space at their ends.
        continuation: what follows one of them, with the white space before it.
        answer: the index of that text.
    """

    contexts: tuple[str, ...]
    continuation: str
    answer: int


Item = TypeVar("Item", ClozeItem, ChoiceItem, ContextItem)


def in_random_order(items: Iterable[Item], text: Callable[[Item], str]) -> list[Item]:
    """Returns the items in an order that is independent of their content: any prefix is a fair sample.

    Args:
        items: the items in any order.
        text: returns a text of an item that no other item has.
    """
    return sorted(items, key=lambda item: fixed_rank(text(item)))


def fixed_rank(text: str) -> bytes:
    """Returns the sort key of a text for a random order.

    A digest is the same on every machine and in every version, which random generators do not guarantee.
    """
    return hashlib.sha256(f"{ORDER_SEED}\0{text}".encode()).digest()


def with_right_at(position: int, right: str, wrong: Sequence[str]) -> tuple[str, ...]:
    """Returns the wrong choices in their order, with the right one inserted at `position`."""
    return (*wrong[:position], right, *wrong[position:])


def as_dataset(items: Iterable[ClozeItem | ChoiceItem | ContextItem]) -> DatasetDict:
    """Returns the items as the `test` split of a data set, with one column per attribute."""
    from datasets import Dataset, DatasetDict

    return DatasetDict({"test": Dataset.from_list([asdict(item) for item in items])})


__all__ = [
    "ChoiceItem",
    "ClozeItem",
    "ContextItem",
    "as_dataset",
    "fixed_rank",
    "in_random_order",
    "with_right_at",
]
