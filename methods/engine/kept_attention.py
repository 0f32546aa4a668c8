"""The attention of the present layer, run once where it would be run twice.

When the MLP of a layer is studied its attention is final. What it gave then is what it will give when the
stream moves on, so it is kept until then: a second copy of the hidden states for a run of the attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from methods.structure.decoder import DecoderLayer, first_tensor
from methods.structure.forward_override import replaced_forward


class KeptAttention:
    """What the attention of one layer gave, batch by batch.

    Nothing is kept of an attention that runs more than once in a layer, that gives more than hidden states,
    that may depend on the MLP, or whose output the layer writes to.
    """

    def __init__(self) -> None:
        self._outputs: dict[int, Any] = {}
        self._given_up = False
        self._runs_once: bool | None = None

    @property
    def holds_any(self) -> bool:
        """Whether it takes up memory."""
        return bool(self._outputs)

    def give_up(self) -> None:
        """Forgets all, and keeps nothing any more."""
        self._outputs.clear()
        self._given_up = True

    def forget(self, batch: int | None = None) -> None:
        """Forgets one batch, or all."""
        if batch is None:
            self._outputs.clear()
        else:
            self._outputs.pop(batch, None)

    @contextmanager
    def keeping(self, batch: int, layer: DecoderLayer) -> Iterator[None]:
        """Keeps what the attention gives while the body runs a forward up to the end of the MLP."""
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
        """While the body runs a whole forward, the attention gives what was kept of it, if anything was."""
        attention = layer.blocks[0].exit
        if batch not in self._outputs:
            yield
        elif self._runs_once is None:
            # The first time it is run all the same, to see that nothing else asks for it.
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
    """Whether holding a module's output means holding one tensor of the hidden states' size."""
    members = output if isinstance(output, tuple | list) else (output,)
    return isinstance(members[0], Tensor) and all(member is None for member in members[1:])


__all__ = ["KeptAttention"]
