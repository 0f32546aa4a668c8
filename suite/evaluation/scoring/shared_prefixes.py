"""Packs inputs into rows for a model to read, so that what several inputs begin with is read once.

The options of a question share its text, and questions may share their examples. In a row, the tokens of such
inputs form a tree: each common beginning is there once, and every token attends to those before it on its own
path only, at the position that it has in its input (`methods.engine.layer_inputs.TokenBatch.parents`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from methods.engine.layer_inputs import TokenBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    Indices = NDArray[np.int32]

ROW_TOKENS = 256
"""Tokens per row with several inputs. Longer rows share more, but the attention of each token, masked or not,
covers the whole row."""
MORE_TOKENS = 1024
"""Rows with inputs too long for `ROW_TOKENS` may be twice as long as an input, but longer by at most so many
tokens, because the mask takes memory that grows with the square of a row's length."""


@dataclass(frozen=True)
class Row:
    """Inputs that a model reads as one sequence.

    Attributes:
        tokens: int32 `[n]`.
        parents: int32 `[n]`, the index of the token that precedes each token in its inputs, or its own index
            if it is the first of its inputs; None = the row is one input.
        members: indices of the inputs, in the order of `places`.
        places: for each input, the indices in the row of the tokens it was packed for.
        branches: those of `members` whose tokens are not neighbours in the row: other inputs are in between.
    """

    tokens: Indices
    parents: Indices | None
    members: tuple[int, ...]
    places: tuple[Indices, ...]
    branches: tuple[int, ...] = ()


def separate_rows(inputs: Sequence[Indices], n_last: Sequence[int]) -> list[Row]:
    """Returns one row per input, in order.

    Args:
        inputs: token ids, int32 `[n_tokens]` each.
        n_last: for each input, how many of its last tokens a row's `places` lead to.
    """
    return [
        Row(tokens, None, (index,), (np.arange(len(tokens) - n, len(tokens), dtype=np.int32),))
        for index, (tokens, n) in enumerate(zip(inputs, n_last, strict=True))
    ]


def shared_rows(inputs: Sequence[Indices], n_last: Sequence[int]) -> list[Row]:
    """Packs inputs into as few tokens as their common beginnings allow, the longest row first.

    Args:
        inputs: distinct token ids, int32 `[n_tokens]` each.
        n_last: as in `separate_rows`.
    """
    rows = []
    row = _OpenRow()
    # Big-endian bytes sort like the tokens: inputs that begin alike become neighbours.
    for index in sorted(range(len(inputs)), key=lambda index: inputs[index].astype(">i4").tobytes()):
        tokens = inputs[index]
        limit = max(ROW_TOKENS, len(tokens) + min(len(tokens), MORE_TOKENS))
        if row.members and row.n_tokens + len(tokens) - row.n_shared(tokens) > limit:
            rows.append(row.closed())
            row = _OpenRow()
        row.add(index, tokens, n_last[index])
    if row.members:
        rows.append(row.closed())
    return sorted(rows, key=lambda row: (-len(row.tokens), row.members))


class _OpenRow:
    """A row to which inputs are added in lexicographic order."""

    def __init__(self) -> None:
        self.n_tokens = 0
        self.members: list[int] = []
        self._branches: list[int] = []
        self._places: list[Indices] = []
        self._tokens: list[Indices] = []
        self._parents: list[Indices] = []
        self._last: Indices = np.zeros(0, dtype=np.int32)
        self._path: Indices = np.zeros(0, dtype=np.int32)  # where the tokens of the last input are

    def n_shared(self, tokens: Indices) -> int:
        """Returns the number of first tokens that the row has already: those of the last input added."""
        n = min(len(tokens), len(self._last))
        different = np.flatnonzero(tokens[:n] != self._last[:n])
        return int(different[0]) if len(different) else n

    def add(self, index: int, tokens: Indices, n_last: int) -> None:
        """Adds the tokens of input `index` that the row does not have yet."""
        n_shared = self.n_shared(tokens)
        n_new = len(tokens) - n_shared
        new = np.arange(self.n_tokens, self.n_tokens + n_new, dtype=np.int32)
        parents = new - 1
        if n_new:
            parents[0] = self._path[n_shared - 1] if n_shared else new[0]
        self.members.append(index)
        self._tokens.append(tokens[n_shared:])
        self._parents.append(parents)
        self._last, self._path = tokens, np.concatenate([self._path[:n_shared], new])
        if self._path[-1] - self._path[0] >= len(tokens):
            self._branches.append(index)
        self.n_tokens += n_new
        self._places.append(self._path[len(tokens) - n_last :])

    def closed(self) -> Row:
        """Returns the finished row."""
        tokens, parents = np.concatenate(self._tokens), np.concatenate(self._parents)
        members, branches = tuple(self.members), tuple(self._branches)
        return Row(tokens, parents, members, tuple(self._places), branches)


def token_batch(rows: Sequence[Row]) -> TokenBatch:
    """Returns the batch of rows that all share, or all do not."""
    trees = [(row.tokens, row.parents) for row in rows if row.parents is not None]
    return TokenBatch.of_trees(trees) if trees else TokenBatch.padded([row.tokens for row in rows])


def longest_shared(model: PreTrainedModel) -> float:
    """Returns the length of the longest input that rows of this model may share, as far as it tells.

    0 if the model takes no positions; otherwise the number of tokens that the attention of every layer sees
    at least, because a mask given from outside replaces a layer's window.
    """
    if all("position_ids" not in signature(m.forward).parameters for m in (model, model.base_model)):
        return 0
    text = model.config.get_text_config()
    windows = (getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((window for window in windows if isinstance(window, int)), default=inf)


__all__ = ["Row", "longest_shared", "separate_rows", "shared_rows", "token_batch"]
