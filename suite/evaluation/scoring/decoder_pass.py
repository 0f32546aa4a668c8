"""Runs a model's body over given batches: by its own forward, or layer by layer if layers are onloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from methods.base import Placement
from methods.engine.hidden_states import LayerStream
from methods.engine.layer_inputs import TokenBatch
from methods.placement.layer_loading import residing
from methods.structure.decoder import read_decoder
from suite.evaluation.scoring.batches import in_batches
from suite.evaluation.scoring.output_head import OutputHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Outcome = TypeVar("Outcome")

MAX_CARRIED_BYTES = 4 * 2**30
"""Maximum size in bytes of the hidden states that go through the layers together: half of what 128 x 2,048
tokens take when a 70B model is pruned. Further batches form another group, for which all layers are loaded
again."""


class Body:
    """The half of a model that computes hidden states, for given batches.

    Attributes:
        head: the other half.
        batches: the batches in order; smaller than the given ones if memory ran out.
        remarks: remarks for the reader: whether memory ran out on the way through the layers.
    """

    def __init__(
        self,
        head: OutputHead,
        batches: Sequence[TokenBatch],
        hidden: Callable[[int, slice], Tensor],
        remarks: tuple[str, ...] = (),
    ) -> None:
        """`hidden` returns hidden states `[n, seqlen, hidden]` for a batch index and a slice of its rows."""
        self.head = head
        self.batches = batches
        self.remarks = remarks
        self._hidden = hidden

    def score(
        self,
        score: Callable[[Tensor, slice], list[Outcome]],
        *,
        on_done: Callable[[int], None] | None = None,
        on_halved: Callable[[int, int], None] | None = None,
    ) -> list[Outcome]:
        """Returns one outcome per sequence, in order. If memory runs out, this and later batches are halved.

        Args:
            score: computes outcomes from hidden states `[n, seqlen, hidden]` and the slice of the indices of
                their sequences, counted over all batches.
            on_done: called with the number of finished sequences after each batch.
            on_halved: called with the new number of sequences per batch and their seqlen.
        """
        outcomes: list[Outcome] = []
        limit = max(batch.input_ids.numel() for batch in self.batches)

        def halved(n: int) -> None:
            nonlocal limit
            limit = n * seqlen
            if on_halved is not None:
                on_halved(n, seqlen)

        for number, batch in enumerate(self.batches):
            seqlen = batch.input_ids.shape[1]
            run = partial(self._run, score, number, len(outcomes))
            outcomes += in_batches(range(len(batch)), max(1, limit // seqlen), run, on_done, halved)
        return outcomes

    def _run(
        self,
        score: Callable[[Tensor, slice], list[Outcome]],
        number: int,
        first: int,
        members: Sequence[int],
    ) -> list[Outcome]:
        """Returns the outcomes of neighbouring members of batch `number`, which begins at index `first`."""
        start, stop = members[0], members[-1] + 1
        return score(self._hidden(number, slice(start, stop)), slice(first + start, first + stop))


@contextmanager
def running(
    model: PreTrainedModel,
    batches: Sequence[TokenBatch],
    placement: Placement,
    *,
    on_passed: Callable[[int], None] | None = None,
) -> Iterator[Body]:
    """Provides the body of `model`, wherever its decoder layers are stored.

    Onloaded layers are loaded once for all batches, which all go through one layer, then through the next.
    The computation is that of the model's own forward: the part before the layers, each layer, and the part
    after them, with the arguments that the forward passes.

    Args:
        model: a causal language model in evaluation mode.
        batches: the batches to run.
        placement: where its layers are stored.
        on_passed: called with the number of sequences that went through one layer, after each batch, in total
            `steps_each` - 1 times per sequence.

    Raises:
        HeadError: the model cannot be split into body and head.
        StructureError: its layers are onloaded and cannot be found.
    """
    probe = batches[0].input_ids[0]
    if placement.weights == "resident":
        head = OutputHead(model, probe)

        def hidden(number: int, rows: slice) -> Tensor:
            return head.hidden(**batches[number][rows].arguments(model.device, model.dtype))

        yield Body(head, batches, hidden)
        return
    decoder = read_decoder(model)
    with (
        torch.inference_mode(),
        residing(model, decoder, placement) as residence,
        residence.around_layers(),
    ):
        stream = LayerStream(model, decoder, batches, residence)
        for layer in decoder.layers:
            with residence.loaded(layer, read_only=True):
                stream.carry(layer, on_passed)
        with stream.passing():
            # The check of the two halves does not need the layers, so it runs while they are skipped.
            head = OutputHead(model, probe)

        def carried(number: int, rows: slice) -> Tensor:
            with stream.passing(stream.on_device(number)[rows]):
                batch = stream.batches[number][rows]
                return head.hidden(**batch.arguments(residence.device, model.dtype))

        yield Body(head, stream.batches, carried, stream.take_warnings())


def steps_each(model: PreTrainedModel, placement: Placement) -> int:
    """Returns the number of steps per sequence: one, plus one per layer if layers are onloaded."""
    return 1 if placement.weights == "resident" else 1 + len(read_decoder(model).layers)


def in_groups(
    batches: Iterable[TokenBatch], model: PreTrainedModel, placement: Placement
) -> Iterator[list[TokenBatch]]:
    """Yields groups of neighbouring batches to run together: all, or `MAX_CARRIED_BYTES` of them if onloaded.

    The memory of attention masks for padding, at most one number per pair of tokens, is included. Batches are
    requested lazily: only one is requested before the group preceding it is done.
    """
    if placement.weights == "resident":
        if every := list(batches):
            yield every
        return
    itemsize = model.dtype.itemsize
    hidden_size = model.config.get_text_config().hidden_size
    group: list[TokenBatch] = []
    taken = 0
    for batch in batches:
        n_bytes = batch.input_ids.numel() * (hidden_size + batch.input_ids.shape[1]) * itemsize
        if group and taken + n_bytes > MAX_CARRIED_BYTES:
            yield group
            group, taken = [], 0
        group.append(batch)
        taken += n_bytes
    if group:
        yield group


__all__ = ["Body", "in_groups", "running", "steps_each"]
