"""Windows carried through a model layer by layer: the whole text through one decoder layer, then the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base import CalibrationSet, Placement
from methods.decoder import read_decoder
from methods.residence import residing
from methods.stream import LayerStream
from suite.evaluation.head import OutputHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class CarriedWindows:
    """Windows behind the last decoder layer.

    Attributes:
        head: of their model, which is on its device but for the decoder layers.
        hidden: gives what the body hands to the head for a slice of the windows, `[n, seqlen, hidden]`.
        remarks: where memory ran out on the way.
    """

    head: OutputHead
    hidden: Callable[[slice], Tensor]
    remarks: tuple[str, ...]


@contextmanager
def carried(
    model: PreTrainedModel,
    input_ids: Tensor,
    placement: Placement,
    *,
    batch_size: int,
    on_windows: Callable[[int], None] | None = None,
) -> Iterator[CarriedWindows]:
    """Brings every decoder layer to the device once, whatever the number of windows.

    What is computed is what the model's own forward computes: what comes before the layers, each of them, and
    what comes after, with the arguments that it passes.

    Args:
        model: a causal language model in evaluation mode.
        input_ids: int64 `[n_windows, seqlen]`.
        placement: where its layers are.
        batch_size: windows that are computed at once.
        on_windows: called with the number of windows that were carried through a layer, batch by batch.

    Raises:
        HeadError: the model cannot be taken apart into body and head.
        StructureError: its decoder layers cannot be found.
    """
    decoder = read_decoder(model)
    windows = CalibrationSet(input_ids, "evaluation windows")
    placement = replace(placement, batch_size=batch_size)
    with (
        torch.inference_mode(),
        residing(model, decoder, placement) as residence,
        residence.around_layers(),
    ):
        stream = LayerStream(model, decoder, windows, residence)
        for layer in decoder.layers:
            with residence.visiting(layer, read_only=True):
                stream.carry(layer, on_windows)
        rows = [row for batch in stream.hidden for row in batch]
        with stream.passing():
            # The halves of a model without layers hold together as those of the whole one do.
            head = OutputHead(model, input_ids[0])

        def hidden(batch: slice) -> Tensor:
            with stream.passing(torch.stack(rows[batch]).to(residence.device)):
                return head.hidden(input_ids[batch].to(residence.device))

        yield CarriedWindows(head, hidden, stream.take_warnings())


__all__ = ["CarriedWindows", "carried"]
