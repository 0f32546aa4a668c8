"""What a task is made of, the order of its items, and the form in which lm-eval takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from datasets import DatasetDict

ORDER_SEED = 0
"""Behind the one random order of items; another seed would make another version of every task."""


@dataclass(frozen=True)
class ClozeItem:
    """A text whose continuation is to be said.

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
        answer: the index of the right one.
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
        answer: the index of the one.
    """

    contexts: tuple[str, ...]
    continuation: str
    answer: int


Item = TypeVar("Item", ClozeItem, ChoiceItem, ContextItem)


def in_random_order(items: Iterable[Item], text: Callable[[Item], str]) -> list[Item]:
    """The items in an order that has nothing to do with what they say: any prefix is a fair sample.

    Args:
        items: in any order.
        text: a text of an item that no other has.
    """
    return sorted(items, key=lambda item: fixed_rank(text(item)))


def fixed_rank(text: str) -> bytes:
    """What a text is sorted by where the order shall be random.

    A digest is the same on every machine and for ever, which nobody promises of a random generator.
    """
    return hashlib.sha256(f"{ORDER_SEED}\0{text}".encode()).digest()


def with_right_at(position: int, right: str, wrong: Sequence[str]) -> tuple[str, ...]:
    """The wrong ones in their order, and the right one at `position` among them."""
    return (*wrong[:position], right, *wrong[position:])


def as_dataset(items: Iterable[ClozeItem | ChoiceItem | ContextItem]) -> DatasetDict:
    """The items as the `test` split of a data set, a column for each of their attributes."""
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
