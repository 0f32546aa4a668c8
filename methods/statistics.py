"""What is accumulated over the calibration tokens, in fp32 whatever the model computes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn


class InputStatistic(Protocol):
    """Something summed over the inputs of a Linear."""

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
    def of(cls, linear: nn.Linear) -> Self:
        """An empty one for `linear`."""
        return cls(linear.weight.shape[1], linear.weight.device)

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens."""
        self.value += x_NI.float().square().sum(0)


class GramMatrix:
    """X^T X over all tokens, `[in, in]` (the Hessian of a Linear's squared error, up to a factor)."""

    def __init__(self, n_inputs: int, device: torch.device) -> None:
        self.value = torch.zeros(n_inputs, n_inputs, dtype=torch.float32, device=device)

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """An empty one for `linear`."""
        return cls(linear.weight.shape[1], linear.weight.device)

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens."""
        x = x_NI.float()
        self.value.addmm_(x.T, x)


class SquaredGradients:
    """Sum over samples of the squared gradient of a per-sample loss with respect to a weight, `[out, in]`.

    The gradient of sample j is dY_j^T X_j summed over its tokens; it is squared before samples are added up,
    which is why the gradient of a whole batch would be another thing (LLM-Barber, arXiv 2408.10631).
    """

    def __init__(self, weight: Tensor) -> None:
        self.value = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        self._gradient = torch.empty_like(self.value)

    def add(self, x_NI: Tensor, dy_NO: Tensor, n_samples: int) -> None:
        """Takes in N tokens, the tokens of one sample next to each other.

        Args:
            x_NI: inputs `[N, in]`.
            dy_NO: gradient of the loss with respect to the outputs, `[N, out]`.
            n_samples: how many samples the N tokens make up, equally long.
        """
        x_BTI = x_NI.reshape(n_samples, -1, x_NI.shape[-1])
        dy_BTO = dy_NO.reshape(n_samples, -1, dy_NO.shape[-1])
        for x_TI, dy_TO in zip(x_BTI, dy_BTO, strict=True):
            torch.mm(dy_TO.float().T, x_TI.float(), out=self._gradient)
            self.value.addcmul_(self._gradient, self._gradient)


class SharedInputs(Generic[S]):
    """One statistic for all Linears that read the same tensor (q, k and v; gate and up).

    Which Linears share is seen on the first batch, by the identity of the tensor they are called with.
    """

    def __init__(self, targets: Mapping[str, nn.Linear], new: Callable[[nn.Linear], S]) -> None:
        self._targets = targets
        self._new = new
        self._leader: dict[str, str] = {}
        self._statistics: dict[str, S] = {}

    def __getitem__(self, target: str) -> S:
        """The statistic of a target's inputs."""
        return self._statistics[self._leader[target]]

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
        with ExitStack() as hooks:
            for name, linear in self._targets.items():

                def collect(module: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                    x: Tensor = args[0]
                    if name not in self._leader:
                        self._leader[name] = next((other for y, other in seen if y is x), name)
                        if self._leader[name] == name:
                            self._statistics[name] = self._new(self._targets[name])
                    if self._leader[name] == name:
                        seen.append((x, name))
                        self._statistics[name].add(x.reshape(-1, x.shape[-1]))

                hooks.callback(linear.register_forward_pre_hook(collect).remove)
            yield


__all__ = ["GramMatrix", "InputNorms", "InputStatistic", "SharedInputs", "SquaredGradients"]
