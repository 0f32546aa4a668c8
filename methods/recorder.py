"""Runs a model up to its decoder layers, and notes what it would give each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from methods.decoder import Decoder
from methods.patching import replaced_forward
from methods.watching import Reached

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TokenBatch:
    """Sequences that a model runs at once.

    Attributes:
        input_ids: int64 `[n, seqlen]`.
        attention_mask: int64 `[n, seqlen]`, 0 where there is padding; None = there is none.
    """

    input_ids: Tensor
    attention_mask: Tensor | None = None

    @classmethod
    def padded(cls, sequences: Sequence[Sequence[int]]) -> TokenBatch:
        """Sequences of several lengths. Padding comes last, where a causal model does not see it."""
        longest = max(map(len, sequences))
        input_ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
        mask = torch.zeros_like(input_ids)
        for row, tokens in enumerate(sequences):
            input_ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return cls(input_ids, mask)

    def __len__(self) -> int:
        """How many sequences."""
        return len(self.input_ids)

    def __getitem__(self, rows: slice) -> TokenBatch:
        """Some of the sequences."""
        mask = self.attention_mask
        return TokenBatch(self.input_ids[rows], None if mask is None else mask[rows])

    def split(self, sizes: Sequence[int]) -> list[TokenBatch]:
        """Neighbouring parts of so many sequences."""
        ends = accumulate(sizes)
        return [self[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def arguments(self, device: torch.device) -> dict[str, Tensor]:
        """What a model's forward is given, on `device`."""
        given = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return {name: value.to(device) for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class LayerArguments:
    """What the model passes to a decoder layer besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Recorder:
    """Lets a model run with stand-ins for its decoder layers, which note what each of them is given."""

    def __init__(self, decoder: Decoder) -> None:
        self._layers = [layer.module for layer in decoder.layers]
        self._hidden: list[Tensor] = []
        self._arguments: list[list[LayerArguments]] = []
        self._gives_tuple: bool | None = None
        self._canonical: dict[int, Any] = {}
        self._put_away: Callable[[Tensor], Tensor] = _as_it_is

    @property
    def runs_first_layer(self) -> bool:
        """Whether the first layer itself is still to be run once, to see what a layer gives."""
        return self._gives_tuple is None

    def record(
        self,
        model: PreTrainedModel,
        batches: Sequence[TokenBatch],
        device: torch.device,
        put_away: Callable[[Tensor], Tensor],
    ) -> tuple[list[Tensor], list[list[LayerArguments]]]:
        """What enters the decoder layers.

        Args:
            model: whose layers these are.
            batches: what it runs.
            device: where it computes.
            put_away: moves a batch's hidden states to where they are kept.

        Returns:
            A batch's hidden states `[batch, seqlen, hidden]`, and for each batch each layer's arguments.
        """
        self._put_away = put_away
        try:
            with ExitStack() as patches:
                for index, module in enumerate(self._layers):
                    stand_in = self._stand_in(index, module.forward)
                    patches.enter_context(replaced_forward(module, stand_in))
                for batch in batches:
                    self._canonical = {}
                    self._arguments.append([])
                    with suppress(Reached):
                        model(**batch.arguments(device), use_cache=False)
            return self._hidden, self._arguments
        finally:
            # They are as large as anything in memory, and somebody else's from here on.
            self._hidden, self._arguments, self._canonical = [], [], {}
            self._put_away = _as_it_is

    @contextmanager
    def passing(self, output: Tensor | None = None) -> Iterator[None]:
        """While the body runs, decoder layers hand on the hidden states they are given; `record` came before.

        Args:
            output: what the last layer gives instead, `[batch, seqlen, hidden]`.
        """
        with ExitStack() as patches:
            for module in self._layers:
                given = output if module is self._layers[-1] else None
                patches.enter_context(replaced_forward(module, self._handing_on(given)))
            yield

    def _handing_on(self, output: Tensor | None) -> Any:
        def hand_on(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            return self._as_a_layer_gives(hidden if output is None else output)

        return hand_on

    def _as_a_layer_gives(self, hidden: Tensor) -> Any:
        return (hidden,) if self._gives_tuple else hidden

    def _stand_in(self, index: int, forward: Any) -> Any:
        def note(*args: Any, **kwargs: Any) -> Any:
            if args:
                hidden, args = args[0], args[1:]
            else:
                hidden = kwargs.pop("hidden_states")
            if index == 0:
                self._hidden.append(self._put_away(hidden))
            self._arguments[-1].append(
                LayerArguments(self._kept(args), {key: self._kept(value) for key, value in kwargs.items()})
            )
            if self._gives_tuple is None:
                self._gives_tuple = isinstance(forward(hidden, *args, **kwargs), tuple)
            if index == len(self._layers) - 1:
                raise Reached
            return self._as_a_layer_gives(hidden)

        return note

    def _kept(self, value: Any) -> Any:
        """`value`, its tensors replaced by equal ones of the batch before, so that they are held once."""
        if isinstance(value, tuple):
            return tuple(self._kept(member) for member in value)
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._canonical:
            # The original is kept too: while it lives its id cannot pass to another tensor.
            self._canonical[id(value)] = (value, self._earlier_twin(value))
        return self._canonical[id(value)][1]

    def _earlier_twin(self, value: Tensor) -> Tensor:
        if len(self._arguments) > 1:
            layer = len(self._arguments[-1])
            for twin in _tensors(self._arguments[-2][layer]):
                if twin.shape == value.shape and twin.dtype == value.dtype and torch.equal(twin, value):
                    return twin
        return value


def _as_it_is(hidden: Tensor) -> Tensor:
    return hidden


def _tensors(given: LayerArguments) -> Iterator[Tensor]:
    pending = [*given.args, *given.kwargs.values()]
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending.extend(value)
        elif isinstance(value, Tensor):
            yield value


__all__ = ["LayerArguments", "Recorder", "TokenBatch"]
