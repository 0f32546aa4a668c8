"""What is accumulated over the calibration tokens, in fp32 whatever the model computes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from methods.errors import StructureError
from methods.target import Target, TargetCall, noting_calls


class InputStatistic(Protocol):
    """Something summed over the inputs of a target."""

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens of I inputs."""
        ...

    @property
    def value(self) -> Tensor:
        """The sum so far, fp32."""
        ...


S = TypeVar("S", bound=InputStatistic)


class InputNorms:
    """Sum of squares of each input over all tokens: sum_t X_tj^2, `[in]` (Wanda, arXiv 2306.11695)."""

    def __init__(self, n_inputs: int, device: torch.device) -> None:
        self.value = torch.zeros(n_inputs, dtype=torch.float32, device=device)

    @classmethod
    def of(cls, target: Target) -> Self:
        """An empty one for `target`."""
        return cls(target.n_inputs, target.device)

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens."""
        self.value += x_NI.float().square().sum(0)


class GramMatrix:
    """X^T X over all tokens, `[in, in]` (the Hessian of a Linear's squared error, up to a factor)."""

    def __init__(self, n_inputs: int, device: torch.device) -> None:
        self.value = torch.zeros(n_inputs, n_inputs, dtype=torch.float32, device=device)

    @classmethod
    def of(cls, target: Target) -> Self:
        """An empty one for `target`."""
        return cls(target.n_inputs, target.device)

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens."""
        x = x_NI.float()
        self.value.addmm_(x.T, x)


class SquaredGradients:
    """Sum over samples of the squared gradient of a per-sample loss with respect to a weight, `[out, in]`.

    The gradient of sample j is dY_j^T X_j summed over its tokens; it is squared before samples are added up,
    which is why the gradient of a whole batch would be another thing (LLM-Barber, arXiv 2408.10631).
    """

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.value = torch.zeros(shape, dtype=torch.float32, device=device)
        self._gradient = torch.empty_like(self.value)

    def add(self, x_NI: Tensor, dy_NO: Tensor, lengths: Sequence[int]) -> None:
        """Takes in N tokens, the tokens of one sample next to each other.

        Args:
            x_NI: inputs `[N, in]`.
            dy_NO: gradient of the loss with respect to the outputs, `[N, out]`.
            lengths: how many of the N tokens belong to each sample; a sample may have none.
        """
        samples = zip(torch.split(x_NI, list(lengths)), torch.split(dy_NO, list(lengths)), strict=True)
        for x_TI, dy_TO in samples:
            if len(x_TI):
                torch.mm(dy_TO.float().T, x_TI.float(), out=self._gradient)
                self.value.addcmul_(self._gradient, self._gradient)


class SharedInputs(Generic[S]):
    """One statistic for all targets that read the same tensor (q, k and v; gate and up).

    Which of them share is seen on the first batch, by the identity of the tensor they are called with.
    """

    def __init__(self, targets: Mapping[str, Target], new: Callable[[Target], S]) -> None:
        self._targets = targets
        self._new = new
        self._leader: dict[str, str] = {}
        self._statistics: dict[str, S] = {}
        self._n_tokens: dict[str, int] = {}

    def __getitem__(self, target: str) -> S:
        """The statistic of a target's inputs; an empty one where nothing reached it."""
        if target not in self._leader:
            return self._new(self._targets[target])
        return self._statistics[self._leader[target]]

    def judged(self, target: Target) -> S:
        """The statistic to judge `target` by.

        Of an expert that no token reached it is that of every input active once, by itself: nothing is known,
        so none is preferred.

        Raises:
            StructureError: nothing reached it, and it is no expert.
        """
        statistic = self[target.name]
        if self.n_tokens(target.name) == 0:
            if target.expert is None:
                raise StructureError(
                    f"{target.name}: was never called while the calibration ran; expected every target to be"
                )
            add_unit_inputs(statistic, target.n_inputs, target.device)
        return statistic

    def n_tokens(self, target: str) -> int:
        """How many tokens a target has read."""
        return self._n_tokens[self._leader[target]] if target in self._leader else 0

    @property
    def groups(self) -> dict[str, list[str]]:
        """First target -> all targets that share its input."""
        members: dict[str, list[str]] = {leader: [] for leader in self._statistics}
        for target, leader in self._leader.items():
            members[leader].append(target)
        return members

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds up what the targets are called with while the body runs one forward."""
        # Holding the tensors keeps their identity unique until the forward is over.
        seen: list[tuple[Tensor, str]] = []

        def collect(call: TargetCall) -> None:
            name = call.target.name
            if name not in self._leader:
                self._leader[name] = next((other for y, other in seen if y is call.x), name)
                if self._leader[name] == name:
                    self._statistics[name] = self._new(call.target)
                    self._n_tokens[name] = 0
            if self._leader[name] == name:
                x_NI = call.x.reshape(-1, call.x.shape[-1])
                if call.target.expert is None:
                    seen.append((call.x, name))
                self._statistics[name].add(x_NI)
                self._n_tokens[name] += len(x_NI)

        with noting_calls(self._targets, collect):
            yield


def add_unit_inputs(statistic: InputStatistic, n_inputs: int, device: torch.device) -> None:
    """Lets `statistic` see every input active once, by itself: nothing is known, so none is preferred."""
    for start in range(0, n_inputs, _UNIT_ROWS):
        rows = torch.zeros(min(_UNIT_ROWS, n_inputs - start), n_inputs, device=device)
        rows.diagonal(start).fill_(1)
        statistic.add(rows)


_UNIT_ROWS = 1024
"""At a time, to bound memory."""


__all__ = [
    "GramMatrix",
    "InputNorms",
    "InputStatistic",
    "SharedInputs",
    "SquaredGradients",
    "add_unit_inputs",
]
