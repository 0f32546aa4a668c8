"""A model's body run over known batches: by its own forward, or layer by layer where layers are onloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base import Placement
from methods.decoder import read_decoder
from methods.recorder import TokenBatch
from methods.residence import residing
from methods.stream import LayerStream
from suite.evaluation.head import OutputHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CARRIED_BYTES = 4 * 2**30
"""Of hidden states that go through the layers together: half of what 128 x 2,048 tokens take in a prune of a
70B model. More batches make another group, for which all layers visit the device again."""


@dataclass(frozen=True)
class Body:
    """The half of a model that makes hidden states, over batches that were named before.

    Attributes:
        head: the other half.
        hidden: gives what the body hands to the head for neighbouring sequences, counted through all batches,
            `[n, seqlen, hidden]`; they have to be of one batch, or of batches as long.
        remarks: where memory ran out on the way.
    """

    head: OutputHead
    hidden: Callable[[slice], Tensor]
    remarks: tuple[str, ...] = ()


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
    taken = _taking(batches)
    probe = batches[0].input_ids[0]
    if placement.weights == "resident":
        head = OutputHead(model, probe)
        yield Body(head, lambda rows: head.hidden(**taken(rows).arguments(model.device)))
        return
    decoder = read_decoder(model)
    with (
        torch.inference_mode(),
        residing(model, decoder, placement) as residence,
        residence.around_layers(),
    ):
        stream = LayerStream(model, decoder, batches, residence)
        for layer in decoder.layers:
            with residence.visiting(layer, read_only=True):
                stream.carry(layer, on_passed)
        carried = [row for batch in stream.hidden for row in batch]
        with stream.passing():
            # The halves of a model without layers hold together as those of the whole one do.
            head = OutputHead(model, probe)

        def hidden(rows: slice) -> Tensor:
            with stream.passing(torch.stack(carried[rows]).to(residence.device)):
                return head.hidden(**taken(rows).arguments(residence.device))

        yield Body(head, hidden, stream.take_warnings())


def steps_each(model: PreTrainedModel, placement: Placement) -> int:
    """How many steps a sequence takes: one, and one a layer where layers are onloaded."""
    return 1 if placement.weights == "resident" else 1 + len(read_decoder(model).layers)


def in_groups(batches: Sequence[TokenBatch], model: PreTrainedModel) -> Iterator[list[TokenBatch]]:
    """Neighbouring batches whose hidden states take `CARRIED_BYTES` at most, or a single one."""
    of_token = model.config.get_text_config().hidden_size * model.dtype.itemsize
    group: list[TokenBatch] = []
    taken = 0
    for batch in batches:
        n_bytes = batch.input_ids.numel() * of_token
        if group and taken + n_bytes > CARRIED_BYTES:
            yield group
            group, taken = [], 0
        group.append(batch)
        taken += n_bytes
    if group:
        yield group


def _taking(batches: Sequence[TokenBatch]) -> Callable[[slice], TokenBatch]:
    """Gives neighbouring sequences, counted through all batches."""
    ids = [row for batch in batches for row in batch.input_ids]
    masks = [
        row
        for batch in batches
        for row in ([None] * len(batch) if batch.attention_mask is None else batch.attention_mask)
    ]

    def taken(rows: slice) -> TokenBatch:
        known = [mask for mask in masks[rows] if mask is not None]
        return TokenBatch(torch.stack(ids[rows]), torch.stack(known) if known else None)

    return taken


__all__ = ["Body", "in_groups", "running", "steps_each"]
