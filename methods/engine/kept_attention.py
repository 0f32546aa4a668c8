"""Keeps the attention outputs of the current layer, so that its attention is not run twice.

When the MLP of a layer is studied, its attention already has its final weights. Its output will be the same
when the stream moves on, so it is kept until then. This saves one run of the attention and costs memory for a
second copy of the hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from methods.structure.decoder import DecoderLayer, first_tensor
from methods.structure.forward_override import replaced_forward


class KeptAttention:
    """The attention outputs of one layer, by batch.

    Nothing is kept if the attention runs more than once per layer, returns more than hidden states, or may
    depend on the MLP, or if the layer writes to its output.
    """

    def __init__(self) -> None:
        self._outputs: dict[int, Any] = {}
        self._given_up = False
        self._runs_once: bool | None = None

    @property
    def holds_any(self) -> bool:
        """Whether any outputs are kept."""
        return bool(self._outputs)

    def give_up(self) -> None:
        """Drops all outputs, and keeps none from now on."""
        self._outputs.clear()
        self._given_up = True

    def forget(self, batch: int | None = None) -> None:
        """Drops the output of one batch, or of all batches."""
        if batch is None:
            self._outputs.clear()
        else:
            self._outputs.pop(batch, None)

    @contextmanager
    def keeping(self, batch: int, layer: DecoderLayer) -> Iterator[None]:
        """Keeps the output of the attention while the body runs a forward up to the end of the MLP."""
        attention, mlp = layer.blocks
        found: list[Any] = []
        begun = False

        def begins(*_: Any) -> None:
            nonlocal begun
            begun = True

        def note(_: nn.Module, args: Any, output: Any) -> None:
            if not begun:
                found.append((output, first_tensor(output)._version))

        if self._given_up:
            yield
            return
        hooks = (mlp.entry.register_forward_pre_hook(begins), attention.exit.register_forward_hook(note))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if len(found) == 1:
            output, version = found[0]
            if _is_one_tensor(output) and first_tensor(output)._version == version:
                self._outputs[batch] = output

    @contextmanager
    def serving(self, batch: int, layer: DecoderLayer) -> Iterator[None]:
        """Lets the attention return its kept output, if there is one, while the body runs a whole forward."""
        attention = layer.blocks[0].exit
        if batch not in self._outputs:
            yield
        elif self._runs_once is None:
            # The first time the attention is run nevertheless, to count how often the layer calls it.
            runs: list[None] = []
            hook = attention.register_forward_hook(lambda *_: runs.append(None))
            try:
                yield
            finally:
                hook.remove()
            self._runs_once = len(runs) == 1
        elif self._runs_once:
            output = self._outputs[batch]
            with replaced_forward(attention, lambda *args, **kwargs: output):
                yield
        else:
            yield


def _is_one_tensor(output: Any) -> bool:
    """Whether a module's output consists of a single tensor, so that keeping it costs only that tensor."""
    members = output if isinstance(output, tuple | list) else (output,)
    return isinstance(members[0], Tensor) and all(member is None for member in members[1:])


__all__ = ["KeptAttention"]
