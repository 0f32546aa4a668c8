"""Runs a model up to its decoder layers, and records the arguments that it passes to each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from inspect import signature
from itertools import accumulate
from math import nan
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from methods.engine.hooks import Reached, ending_before
from methods.errors import StructureError
from methods.structure.decoder import Decoder
from methods.structure.forward_override import replaced_forward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    Numbers = Sequence[int] | NDArray[np.int32]


@dataclass(frozen=True)
class TokenBatch:
    """Sequences that a model processes in one forward.

    Attributes:
        input_ids: int64 `[n, seqlen]`.
        attention_mask: int64 `[n, seqlen]`, 0 at padding; None = there is no padding.
        parents: int64 `[n, seqlen]` if the tokens of a row form trees: the index of the token that precedes
            each token, or its own index if none does. A token attends to itself and to those before it on its
            path, and its position is their number. None = each token follows the one before it in the row.
    """

    input_ids: Tensor
    attention_mask: Tensor | None = None
    parents: Tensor | None = None

    @classmethod
    def padded(cls, sequences: Sequence[Numbers]) -> TokenBatch:
        """Pads sequences of several lengths at the end, where padding does not affect a causal model."""
        longest = max(map(len, sequences))
        input_ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
        mask = torch.zeros_like(input_ids)
        for row, tokens in enumerate(sequences):
            input_ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return cls(input_ids, mask)

    @classmethod
    def of_trees(cls, rows: Sequence[tuple[Numbers, Numbers]]) -> TokenBatch:
        """Pads rows of trees, given as their tokens and parents; padding attends only to itself."""
        input_ids = cls.padded([tokens for tokens, _ in rows]).input_ids
        parents = torch.arange(input_ids.shape[1]).repeat(len(rows), 1)
        for row, (_, of_row) in enumerate(rows):
            parents[row, : len(of_row)] = torch.as_tensor(of_row)
        return cls(input_ids, parents=parents)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.input_ids)

    def __getitem__(self, rows: slice) -> TokenBatch:
        """Returns a batch of the sequences in `rows`."""
        mask, parents = (
            None if value is None else value[rows] for value in (self.attention_mask, self.parents)
        )
        return TokenBatch(self.input_ids[rows], mask, parents)

    def split(self, sizes: Sequence[int]) -> list[TokenBatch]:
        """Splits the batch into consecutive batches of the given sizes."""
        ends = accumulate(sizes)
        return [self[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def arguments(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """Returns the arguments for the forward of a model that computes in `dtype`, on `device`."""
        input_ids = self.input_ids.to(device)
        if self.parents is not None:
            seen = _ancestors(self.parents.to(device))
            hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=device)
            mask = torch.where(seen, torch.zeros_like(hidden), hidden)[:, None]
            return {"input_ids": input_ids, "attention_mask": mask, "position_ids": seen.sum(-1) - 1}
        if self.attention_mask is None:
            return {"input_ids": input_ids}
        return {"input_ids": input_ids, "attention_mask": self.attention_mask.to(device)}


def _ancestors(parents: Tensor) -> Tensor:
    """Returns bool `[n, seqlen, seqlen]`: for each token, which tokens lie on its path, itself included."""
    n, seqlen = parents.shape
    seen = torch.eye(seqlen, dtype=torch.bool, device=parents.device).repeat(n, 1, 1)
    for _ in range(seqlen.bit_length()):  # each time, the paths become twice as long
        seen |= seen.gather(1, parents[..., None].expand_as(seen))
        parents = parents.gather(1, parents)
    return seen


@dataclass(frozen=True)
class LayerArguments:
    """The arguments that the model passes to a decoder layer besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Recorder:
    """Runs a model with its decoder layers replaced by stand-ins that record their arguments."""

    def __init__(self, decoder: Decoder) -> None:
        self._layers = [layer.module for layer in decoder.layers]
        self._name = decoder.layers[0].name.rpartition(".")[0]
        self._hidden: list[Tensor] = []
        self._arguments: list[list[LayerArguments]] = []
        self._n_given: int | None = None
        self._canonical: dict[int, Any] = {}
        self._put_away: Callable[[Tensor], Tensor] = _as_it_is

    @property
    def runs_first_layer(self) -> bool:
        """Whether the next `record` runs the first layer once, to learn the form of a layer's output."""
        return self._n_given is None

    def record(
        self,
        model: PreTrainedModel,
        batches: Sequence[TokenBatch],
        device: torch.device,
        put_away: Callable[[Tensor], Tensor],
    ) -> tuple[list[Tensor], list[list[LayerArguments]]]:
        """Records the inputs of the decoder layers.

        Args:
            model: the model that the layers belong to.
            batches: the token batches to run.
            device: the device on which it computes.
            put_away: moves a batch's hidden states to where they are kept.

        Returns:
            Hidden states `[batch, seqlen, hidden]` per batch, and per batch each layer's arguments.

        Raises:
            StructureError: a layer needs more than the hidden states that the layer before it returned.
        """
        if self._n_given is None:
            self._n_given = self._check_chain(model, batches[0][:1], device)
        self._put_away = put_away
        try:
            with ExitStack() as patches:
                for index, module in enumerate(self._layers):
                    patches.enter_context(replaced_forward(module, self._stand_in(index)))
                for batch in batches:
                    self._canonical = {}
                    self._arguments.append([])
                    with suppress(Reached):
                        model(**batch.arguments(device, model.dtype), use_cache=False)
            return self._hidden, self._arguments
        finally:
            # These lists are large and belong to the caller now: keep no reference.
            self._hidden, self._arguments, self._canonical = [], [], {}
            self._put_away = _as_it_is

    @contextmanager
    def passing(self, output: Tensor | None = None) -> Iterator[None]:
        """Lets decoder layers return their input unchanged while the body runs; call `record` before.

        Args:
            output: what the last layer returns instead, `[batch, seqlen, hidden]`.
        """
        with ExitStack() as patches:
            for module in self._layers:
                given = output if module is self._layers[-1] else None
                patches.enter_context(replaced_forward(module, self._handing_on(given)))
            yield

    def _handing_on(self, output: Tensor | None) -> Any:
        def hand_on(*args: Any, **kwargs: Any) -> Any:
            hidden, _, _ = _parted(args, kwargs)
            return self._as_a_layer_gives(hidden if output is None else output)

        return hand_on

    def _as_a_layer_gives(self, hidden: Tensor) -> Any:
        return (hidden, *[None] * (self._n_given - 1)) if self._n_given else hidden

    def _stand_in(self, index: int) -> Any:
        def note(*args: Any, **kwargs: Any) -> Any:
            hidden, args, kwargs = _parted(args, kwargs)
            if index == 0:
                self._hidden.append(self._put_away(hidden))
            self._arguments[-1].append(
                LayerArguments(self._kept(args), {key: self._kept(value) for key, value in kwargs.items()})
            )
            if index == len(self._layers) - 1:
                raise Reached
            return self._as_a_layer_gives(hidden)

        return note

    def _check_chain(self, model: PreTrainedModel, batch: TokenBatch, device: torch.device) -> int:
        """Runs the model with its first layer and stand-ins for the others, up to its output head.

        The stand-ins return NaN, so that anything the model computes from it and passes to a later layer is
        detected.

        Args:
            model: the model that the layers belong to.
            batch: the token batch to run.
            device: the device on which it computes.

        Returns:
            The length of the tuple that a layer returns, hidden states first; 0 = it returns no tuple.

        Raises:
            StructureError: the layers are not run once each in order, or a layer needs more than the hidden
                states that the layer before it returned.
        """
        n_called, n_given = 0, 0
        handed: list[Any] = []

        def stand_in(index: int, forward: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal n_called, n_given
                hidden, args, kwargs = _parted(args, kwargs)
                if index != n_called:
                    raise self._unlike(model, "are not run once each, in the order of their list")
                n_called += 1
                if index == 0:
                    try:
                        signature(forward).bind(hidden, *args, **kwargs)
                    except TypeError as error:
                        raise self._unlike(model, "do not take hidden states first") from error
                    output = forward(hidden, *args, **kwargs)
                    n_given = len(output) if isinstance(output, tuple | list) else 0
                    handed.extend(map(_as_nan, output if n_given else [output]))
                elif hidden is not handed[0]:
                    raise self._unlike(model, "get hidden states that were changed on the way")
                elif any(
                    _holds_nan(value) or any(value is h for h in handed) for value in _tensors(args, kwargs)
                ):
                    raise self._unlike(model, "are given more of what earlier ones computed")
                if n_called == len(self._layers):
                    handed[:] = map(_without_nan, handed)  # code after the layers may fail on NaN
                return tuple(handed) if n_given else handed[0]

            return call

        head = model.get_output_embeddings()
        with ExitStack() as patches:
            for index, module in enumerate(self._layers):
                patches.enter_context(replaced_forward(module, stand_in(index, module.forward)))
            patches.enter_context(suppress(Reached))
            patches.enter_context(nullcontext() if head is None else ending_before(head))
            model(**batch.arguments(device, model.dtype), use_cache=False)
        if n_called < len(self._layers):
            raise self._unlike(model, "are not all run")
        return n_given

    def _unlike(self, model: PreTrainedModel, what: str) -> StructureError:
        return StructureError(
            f"{type(model).__name__}: the layers of {self._name} {what}; expected decoder layers, each run "
            "once, on the hidden states that the one before gave and on nothing else that it computed"
        )

    def _kept(self, value: Any) -> Any:
        """Replaces tensors in `value` by equal ones of the batch before, so that they are stored once."""
        if isinstance(value, tuple):
            return tuple(self._kept(member) for member in value)
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._canonical:
            # Keep the original too, so that its id is not reused by another tensor.
            self._canonical[id(value)] = (value, self._earlier_twin(value))
        return self._canonical[id(value)][1]

    def _earlier_twin(self, value: Tensor) -> Tensor:
        if len(self._arguments) > 1:
            layer = len(self._arguments[-1])
            before = self._arguments[-2][layer]
            for twin in _tensors(before.args, before.kwargs):
                if twin.shape == value.shape and twin.dtype == value.dtype and torch.equal(twin, value):
                    return twin
        return value


def _parted(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Separates the hidden states that a layer is called with from its other arguments."""
    if args:
        return args[0], args[1:], dict(kwargs)
    if "hidden_states" not in kwargs:
        raise StructureError(
            f"a decoder layer is called with {', '.join(kwargs) or 'nothing'}; expected hidden states first"
        )
    return kwargs["hidden_states"], (), {key: kwargs[key] for key in kwargs if key != "hidden_states"}


def _as_nan(given: Any) -> Any:
    """Replaces a floating-point tensor that a layer returned by one full of NaN."""
    return torch.full_like(given, nan) if isinstance(given, Tensor) and given.is_floating_point() else given


def _without_nan(given: Any) -> Any:
    """Replaces a floating-point tensor from `_as_nan` by one full of 0."""
    return torch.zeros_like(given) if isinstance(given, Tensor) and given.is_floating_point() else given


def _holds_nan(value: Tensor) -> bool:
    """Whether any element is NaN; False for a tensor without values."""
    if isinstance(value, FakeTensor) or not value.is_floating_point():
        return False
    return bool(value.isnan().any())


def _as_it_is(hidden: Tensor) -> Tensor:
    return hidden


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    pending = [*args, *kwargs.values()]
    while pending:
        value = pending.pop()
        if isinstance(value, tuple | list):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, Tensor):
            yield value


__all__ = ["LayerArguments", "Recorder", "TokenBatch"]
