"""What is accumulated over the calibration tokens, in fp32 whatever the model computes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor

from methods.errors import StructureError
from methods.masks.selection import require_finite
from methods.structure.target import Target, noting_inputs


class Summed(Protocol):
    """Whatever takes in the inputs of a target."""

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens of I inputs."""
        ...


class InputStatistic(Summed, Protocol):
    """Something summed over the inputs of a target."""

    @property
    def value(self) -> Tensor:
        """The sum so far, fp32."""
        ...


class StatisticKind(Protocol):
    """A class of statistics."""

    def of(self, target: Target) -> InputStatistic:
        """An empty one for `target`."""
        ...


A = TypeVar("A", bound=Summed)
S = TypeVar("S", bound=InputStatistic)
T = TypeVar("T")


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
        for x in torch.split(x_NI, CHUNK_TOKENS):
            self.value += x.float().square_().sum(0) if x.dtype != torch.float32 else x.square().sum(0)


class GramMatrix:
    """X^T X over all tokens, `[in, in]` (the Hessian of a Linear's squared error, up to a factor).

    It is symmetric: a few strips from the diagonal to the right are formed, a little over half of it.
    """

    def __init__(self, n_inputs: int, device: torch.device) -> None:
        self._sum = torch.zeros(n_inputs, n_inputs, dtype=torch.float32, device=device)
        self._strip = max(MIN_STRIP, -(-n_inputs // N_STRIPS))
        self._whole = True

    @classmethod
    def of(cls, target: Target) -> Self:
        """An empty one for `target`."""
        return cls(target.n_inputs, target.device)

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens."""
        self._whole = False
        for x in torch.split(x_NI, CHUNK_TOKENS):
            x = x if multiplies_into_fp32(x) else x.float()
            for start in range(0, x.shape[1], self._strip):
                strip = slice(start, start + self._strip)
                add_product(self._sum[strip, start:], x[:, strip].T, x[:, start:])

    @property
    def value(self) -> Tensor:
        """The sum so far, fp32."""
        if not self._whole:
            for start in range(0, len(self._sum), self._strip):
                end = start + self._strip
                self._sum[end:, start:end] = self._sum[start:end, end:].T
            self._whole = True
        return self._sum


class InputStatistics:
    """All statistics that the steps of a recipe read of one target's inputs, gathered together.

    A Gram matrix has the norms on its diagonal, so that they are not summed beside it.
    """

    def __init__(self, kinds: Iterable[StatisticKind], target: Target) -> None:
        wanted = dict.fromkeys(kinds)
        if GramMatrix in wanted:
            wanted.pop(InputNorms, None)
        self._by_kind = {kind: kind.of(target) for kind in wanted}
        self._shared: dict[object, Any] = {}

    def __getitem__(self, kind: type[S]) -> S:
        """The statistic of one kind."""
        if kind is InputNorms and GramMatrix in self:
            norms = InputNorms(0, torch.device("cpu"))
            norms.value = self[GramMatrix].value.diagonal()
            return cast(S, norms)
        return cast(S, self._by_kind[cast(StatisticKind, kind)])

    def __contains__(self, kind: object) -> bool:
        """Whether that kind was gathered, or follows from what was."""
        return kind in self._by_kind or (kind is InputNorms and GramMatrix in self._by_kind)

    def add(self, x_NI: Tensor) -> None:
        """Takes in N tokens."""
        for statistic in self._by_kind.values():
            statistic.add(x_NI)

    def require_finite(self, target: str) -> None:
        """Raises `NonFiniteError` naming `target` if what was summed up is not finite."""
        for statistic in self._by_kind.values():
            require_finite(statistic.value, target, "the activations it reads, or their squares,")

    def shared(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made once a `key`: factors that targets with the same inputs have in common."""
        if key not in self._shared:
            self._shared[key] = make()
        return cast(T, self._shared[key])

    def drop_shared(self) -> None:
        """Frees what `shared` made; it is made anew if it is asked for again."""
        self._shared.clear()


class SquaredGradients:
    """Sum over samples of the squared gradient of a per-sample loss with respect to a weight, `[out, in]`.

    The gradient of sample j is dY_j^T X_j summed over its tokens; it is squared before samples are added up,
    which is why the gradient of a whole batch would be another thing (LLM-Barber, arXiv 2408.10631).
    """

    def __init__(self, shape: tuple[int, int], device: torch.device, scratch: Tensor | None = None) -> None:
        """An empty sum.

        Args:
            shape: of the weight.
            device: where it is.
            scratch: fp32, flat, as large as the weight or larger: room for one gradient, which several sums
                may share.
        """
        self.value = torch.zeros(shape, dtype=torch.float32, device=device)
        size = self.value.numel()
        room = torch.empty(size, device=device) if scratch is None else scratch[:size]
        self._gradient = room.view(shape)

    def add(self, x_NI: Tensor, dy_NO: Tensor, lengths: Sequence[int]) -> None:
        """Takes in N tokens, the tokens of one sample next to each other.

        Args:
            x_NI: inputs `[N, in]`.
            dy_NO: gradient of the loss with respect to the outputs, `[N, out]`.
            lengths: how many of the N tokens belong to each sample; a sample may have none.
        """
        samples = zip(torch.split(x_NI, list(lengths)), torch.split(dy_NO, list(lengths)), strict=True)
        for x_TI, dy_TO in samples:
            if not len(x_TI):
                continue
            if multiplies_into_fp32(x_TI):
                gradient = torch.mm(dy_TO.T, x_TI, out_dtype=torch.float32)
            else:
                gradient = torch.mm(dy_TO.float().T, x_TI.float(), out=self._gradient)
            self.value.addcmul_(gradient, gradient)


def multiplies_into_fp32(x: Tensor) -> bool:
    """Whether the backend multiplies numbers of this type and gives the product in fp32."""
    return x.device.type == "cuda" and x.dtype in (torch.bfloat16, torch.float16)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in fp32.

    Args:
        total: fp32 `[m, n]`, changed in place.
        left: `[m, k]`; fp32, or what `multiplies_into_fp32`.
        right: `[k, n]`, likewise.
    """
    if left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right, out_dtype=torch.float32)


class SharedInputs(Generic[A]):
    """One statistic for all targets that read the same tensor (q, k and v; gate and up).

    Which of them share is seen on the first batch, by the identity of the tensor they are called with.
    """

    def __init__(self, targets: Mapping[str, Target], new: Callable[[Target], A]) -> None:
        self._targets = targets
        self._new = new
        self._leader: dict[str, str] = {}
        self._statistics: dict[str, A] = {}
        self._n_tokens: dict[str, int] = {}
        self._calls: list[Target] = []
        self._n_forwards = 0

    def __getitem__(self, target: str) -> A:
        """The statistic of a target's inputs; an empty one where nothing reached it."""
        if target not in self._leader:
            return self._new(self._targets[target])
        return self._statistics[self._leader[target]]

    def judged(self, target: Target) -> A:
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

    @property
    def last(self) -> Target | None:
        """The target whose input is the last that a forward gives: nothing is learned from going on.

        None before the first forward, and where forwards may differ: unless each target but the experts that
        are stacked was called just once in the first.
        """
        called = sorted(target.name for target in self._calls if target.expert is None)
        all_of_them = sorted(name for name, target in self._targets.items() if target.expert is None)
        if not self._n_forwards or called != all_of_them or self._calls[-1].expert is not None:
            return None
        return self._calls[-1]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds up what the targets are called with while the body runs one forward."""
        # Holding the tensors keeps their identity unique until the forward is over.
        seen: list[tuple[Tensor, str]] = []

        def collect(target: Target, x: Tensor) -> None:
            name = target.name
            if not self._n_forwards:
                self._calls.append(target)
            if name not in self._leader:
                self._leader[name] = next((other for y, other in seen if y is x), name)
                if self._leader[name] == name:
                    self._statistics[name] = self._new(target)
                    self._n_tokens[name] = 0
            if self._leader[name] == name:
                x_NI = x.reshape(-1, x.shape[-1])
                if target.expert is None:
                    seen.append((x, name))
                self._statistics[name].add(x_NI)
                self._n_tokens[name] += len(x_NI)

        with noting_inputs(self._targets, collect):
            yield
        self._n_forwards += 1


def add_unit_inputs(statistic: Summed, n_inputs: int, device: torch.device) -> None:
    """Lets `statistic` see every input active once, by itself: nothing is known, so none is preferred."""
    for start in range(0, n_inputs, _UNIT_ROWS):
        rows = torch.zeros(min(_UNIT_ROWS, n_inputs - start), n_inputs, device=device)
        rows.diagonal(start).fill_(1)
        statistic.add(rows)


_UNIT_ROWS = 1024
"""At a time, to bound memory."""

CHUNK_TOKENS = 4096
"""So many are widened to fp32 at once."""

N_STRIPS = 4
MIN_STRIP = 128
"""Of a Gram matrix: more strips save more of it, and make slower products."""


__all__ = [
    "GramMatrix",
    "InputNorms",
    "InputStatistic",
    "InputStatistics",
    "SharedInputs",
    "SquaredGradients",
    "StatisticKind",
    "Summed",
    "add_unit_inputs",
]
