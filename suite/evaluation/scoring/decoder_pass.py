"""A model's body run over known batches: by its own forward, or layer by layer where layers are onloaded."""

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

CARRIED_BYTES = 4 * 2**30
"""Of hidden states that go through the layers together: half of what 128 x 2,048 tokens take in a prune of a
70B model. More batches make another group, for which all layers visit the device again."""


class Body:
    """The half of a model that makes hidden states, over known batches.

    Attributes:
        head: the other half.
        batches: what it is run on, in order; cut smaller than they were given where memory ran out.
        remarks: where memory ran out on the way through the layers.
    """

    def __init__(
        self,
        head: OutputHead,
        batches: Sequence[TokenBatch],
        hidden: Callable[[int, slice], Tensor],
        remarks: tuple[str, ...] = (),
    ) -> None:
        """Takes what gives the hidden states `[n, seqlen, hidden]` of some rows of a batch, by its number."""
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
        """An outcome a sequence, in order. Where memory runs out a batch is halved, and so are those to come.

        Args:
            score: makes outcomes of hidden states `[n, seqlen, hidden]` and of the places of their sequences,
                counted through all batches.
            on_done: called with the number of sequences done, batch by batch.
            on_halved: called with the number of sequences in a batch from then on, and their seqlen.
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
        """The outcomes of neighbouring members of batch `number`, whose first sequence has place `first`."""
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
    """The body of `model`, wherever its decoder layers are.

    Onloaded ones visit the device once for all batches, which go through one layer, then through the next.
    What is computed is what the model's own forward computes: what comes before the layers, each of them, and
    what comes after, with the arguments that it passes.

    Args:
        model: a causal language model in evaluation mode.
        batches: what it will be asked for.
        placement: where its layers are.
        on_passed: called with the number of sequences that were carried through one layer, batch by batch, as
            often as `steps_each` says, less the last.

    Raises:
        HeadError: the model cannot be taken apart into body and head.
        StructureError: its layers are onloaded and cannot be found.
    """
    probe = batches[0].input_ids[0]
    if placement.weights == "resident":
        head = OutputHead(model, probe)

        def hidden(number: int, rows: slice) -> Tensor:
            return head.hidden(**batches[number][rows].arguments(model.device))

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
            # The halves of a model without layers hold together as those of the whole one do.
            head = OutputHead(model, probe)

        def carried(number: int, rows: slice) -> Tensor:
            with stream.passing(stream.on_device(number)[rows]):
                return head.hidden(**stream.batches[number][rows].arguments(residence.device))

        yield Body(head, stream.batches, carried, stream.take_warnings())


def steps_each(model: PreTrainedModel, placement: Placement) -> int:
    """How many steps a sequence takes: one, and one a layer where layers are onloaded."""
    return 1 if placement.weights == "resident" else 1 + len(read_decoder(model).layers)


def in_groups(
    batches: Iterable[TokenBatch], model: PreTrainedModel, placement: Placement
) -> Iterator[list[TokenBatch]]:
    """Neighbouring batches that are run together: what `CARRIED_BYTES` hold, or all where nothing is carried.

    What the masks of their padding take, at most a number for each two tokens, is counted too. A batch is
    asked for when the group before it is done, but for one.
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
        if group and taken + n_bytes > CARRIED_BYTES:
            yield group
            group, taken = [], 0
        group.append(batch)
        taken += n_bytes
    if group:
        yield group


__all__ = ["Body", "in_groups", "running", "steps_each"]
