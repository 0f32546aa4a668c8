"""Statistics that are summed over the calibration tokens, always in fp32."""

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
    """Anything that the inputs of a target can be added to."""

    def add(self, x_NI: Tensor) -> None:
        """Adds N tokens of I inputs."""
        ...


class InputStatistic(Summed, Protocol):
    """A statistic that is summed over the inputs of a target."""

    @property
    def value(self) -> Tensor:
        """The sum so far, fp32."""
        ...


class StatisticKind(Protocol):
    """A class of statistics."""

    def of(self, target: Target) -> InputStatistic:
        """Creates an empty statistic for `target`."""
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
        """Creates an empty statistic for `target`."""
        return cls(target.n_inputs, target.device)

    def add(self, x_NI: Tensor) -> None:
        """Adds N tokens."""
        for x in torch.split(x_NI, CHUNK_TOKENS):
            self.value += x.float().square_().sum(0) if x.dtype != torch.float32 else x.square().sum(0)


class GramMatrix:
    """X^T X over all tokens, `[in, in]` (the Hessian of a Linear's squared error, up to a factor).

    Because it is symmetric, only a few strips from the diagonal to the right are computed, a little more than
    half of the matrix.
    """

    def __init__(self, n_inputs: int, device: torch.device) -> None:
        self._sum = torch.zeros(n_inputs, n_inputs, dtype=torch.float32, device=device)
        self._strip = max(MIN_STRIP, -(-n_inputs // N_STRIPS))
        self._is_mirrored = True

    @classmethod
    def of(cls, target: Target) -> Self:
        """Creates an empty statistic for `target`."""
        return cls(target.n_inputs, target.device)

    def add(self, x_NI: Tensor) -> None:
        """Adds N tokens."""
        self._is_mirrored = False
        for x in torch.split(x_NI, CHUNK_TOKENS):
            x = x if multiplies_into_fp32(x) else x.float()
            for start in range(0, x.shape[1], self._strip):
                strip = slice(start, start + self._strip)
                add_product(self._sum[strip, start:], x[:, strip].T, x[:, start:])

    @property
    def value(self) -> Tensor:
        """The sum so far, fp32."""
        if not self._is_mirrored:
            for start in range(0, len(self._sum), self._strip):
                end = start + self._strip
                self._sum[end:, start:end] = self._sum[start:end, end:].T
            self._is_mirrored = True
        return self._sum


class InputStatistics:
    """All statistics of one target's inputs that the steps of a recipe read.

    If a Gram matrix is among them, the norms are read from its diagonal and not summed separately.
    """

    def __init__(self, kinds: Iterable[StatisticKind], target: Target) -> None:
        wanted = dict.fromkeys(kinds)
        if GramMatrix in wanted:
            wanted.pop(InputNorms, None)
        self._by_kind = {kind: kind.of(target) for kind in wanted}
        self._shared: dict[object, Any] = {}

    def __getitem__(self, kind: type[S]) -> S:
        """Returns the statistic of one kind."""
        if kind is InputNorms and GramMatrix in self:
            norms = InputNorms(0, torch.device("cpu"))
            norms.value = self[GramMatrix].value.diagonal()
            return cast(S, norms)
        return cast(S, self._by_kind[cast(StatisticKind, kind)])

    def __contains__(self, kind: object) -> bool:
        """Whether that kind is gathered, or follows from another one."""
        return kind in self._by_kind or (kind is InputNorms and GramMatrix in self._by_kind)

    def add(self, x_NI: Tensor) -> None:
        """Adds N tokens."""
        for statistic in self._by_kind.values():
            statistic.add(x_NI)

    def require_finite(self, target: str) -> None:
        """Raises `NonFiniteError` naming `target` if a sum is not finite."""
        for statistic in self._by_kind.values():
            require_finite(statistic.value, target, "the activations it reads, or their squares,")

    def shared(self, key: object, make: Callable[[], T]) -> T:
        """Returns the result of `make`, cached under `key` for all targets that read the same inputs."""
        if key not in self._shared:
            self._shared[key] = make()
        return cast(T, self._shared[key])

    def drop_shared(self) -> None:
        """Drops everything that `shared` cached; it is computed again when it is needed."""
        self._shared.clear()


class SquaredGradients:
    """Sum over samples of the squared gradient of a per-sample loss with respect to a weight, `[out, in]`.

    The gradient of sample j is dY_j^T X_j summed over its tokens. It is squared before samples are added, so
    the gradient of a whole batch cannot be used instead (LLM-Barber, arXiv 2408.10631).
    """

    def __init__(self, shape: tuple[int, int], device: torch.device, scratch: Tensor | None = None) -> None:
        """Creates an empty sum.

        Args:
            shape: shape of the weight.
            device: device of the sum.
            scratch: flat fp32 buffer for one gradient, at least as large as the weight; several sums may
                share it. None = allocate one.
        """
        self.value = torch.zeros(shape, dtype=torch.float32, device=device)
        size = self.value.numel()
        room = torch.empty(size, device=device) if scratch is None else scratch[:size]
        self._gradient = room.view(shape)

    def add(self, x_NI: Tensor, dy_NO: Tensor, lengths: Sequence[int]) -> None:
        """Adds N tokens, sorted by sample.

        Args:
            x_NI: inputs `[N, in]`.
            dy_NO: gradient of the loss with respect to the outputs, `[N, out]`.
            lengths: number of tokens per sample, N in total; a sample may have none.
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
    """Whether the backend can multiply matrices of this dtype and return the product in fp32."""
    return x.device.type == "cuda" and x.dtype in (torch.bfloat16, torch.float16)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds left @ right to `total`, in fp32.

    Args:
        total: fp32 `[m, n]`, changed in place.
        left: `[m, k]`; fp32, or a dtype that `multiplies_into_fp32`.
        right: `[k, n]`, of the same dtype.
    """
    if left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right, out_dtype=torch.float32)


class SharedInputs(Generic[A]):
    """Gathers one statistic for all targets that read the same tensor (q, k and v; gate and up).

    Which targets share a tensor is found out on the first batch, by the identity of their input tensors.
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
        """Returns the statistic of a target's inputs; an empty one if the target was never called."""
        if target not in self._leader:
            return self._new(self._targets[target])
        return self._statistics[self._leader[target]]

    def judged(self, target: Target) -> A:
        """Returns the statistic to prune `target` by.

        For an expert that no token reached, it is the statistic of unit inputs (every input active once,
        alone), which prefers no input.

        Raises:
            StructureError: the target was never called, and is not an expert.
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
        """Returns how many tokens a target has read."""
        return self._n_tokens[self._leader[target]] if target in self._leader else 0

    @property
    def groups(self) -> dict[str, list[str]]:
        """First target of each group -> all targets that share its input."""
        members: dict[str, list[str]] = {leader: [] for leader in self._statistics}
        for target, leader in self._leader.items():
            members[leader].append(target)
        return members

    @property
    def last(self) -> Target | None:
        """The target that a forward calls last, so that the forward can end there.

        None before the first forward, and if the order of calls may differ between forwards: that is, if the
        last call was to a stacked expert, or any other target was not called exactly once.
        """
        called = sorted(target.name for target in self._calls if target.expert is None)
        all_of_them = sorted(name for name, target in self._targets.items() if target.expert is None)
        if not self._n_forwards or called != all_of_them or self._calls[-1].expert is not None:
            return None
        return self._calls[-1]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds the inputs of the targets to their statistics while the body runs one forward."""
        # References to the tensors prevent their ids from being reused during the forward.
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
    """Adds the unit vectors to `statistic`: every input is active once, alone, so that none is preferred."""
    for start in range(0, n_inputs, _UNIT_ROWS):
        rows = torch.zeros(min(_UNIT_ROWS, n_inputs - start), n_inputs, device=device)
        rows.diagonal(start).fill_(1)
        statistic.add(rows)


_UNIT_ROWS = 1024
"""Number of unit vectors added at a time, to bound memory."""

CHUNK_TOKENS = 4096
"""Number of tokens that are converted to fp32 at a time."""

N_STRIPS = 4
MIN_STRIP = 128
"""Number of strips of a Gram matrix, and their minimum height. More strips compute less of the matrix twice,
but with slower products."""


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
