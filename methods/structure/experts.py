"""Experts stacked in one parameter: how transformers stores them, and a forward that makes each observable.

Every mixture of experts in transformers that declares an exchangeable experts forward has the same parts: a
parameter `[experts, ...]` for the up projection (with or without a gate), one for the down projection, and
functions for the activation in between. `RoutedForward` computes the same result expert by expert, each on
the tokens routed to it, and passes the input and output of every matrix to a callback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from methods.structure.forward_override import replaced_forward


class Note(Protocol):
    """A callback that observes each use of an expert's matrix."""

    def __call__(self, attribute: str, expert: int, x: Tensor, y: Tensor, tokens: Tensor, /) -> None:
        """Observes one use of a matrix: its input x `[N, in]` and output y `[N, out]`.

        `tokens` int64 `[N]`, ascending, are the indices of the tokens that were routed to the expert.
        """
        ...


def stacked_matrices(module: nn.Module) -> tuple[str, ...]:
    """Returns the names of the parameters in which `module` stacks its experts, in the order of their use.

    Empty if `module` is not an experts module that `RoutedForward` supports.
    """
    declared = all(
        hasattr(module, name)
        for name in ("num_experts", "has_gate", "has_bias", "is_transposed", "_apply_gate")
    )
    if not declared:
        return ()
    names = ("gate_up_proj" if module.has_gate else "up_proj", "down_proj")
    parameters = dict(module.named_parameters(recurse=False))
    stacked = all(name in parameters and parameters[name].ndim == 3 for name in names)
    biases = {f"{name}_bias" for name in names} if module.has_bias else set()
    return names if stacked and parameters.keys() == {*names, *biases} else ()


class RoutedForward:
    """Replaces the forward of an experts module.

    It runs the experts in ascending order and sums their outputs in fp32, so that the same input gives the
    same output to the bit, whatever implementation the model was loaded with.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module
        self._note: Note | None = None

    def __call__(self, hidden: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Returns the weighted sum of the experts' outputs, in the shape of `hidden`.

        Args:
            hidden: the N tokens, `[..., hidden]`.
            chosen_NK: int64, the indices of the K experts of each token.
            weights_NK: the weight of each of these experts.
        """
        hidden_NH = hidden.reshape(-1, hidden.shape[-1])
        result = torch.zeros(hidden_NH.shape, dtype=torch.float32, device=hidden_NH.device)
        for expert, slots in enumerate(_slots_of(chosen_NK, self._module.num_experts)):
            if slots.numel():
                tokens = slots // chosen_NK.shape[1]
                out = self._run(expert, hidden_NH[tokens], tokens) * weights_NK.reshape(-1, 1)[slots]
                result = result.index_add(0, tokens, out.float())
        return result.to(hidden.dtype).reshape(hidden.shape)

    @contextmanager
    def noting(self, note: Note) -> Iterator[None]:
        """Calls `note` for every use of a matrix while the body runs."""
        before, self._note = self._note, note
        try:
            yield
        finally:
            self._note = before

    def _run(self, expert: int, x_NH: Tensor, tokens: Tensor) -> Tensor:
        module = self._module
        up, down = stacked_matrices(module)
        wide = self._product(up, expert, x_NH, tokens)
        inner = module._apply_gate(wide) if module.has_gate else module.act_fn(wide)
        out = self._product(down, expert, inner, tokens)
        # Older versions of transformers have no norm after the experts.
        return module.post_expert_norm(out) if getattr(module, "has_post_expert_norm", False) else out

    def _product(self, attribute: str, expert: int, x: Tensor, tokens: Tensor) -> Tensor:
        matrix = getattr(self._module, attribute)[expert]
        bias = getattr(self._module, f"{attribute}_bias")[expert] if self._module.has_bias else None
        y = nn.functional.linear(x, matrix.T if self._module.is_transposed else matrix, bias)
        if self._note is not None:
            self._note(attribute, expert, x, y, tokens)
        return y


@contextmanager
def routed_forwards(model: nn.Module) -> Iterator[None]:
    """Gives every experts module a `RoutedForward` while the body runs."""
    with ExitStack() as patches:
        for module in model.modules():
            if stacked_matrices(module):
                patches.enter_context(replaced_forward(module, RoutedForward(module)))
        yield


def _slots_of(chosen_NK: Tensor, n_experts: int) -> list[Tensor]:
    """Returns for each expert the positions in the flat `[N * K]` at which it was chosen, ascending."""
    flat = chosen_NK.reshape(-1)
    if isinstance(flat, FakeTensor):
        # A fake tensor has no values to route by; one token per expert is enough to propagate shapes.
        return [torch.zeros(1, dtype=torch.int64, device=flat.device) for _ in range(n_experts)]
    order = flat.argsort(stable=True)
    # Indices beyond the last expert mean "none": count them, and drop them.
    counts = torch.bincount(flat, minlength=n_experts + 1)
    return list(torch.split(order, counts.tolist())[:n_experts])


__all__ = ["Note", "RoutedForward", "routed_forwards", "stacked_matrices"]
