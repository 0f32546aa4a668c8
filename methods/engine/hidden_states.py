"""Moves hidden states through the decoder layers, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from methods.base import CalibrationSet
from methods.engine.hooks import BlockCall, Reached, ending_after, ending_before, watching
from methods.engine.kept_attention import KeptAttention
from methods.engine.layer_inputs import LayerArguments, Recorder, TokenBatch
from methods.masks.selection import require_finite
from methods.placement.layer_loading import Residence
from methods.placement.out_of_memory import is_out_of_memory
from methods.structure.decoder import Block, Decoder, DecoderLayer, first_tensor
from methods.structure.experts import routed_forwards

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

LARGE_SHARE = 0.1
"""Share of the device's memory above which hidden states move to the host before batches are halved."""


class LayerStream:
    """Holds the input hidden states of the next decoder layer, and moves them from layer to layer.

    The model's own forward is run once over each batch with its decoder layers skipped. This records every
    argument that it passes to each layer, for any model family, and the layers are run with the same ones.

    If memory runs out, the stream reduces its memory use and repeats the work: it stops keeping the outputs
    of the attention, moves hidden states that fill the device to the host, or halves the batches. None of
    this is undone later.

    Attributes:
        batches: the token batches, in the sizes that memory allowed so far.
        hidden: one tensor `[batch, seqlen, hidden]` per batch, the input of the next layer. On the device, or
            in pinned host memory.
    """

    def __init__(
        self, model: PreTrainedModel, decoder: Decoder, batches: Sequence[TokenBatch], residence: Residence
    ) -> None:
        """Runs the model up to its first decoder layer on every batch."""
        self._model = model
        self._residence = residence
        self.batches = list(batches)
        self._recorder = Recorder(decoder)
        self._arguments: list[list[LayerArguments]] = []
        self._kept_attention = KeptAttention()
        self._on_host = False
        self._warnings: list[str] = []
        self.hidden: list[Tensor] = []
        self.hidden = self.within_memory(self._record)

    @classmethod
    def of_calibration(
        cls, model: PreTrainedModel, decoder: Decoder, calibration: CalibrationSet, residence: Residence
    ) -> LayerStream:
        """Creates the stream of a calibration set, in batches of the size that the placement asks for."""
        size = residence.placement.batch_size_for(calibration.seqlen, residence.device)
        batches = [TokenBatch(part) for part in torch.split(calibration.input_ids, size)]
        return cls(model, decoder, batches, residence)

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def n_samples(self, batch: int) -> int:
        """Returns how many sequences batch `batch` has."""
        return len(self.batches[batch])

    def take_warnings(self) -> tuple[str, ...]:
        """Returns the warnings since the last call."""
        warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def within_memory(self, work: Callable[[], T]) -> T:
        """Returns the result of `work`; repeats it with less memory use as long as memory runs out."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not self._can_take_less(error):
                    raise
            # Outside the handler the error is freed, and with it the tensors that its frames held.
            self._take_less()

    def forward(self, layer: DecoderLayer, batch: int) -> Tensor:
        """Returns the layer's output `[batch, seqlen, hidden]` with its current weights."""
        given = self._arguments[batch][layer.index]
        return first_tensor(layer.module(self.on_device(batch), *given.args, **given.kwargs))

    def on_device(self, batch: int) -> Tensor:
        """Returns the hidden states of one batch on the device."""
        return self.hidden[batch].to(self._residence.device, non_blocking=True)

    def forward_up_to(self, layer: DecoderLayer, batch: int, module: nn.Module) -> None:
        """Runs the layer with its current weights, up to the call of `module`."""
        with ending_before(module), suppress(Reached):
            self.forward(layer, batch)

    def call_of(self, layer: DecoderLayer, batch: int, block: Block) -> BlockCall:
        """Runs the layer with its current weights up to the end of `block`, and returns that block's call.

        The attention has to have its final weights when the MLP is asked for: its output is kept for
        `advance`.
        """
        attention = layer.blocks[0]
        kept = nullcontext() if block is attention else self._kept_attention.keeping(batch, layer)
        with watching([block]) as calls, kept, ending_after(block.exit), suppress(Reached):
            self.forward(layer, batch)
        return calls[0]

    def calls_of(self, layer: DecoderLayer, batch: int) -> tuple[Tensor, list[BlockCall]]:
        """Runs the whole layer; returns its output and the call of each of its blocks."""
        with watching(layer.blocks, copies=True) as calls:
            output = self.forward(layer, batch)
        return output, calls

    def advance(self, layer: DecoderLayer) -> list[Tensor]:
        """Moves all batches to the layer's output.

        Returns:
            Each block's output on the probe (the first batch).

        Raises:
            NonFiniteError: the outputs hold NaN or infinite values.
        """
        probe: list[Tensor] = []

        def run(batch: int) -> tuple[Tensor, list[BlockCall]]:
            with self._kept_attention.serving(batch, layer):
                return (self.forward(layer, batch), []) if probe else self.calls_of(layer, batch)

        for batch, (output, calls) in self._batch_by_batch(run):
            require_finite(output, layer.name, "its outputs")
            probe += [call.output for call in calls]
            self.hidden[batch] = self.put_away(output)
            self._kept_attention.forget(batch)
        return probe

    def carry(self, layer: DecoderLayer, on_samples: Callable[[int], None] | None = None) -> None:
        """Moves all batches to the layer's output without checking it: a badly damaged model may output NaN.

        Args:
            layer: the next layer.
            on_samples: called after each batch with its number of sequences.
        """
        for batch, output in self._batch_by_batch(partial(self.forward, layer)):
            self.hidden[batch] = self.put_away(output)
            if on_samples is not None:
                on_samples(len(output))

    def passing(self, hidden: Tensor | None = None) -> AbstractContextManager[None]:
        """Lets the model's own forward skip its decoder layers while the body runs.

        Args:
            hidden: the output that replaces that of the last layer; None = the input of the first one.
        """
        return self._recorder.passing(hidden)

    def _batch_by_batch(self, run: Callable[[int], T]) -> Iterator[tuple[int, T]]:
        """Yields each batch and the result of `run`; repeats a batch with less memory if memory runs out."""
        n_done = 0
        while n_done < self.n_batches:
            try:
                found = run(n_done)
            except (RuntimeError, MemoryError) as error:
                if not self._can_take_less(error, n_done):
                    raise
            else:
                yield n_done, found
                del found
                n_done += 1
                continue
            self._take_less(n_done)

    def _can_take_less(self, error: BaseException, start: int = 0) -> bool:
        """Whether `error` was raised because memory ran out, and memory use can be reduced."""
        if not is_out_of_memory(error):
            return False
        return self._kept_attention.holds_any or self._can_move() or self._largest(start) > 1

    def _take_less(self, start: int = 0) -> None:
        """Takes the first measure that reduces memory use; batches before `start` are not cut."""
        can_halve = self._largest(start) > 1
        if self._kept_attention.holds_any:
            self._kept_attention.give_up()
            self._warnings.append("memory ran out; from here on the attention is run again, not kept")
        elif self._can_move() and (not can_halve or self._fills_the_device()):
            self._on_host = True
            self.hidden = [self.put_away(hidden) for hidden in self.hidden]
            self._warnings.append("memory ran out; from here on hidden states stay on the host")
        else:
            self._halve(start)
        if self._residence.device.type == "cuda":
            torch.cuda.empty_cache()

    def _largest(self, start: int) -> int:
        """Returns the number of sequences in the largest batch from `start` on."""
        return max(map(len, self.batches[start:]))

    def _halve(self, start: int) -> None:
        """Cuts every batch from `start` on that has more than one sequence in two."""
        halved: list[list[int]] = [
            [size] if index < start or size == 1 else [size - size // 2, size // 2]
            for index, size in enumerate(map(len, self.batches))
        ]
        before = self._largest(start)
        self._warnings.append(
            f"memory ran out with batches of {before} sequences; it went on with {before - before // 2}"
        )
        parted = [batch.split(sizes) for batch, sizes in zip(self.batches, halved, strict=True)]
        self.batches = [part for parts in parted for part in parts]
        self._kept_attention.forget()
        if self.hidden:
            parts = [torch.split(h, sizes) for h, sizes in zip(self.hidden, halved, strict=True)]
            self.hidden = [part for split in parts for part in split]
            self._record()

    def _can_move(self) -> bool:
        """Whether the hidden states can be moved from the device to the host."""
        return self._residence.device.type == "cuda" and not self._on_host

    def _fills_the_device(self) -> bool:
        """Whether the hidden states take more than `LARGE_SHARE` of the device's memory."""
        n_bytes = sum(hidden.numel() * hidden.element_size() for hidden in self.hidden)
        total: int = torch.cuda.get_device_properties(self._residence.device).total_memory
        return n_bytes > LARGE_SHARE * total

    def put_away(self, hidden: Tensor) -> Tensor:
        """Moves `hidden` to where hidden states are kept; read it through `on_device`."""
        if not self._on_host or hidden.device.type != "cuda":
            return hidden
        # The copy and its later reads are ordered by one CUDA stream, so there is no need to wait here.
        return torch.empty_like(hidden, device="cpu", pin_memory=True).copy_(hidden, non_blocking=True)

    def _record(self) -> list[Tensor]:
        """Records every layer's arguments; returns the hidden states that enter the first layer."""
        with self._residence.before_layers(first_layer=self._recorder.runs_first_layer):
            hidden, self._arguments = self._recorder.record(
                self._model, self.batches, self._residence.device, self.put_away
            )
        return hidden


@contextmanager
def at_rest(model: PreTrainedModel) -> Iterator[None]:
    """Puts the model into evaluation mode without gradients, and restores every module's mode afterwards.

    Meanwhile stacked experts run one by one, so that each can be observed (`methods.structure.experts`).
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), routed_forwards(model):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def relative_error(output: Tensor, reference: Tensor) -> float:
    """Returns the squared error of `output` against `reference`, relative to the latter's squared norm.

    Infinite if the reference is all zero and the output is not, or if squares of the error overflow fp32; NaN
    if squares of the reference overflow. A layer report replaces such values by a warning. If one of the two
    has fewer samples, because the first batch was halved in between, only the common samples are compared.
    """
    n_common = min(len(output), len(reference))
    output, reference = output[:n_common], reference[:n_common]
    difference = (output.float() - reference.float()).square().sum(dtype=torch.float64)
    norm = float(reference.float().square().sum(dtype=torch.float64))
    if not norm:
        return inf if float(difference) else 0.0
    if not isfinite(norm):
        return nan  # dividing a finite difference by infinity would look like no error at all
    return float(difference) / norm


__all__ = ["LayerStream", "at_rest", "relative_error"]
