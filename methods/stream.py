"""Carries the calibration hidden states through the decoder layers, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from methods.base import CalibrationSet
from methods.decoder import Block, Decoder, DecoderLayer, first_tensor
from methods.experts import routed_forwards
from methods.out_of_memory import is_out_of_memory
from methods.patching import replaced_forward
from methods.pattern import require_finite
from methods.recorder import LayerArguments, Reached, Recorder
from methods.residence import Residence

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


@dataclass(frozen=True)
class BlockCall:
    """One call of a block on one batch: what went in and what came out."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor


class LayerStream:
    """The hidden states that enter one decoder layer after another.

    The model's own forward is run once over each batch with its decoder layers skipped, so that every
    argument it passes to each layer is replayed as given, whatever the family's call looks like.

    Where memory runs out the batches are halved, for good, and the work goes on.

    Attributes:
        hidden: a tensor `[batch, seqlen, hidden]` a batch: the input of the layer that comes next.
    """

    def __init__(
        self, model: PreTrainedModel, decoder: Decoder, calibration: CalibrationSet, residence: Residence
    ) -> None:
        """Runs the model up to its first decoder layer on every batch."""
        self._model = model
        self._residence = residence
        self._input_ids = calibration.input_ids
        self._recorder = Recorder(decoder)
        size = residence.placement.batch_size_for(calibration.seqlen, residence.device)
        self._sizes = [len(part) for part in torch.split(calibration.input_ids, size)]
        self._arguments: list[list[LayerArguments]] = []
        self._attention_outputs: dict[int, Any] = {}
        self._warnings: list[str] = []
        self.hidden: list[Tensor] = []
        self.hidden = self.within_memory(self._record)

    @property
    def n_batches(self) -> int:
        """How many batches there are."""
        return len(self._sizes)

    def n_samples(self, batch: int) -> int:
        """How many sequences batch `batch` holds."""
        return self._sizes[batch]

    def take_warnings(self) -> tuple[str, ...]:
        """What happened since this was last asked that a reader should know of."""
        warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def within_memory(self, work: Callable[[], T]) -> T:
        """What `work` gives. It is begun anew on smaller batches as long as it runs out of memory."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not self._can_halve(error):
                    raise
            # Out here the error is gone, and with it what its frames held.
            self._halve()

    def forward(self, layer: DecoderLayer, batch: int) -> Tensor:
        """The layer's output `[batch, seqlen, hidden]` with the weights it has now."""
        given = self._arguments[batch][layer.index]
        return first_tensor(layer.module(self.hidden[batch], *given.args, **given.kwargs))

    def forward_up_to(self, layer: DecoderLayer, batch: int, module: nn.Module) -> None:
        """Runs the layer as it is now until `module` has been given its input."""
        with _ending_before(module), suppress(Reached):
            self.forward(layer, batch)

    def call_of(self, layer: DecoderLayer, batch: int, block: Block) -> BlockCall:
        """Runs the layer as it is now up to the end of `block`, and gives that block's call.

        Of the MLP it keeps what the attention gave on the way, so that `advance` need not run it again: by
        then the attention has to be final.
        """
        attention = layer.blocks[0]
        kept = self._keeping(batch, attention, block) if block is not attention else nullcontext()
        with _watching([block]) as calls, kept, _ending_after(block.exit), suppress(Reached):
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
        n_done = 0
        while n_done < self.n_batches:
            try:
                with self._attention_kept(layer, n_done):
                    if probe:
                        output = self.forward(layer, n_done)
                    else:
                        output, calls = self.calls_of(layer, n_done)
            except (RuntimeError, MemoryError) as error:
                if not self._can_halve(error):
                    raise
            else:
                require_finite(output, layer.name, "its outputs")
                if not probe:
                    probe = [call.output for call in calls]
                self.hidden[n_done] = output
                self._attention_outputs.pop(n_done, None)
                n_done += 1
                continue
            self._halve(n_done)
        return probe

    @contextmanager
    def _keeping(self, batch: int, attention: Block, mlp: Block) -> Iterator[None]:
        """Keeps what `attention` gives while the body runs, if it is done before `mlp` begins."""
        begun = False

        def begins(*_: Any) -> None:
            nonlocal begun
            begun = True

        def keep(_: nn.Module, args: Any, output: Any) -> None:
            if not begun and _is_one_tensor(output):
                self._attention_outputs[batch] = output

        hooks = (mlp.entry.register_forward_pre_hook(begins), attention.exit.register_forward_hook(keep))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _attention_kept(self, layer: DecoderLayer, batch: int) -> Iterator[None]:
        """The layer's attention gives what was kept of it, if anything was."""
        if batch not in self._attention_outputs:
            yield
            return
        output = self._attention_outputs[batch]
        with replaced_forward(layer.blocks[0].exit, lambda *args, **kwargs: output):
            yield

    def _can_halve(self, error: BaseException) -> bool:
        return is_out_of_memory(error) and max(self._sizes) > 1

    def _halve(self, start: int = 0) -> None:
        """Cuts every batch from `start` on in two, where it has more than one sequence."""
        halved: list[list[int]] = [
            [size] if index < start or size == 1 else [size - size // 2, size // 2]
            for index, size in enumerate(self._sizes)
        ]
        before, self._sizes = max(self._sizes), [size for sizes in halved for size in sizes]
        self._warnings.append(
            f"memory ran out with batches of {before} sequences; it went on with {max(halved[-1])}"
        )
        self._attention_outputs.clear()
        if self._residence.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.hidden:
            parts = [torch.split(h, sizes) for h, sizes in zip(self.hidden, halved, strict=True)]
            self.hidden = [part for split in parts for part in split]
            self._record()

    def _record(self) -> list[Tensor]:
        """Notes every layer's arguments; gives the hidden states that enter the first one."""
        with self._residence.before_layers():
            batches = torch.split(self._input_ids, self._sizes)
            hidden, self._arguments = self._recorder.record(
                self._model, [batch.to(self._residence.device) for batch in batches]
            )
        return hidden


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

    None where the reference is all zero and the output is not: the ratio has no value. Where one of them was
    made from a smaller first batch, the samples that both have are compared.
    """
    n_common = min(len(output), len(reference))
    output, reference = output[:n_common], reference[:n_common]
    difference = (output.float() - reference.float()).square().sum(dtype=torch.float64)
    norm = reference.float().square().sum(dtype=torch.float64)
    if not float(norm):
        return 0.0 if not float(difference) else None
    return float(difference / norm)


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
def _ending_after(module: nn.Module) -> Iterator[None]:
    """Ends the forward that runs in the body as soon as `module` is done."""
    hook = module.register_forward_hook(_end)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _ending_before(module: nn.Module) -> Iterator[None]:
    """Ends the forward that runs in the body as soon as `module` is reached."""
    hook = module.register_forward_pre_hook(_end)
    try:
        yield
    finally:
        hook.remove()


def _end(*_: Any) -> None:
    raise Reached


def _is_one_tensor(output: Any) -> bool:
    """Whether holding a module's output means holding one tensor of the hidden states' size."""
    members = output if isinstance(output, tuple | list) else (output,)
    return isinstance(members[0], Tensor) and not any(isinstance(member, Tensor) for member in members[1:])


__all__ = ["BlockCall", "LayerStream", "at_rest", "relative_error"]
