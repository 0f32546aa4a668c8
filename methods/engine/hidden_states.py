"""Carries hidden states through the decoder layers, batch by batch."""

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
"""Of the device's memory: hidden states that take more of it move to the host before batches are halved."""


class LayerStream:
    """The hidden states that enter one decoder layer after another.

    The model's own forward is run once over each batch with its decoder layers skipped, so that every
    argument it passes to each layer is replayed as given, whatever the family's call looks like.

    Where memory runs out the stream takes less of it, and the work goes on: the attention's outputs are not
    kept any more, hidden states that fill the device move to the host, batches are halved, for good.

    Attributes:
        batches: what is carried, in the sizes that memory allowed so far.
        hidden: a tensor `[batch, seqlen, hidden]` a batch: the input of the layer that comes next. On the
            device, or in pinned memory of the host.
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
        """The stream of a calibration set, in batches of the size that `residence` was placed with."""
        size = residence.placement.batch_size_for(calibration.seqlen, residence.device)
        batches = [TokenBatch(part) for part in torch.split(calibration.input_ids, size)]
        return cls(model, decoder, batches, residence)

    @property
    def n_batches(self) -> int:
        """How many batches there are."""
        return len(self.batches)

    def n_samples(self, batch: int) -> int:
        """How many sequences batch `batch` holds."""
        return len(self.batches[batch])

    def take_warnings(self) -> tuple[str, ...]:
        """What happened since this was last asked that a reader should know of."""
        warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def within_memory(self, work: Callable[[], T]) -> T:
        """What `work` gives. It is begun anew, with less memory, as long as it runs out of it."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not self._can_take_less(error):
                    raise
            # Out here the error is gone, and with it what its frames held.
            self._take_less()

    def forward(self, layer: DecoderLayer, batch: int) -> Tensor:
        """The layer's output `[batch, seqlen, hidden]` with the weights it has now."""
        given = self._arguments[batch][layer.index]
        return first_tensor(layer.module(self.on_device(batch), *given.args, **given.kwargs))

    def on_device(self, batch: int) -> Tensor:
        """The hidden states of one batch, on the device."""
        return self.hidden[batch].to(self._residence.device, non_blocking=True)

    def forward_up_to(self, layer: DecoderLayer, batch: int, module: nn.Module) -> None:
        """Runs the layer as it is now until `module` has been given its input."""
        with ending_before(module), suppress(Reached):
            self.forward(layer, batch)

    def call_of(self, layer: DecoderLayer, batch: int, block: Block) -> BlockCall:
        """Runs the layer as it is now up to the end of `block`, and gives that block's call.

        The attention has to be final by the time the MLP is asked for: what it gave on the way is kept for
        `advance`.
        """
        attention = layer.blocks[0]
        kept = nullcontext() if block is attention else self._kept_attention.keeping(batch, layer)
        with watching([block]) as calls, kept, ending_after(block.exit), suppress(Reached):
            self.forward(layer, batch)
        return calls[0]

    def calls_of(self, layer: DecoderLayer, batch: int) -> tuple[Tensor, list[BlockCall]]:
        """Runs the whole layer; gives its output and the call of each of its blocks."""
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
        """Moves all batches to the layer's output, whatever it is: that of a ruined model may be NaN.

        Args:
            layer: the next one.
            on_samples: called with the number of sequences that were moved, batch by batch.
        """
        for batch, output in self._batch_by_batch(partial(self.forward, layer)):
            self.hidden[batch] = self.put_away(output)
            if on_samples is not None:
                on_samples(len(output))

    def passing(self, hidden: Tensor | None = None) -> AbstractContextManager[None]:
        """While the body runs, the model's own forward passes over its decoder layers.

        Args:
            hidden: what comes out of them; None = what goes in.
        """
        return self._recorder.passing(hidden)

    def _batch_by_batch(self, run: Callable[[int], T]) -> Iterator[tuple[int, T]]:
        """A batch and what `run` gives for it; where memory runs out, that batch is run with less of it."""
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
        """Whether `error` says that memory ran out, and something can be done about it."""
        if not is_out_of_memory(error):
            return False
        return self._kept_attention.holds_any or self._can_move() or self._largest(start) > 1

    def _take_less(self, start: int = 0) -> None:
        """Does the first thing that helps; batches before `start` are left as they are."""
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
        """Sequences in the largest batch from `start` on."""
        return max(map(len, self.batches[start:]))

    def _halve(self, start: int) -> None:
        """Cuts every batch from `start` on in two, where it has more than one sequence."""
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
        """Whether there is another memory for the hidden states."""
        return self._residence.device.type == "cuda" and not self._on_host

    def _fills_the_device(self) -> bool:
        """Whether the hidden states are a good part of what the device holds."""
        n_bytes = sum(hidden.numel() * hidden.element_size() for hidden in self.hidden)
        total: int = torch.cuda.get_device_properties(self._residence.device).total_memory
        return n_bytes > LARGE_SHARE * total

    def put_away(self, hidden: Tensor) -> Tensor:
        """`hidden` where hidden states are kept, to be read through `on_device`."""
        if not self._on_host or hidden.device.type != "cuda":
            return hidden
        # The copy and what will read it are in the order of one stream, so nothing has to wait here.
        return torch.empty_like(hidden, device="cpu", pin_memory=True).copy_(hidden, non_blocking=True)

    def _record(self) -> list[Tensor]:
        """Notes every layer's arguments; gives the hidden states that enter the first one."""
        with self._residence.before_layers(first_layer=self._recorder.runs_first_layer):
            hidden, self._arguments = self._recorder.record(
                self._model, self.batches, self._residence.device, self.put_away
            )
        return hidden


@contextmanager
def at_rest(model: PreTrainedModel) -> Iterator[None]:
    """Puts the model into evaluation mode without gradients, and every module's mode back afterwards.

    Stacked experts run one by one meanwhile, so that each can be seen (`methods.structure.experts`).
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
    """Squared error of `output` against `reference`, relative to the latter's squared norm.

    Infinite where the reference is all zero and the output is not, or where the error's squares overflow
    fp32; NaN where the reference's do. A report says so in words. Where one of them was made from a smaller
    first batch, the samples that both have are compared.
    """
    n_common = min(len(output), len(reference))
    output, reference = output[:n_common], reference[:n_common]
    difference = (output.float() - reference.float()).square().sum(dtype=torch.float64)
    norm = float(reference.float().square().sum(dtype=torch.float64))
    if not norm:
        return inf if float(difference) else 0.0
    if not isfinite(norm):
        return nan  # a finite difference over it would read as no error at all
    return float(difference) / norm


__all__ = ["LayerStream", "at_rest", "relative_error"]
