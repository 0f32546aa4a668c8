"""Carries the calibration hidden states through the decoder layers, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.base import CalibrationSet
from methods.decoder import Block, Decoder, DecoderLayer, first_tensor
from methods.experts import routed_forwards
from methods.patching import replaced_forward
from methods.pattern import require_finite
from methods.residence import Residence

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class BlockCall:
    """One call of a block on one batch: what went in and what came out."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor


@dataclass(frozen=True)
class _LayerArguments:
    """What the model passes to a decoder layer besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class _Reached(BaseException):
    """Ends a forward early, once what it was run for has been seen."""


class LayerStream:
    """The hidden states that enter one decoder layer after another.

    The model's own forward is run once over each batch with its decoder layers skipped, so that every
    argument it passes to each layer is replayed as given, whatever the family's call looks like.

    Attributes:
        hidden: a tensor `[batch, seqlen, hidden]` a batch: the input of the layer that comes next.
    """

    def __init__(
        self, model: PreTrainedModel, decoder: Decoder, calibration: CalibrationSet, residence: Residence
    ) -> None:
        """Runs the model up to its first decoder layer on every batch."""
        batch_size = residence.placement.batch_size_for(calibration.seqlen)
        recorder = _Recorder(decoder)
        with residence.before_layers(), recorder:
            for input_ids in torch.split(calibration.input_ids, batch_size):
                recorder.record(model, input_ids.to(residence.device))
        self.hidden = recorder.hidden
        self._arguments = recorder.arguments

    @property
    def n_batches(self) -> int:
        """How many batches there are."""
        return len(self.hidden)

    def n_samples(self, batch: int) -> int:
        """How many sequences batch `batch` holds."""
        return self.hidden[batch].shape[0]

    def forward(self, layer: DecoderLayer, batch: int) -> Tensor:
        """The layer's output `[batch, seqlen, hidden]` with the weights it has now."""
        given = self._arguments[batch][layer.index]
        return first_tensor(layer.module(self.hidden[batch], *given.args, **given.kwargs))

    def call_of(self, layer: DecoderLayer, batch: int, block: Block) -> BlockCall:
        """Runs the layer as it is now up to the end of `block`, and gives that block's call."""
        with _watching([block]) as calls, _ending_after(block), suppress(_Reached):
            self.forward(layer, batch)
        return calls[0]

    def calls_of(self, layer: DecoderLayer, batch: int) -> tuple[Tensor, list[BlockCall]]:
        """Runs the whole layer; gives its output and the call of each of its blocks."""
        with _watching(layer.blocks) as calls:
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
        for batch in range(self.n_batches):
            if batch == 0:
                output, calls = self.calls_of(layer, batch)
                probe = [call.output for call in calls]
            else:
                output = self.forward(layer, batch)
            require_finite(output, layer.name, "its outputs")
            self.hidden[batch] = output
        return probe


@contextmanager
def at_rest(model: PreTrainedModel) -> Iterator[None]:
    """Puts the model into evaluation mode without gradients, and every module's mode back afterwards.

    Stacked experts run one by one meanwhile, so that each can be seen (`methods.experts`).
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), routed_forwards(model):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def relative_error(output: Tensor, reference: Tensor) -> float | None:
    """Squared error of `output` against `reference`, relative to the latter's squared norm.

    None where the reference is all zero and the output is not: the ratio has no value.
    """
    difference = (output.float() - reference.float()).square().sum(dtype=torch.float64)
    norm = reference.float().square().sum(dtype=torch.float64)
    if not float(norm):
        return 0.0 if not float(difference) else None
    return float(difference / norm)


class _Recorder:
    """Stands in for the decoder layers while the model runs, noting what each of them is given."""

    def __init__(self, decoder: Decoder) -> None:
        self.hidden: list[Tensor] = []
        self.arguments: list[list[_LayerArguments]] = []
        self._layers = [layer.module for layer in decoder.layers]
        self._gives_tuple: bool | None = None
        self._canonical: dict[int, Any] = {}
        self._patches = ExitStack()

    def __enter__(self) -> None:
        for index, module in enumerate(self._layers):
            self._patches.enter_context(replaced_forward(module, self._stand_in(index, module.forward)))

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    def record(self, model: PreTrainedModel, input_ids: Tensor) -> None:
        """Runs one batch `[batch, seqlen]`; its hidden states and arguments join the lists."""
        self._canonical = {}
        self.arguments.append([])
        with suppress(_Reached):
            model(input_ids=input_ids, use_cache=False)

    def _stand_in(self, index: int, forward: Any) -> Any:
        def note(*args: Any, **kwargs: Any) -> Any:
            if args:
                hidden, args = args[0], args[1:]
            else:
                hidden = kwargs.pop("hidden_states")
            if index == 0:
                self.hidden.append(hidden)
            self.arguments[-1].append(
                _LayerArguments(self._kept(args), {key: self._kept(value) for key, value in kwargs.items()})
            )
            if index == len(self._layers) - 1:
                raise _Reached
            if self._gives_tuple is None:
                self._gives_tuple = isinstance(forward(hidden, *args, **kwargs), tuple)
            return (hidden,) if self._gives_tuple else hidden

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
        if len(self.arguments) > 1:
            layer = len(self.arguments[-1])
            for twin in _tensors(self.arguments[-2][layer]):
                if twin.shape == value.shape and twin.dtype == value.dtype and torch.equal(twin, value):
                    return twin
        return value


def _tensors(given: _LayerArguments) -> Iterator[Tensor]:
    pending = [*given.args, *given.kwargs.values()]
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending.extend(value)
        elif isinstance(value, Tensor):
            yield value


@contextmanager
def _watching(blocks: Sequence[Block]) -> Iterator[list[BlockCall]]:
    """Notes the calls of `blocks` while the body runs; the list is in the order of `blocks` at its end."""
    inputs: dict[int, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}
    outputs: dict[int, Tensor] = {}
    calls: list[BlockCall] = []
    with ExitStack() as hooks:
        for index, block in enumerate(blocks):

            def entered(_: nn.Module, args: Any, kwargs: Any, index: int = index) -> None:
                inputs[index] = (args, kwargs)

            def left(_: nn.Module, args: Any, output: Any, index: int = index) -> None:
                outputs[index] = first_tensor(output)

            hooks.callback(block.entry.register_forward_pre_hook(entered, with_kwargs=True).remove)
            hooks.callback(block.exit.register_forward_hook(left).remove)
        yield calls
    calls.extend(BlockCall(*inputs[index], outputs[index]) for index in range(len(blocks)))


@contextmanager
def _ending_after(block: Block) -> Iterator[None]:
    """Ends the forward that runs in the body as soon as `block` is done."""

    def end(*_: Any) -> None:
        raise _Reached

    hook = block.exit.register_forward_hook(end)
    try:
        yield
    finally:
        hook.remove()


__all__ = ["BlockCall", "LayerStream", "at_rest", "relative_error"]
