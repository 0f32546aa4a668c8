"""The interface that every pruning method implements, and the objects it takes and returns."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from methods.errors import InputError
from methods.layer_report import LayerReport
from methods.masks.keep_mask import KeepMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from methods.masks.pattern import SparsityPattern, UniformPattern
    from methods.structure.decoder import DecoderLayer


@dataclass(frozen=True)
class CalibrationSet:
    """The token sequences that a method calibrates on.

    Attributes:
        input_ids: int64 `[n_samples, seqlen]`, without padding.
        source: where the text came from, as a user would name it.
        seed: the seed its windows were drawn with; None if rows were taken in order, without a draw.
    """

    input_ids: Tensor
    source: str
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.input_ids.ndim != 2 or self.input_ids.dtype != torch.int64 or self.input_ids.numel() == 0:
            raise InputError(
                f"calibration {self.source!r}: input_ids must be int64 [n_samples, seqlen] and not empty, "
                f"not {self.input_ids.dtype} {list(self.input_ids.shape)}"
            )

    @property
    def n_samples(self) -> int:
        """Number of sequences."""
        return self.input_ids.shape[0]

    @property
    def seqlen(self) -> int:
        """Number of tokens in each sequence."""
        return self.input_ids.shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 of the shape and the token ids."""
        return token_digest(self.input_ids)


def token_digest(input_ids: Tensor) -> str:
    """SHA-256 (hex) of a token tensor's shape and its little-endian int64 values."""
    digest = hashlib.sha256(repr(list(input_ids.shape)).encode())
    digest.update(input_ids.to("cpu", torch.int64).contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


HOST_TOKENS, ACCELERATOR_TOKENS = 2048, 16384
"""Approximate number of tokens per batch: enough to keep the device busy without wasting memory."""


Weights = Literal["resident", "onload"]
"""Where decoder layers are: `resident`, all on the device; `onload`, loaded onto it one after another."""


class LayerStorage(Protocol):
    """Stores the weights of decoder layers, and returns copies that the caller may change.

    Tensors are keyed by their dotted name inside the layer, and laid out as the model stores them. `fetch`
    and `dense` may be called from another thread while a different layer is being stored.
    """

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Returns all current parameters and persistent buffers of a layer, on the CPU.

        Args:
            layer: the layer to read.
            pinned: whether to return pinned memory, from which a GPU can copy asynchronously.
        """
        ...

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Stores new values of the parameters that hold a layer's targets."""
        ...

    def remember_dense(self) -> None:
        """Saves the current weights of all targets for `dense` and `restore_dense`.

        Saved weights form a stack, because a method that runs inside another one saves them too.
        """
        ...

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """Returns the saved values of the parameters that hold a layer's targets; read-only."""
        ...

    def restore_dense(self) -> None:
        """Restores the weights of all targets that were saved last, and drops the saved ones."""
        ...

    def forget_dense(self) -> None:
        """Drops the weights that were saved last, without restoring them."""
        ...

    def stamp(self, layer: DecoderLayer) -> object:
        """Returns a value that changes whenever the layer is stored or restored."""
        ...


@dataclass(frozen=True)
class Placement:
    """Where a model's decoder layers are while it is pruned, and the batch size of the calibration.

    Attributes:
        batch_size: sequences per batch; None = about 2,048 tokens on a CPU and 16,384 on an accelerator,
            halved whenever memory runs out. A mask is reproducible to the bit only with the same batch size,
            because sums are formed batch by batch.
        weights: `resident`: the model computes where it is. `onload`: one decoder layer at a time is loaded
            onto `device`, while the next one is fetched, and is moved back afterwards.
        device: where onloaded layers compute; None = where the model is.
        storage: where layers are kept while they are not loaded; None = in the model's own parameters, in
            host memory.

    Raises:
        InputError: `device` or `storage` was given without `onload`.
    """

    batch_size: int | None = None
    weights: Weights = "resident"
    device: torch.device | None = None
    storage: LayerStorage | None = None

    def __post_init__(self) -> None:
        if self.weights not in ("resident", "onload"):
            raise InputError(f"placement {self.weights!r}: give resident or onload")
        for name in ("device", "storage"):
            if self.weights == "resident" and getattr(self, name) is not None:
                raise InputError(f"placement 'resident' takes no {name}: the model computes where it is")

    def batch_size_for(self, seqlen: int, device: torch.device | None = None) -> int:
        """Returns how many sequences of `seqlen` tokens make one batch on `device`."""
        if self.batch_size is not None:
            return self.batch_size
        n_tokens = ACCELERATOR_TOKENS if device is not None and device.type != "cpu" else HOST_TOKENS
        return max(1, n_tokens // seqlen)


@dataclass(frozen=True)
class PruneResult:
    """The masks that a prune chose, its reports, and the time it took.

    Attributes:
        keep: parameter name -> its keep-mask, laid out as the parameter is; if experts are stacked in one
            parameter, one entry per expert, named after the parameter and the expert's index.
        layers: one report per target module, in the order of the model.
        phases: seconds by phase (`statistics`, `solve`, `propagate`).
        initial: the result that a rebuilding method started from; None for other methods.
    """

    keep: Mapping[str, KeepMask]
    layers: tuple[LayerReport, ...]
    phases: Mapping[str, float]
    initial: PruneResult | None = None

    @property
    def mask_digest(self) -> str:
        """SHA-256 (hex) over every parameter's name, shape and packed bits, sorted by name."""
        digest = hashlib.sha256()
        for name in sorted(self.keep):
            mask = self.keep[name]
            digest.update(f"{name}\0{list(mask.shape)}\0".encode())
            digest.update(mask.bits)
        return digest.hexdigest()

    @property
    def sparsity(self) -> float:
        """Share of weights that are pruned, over all target modules."""
        return 1 - sum(m.n_kept for m in self.keep.values()) / sum(m.numel for m in self.keep.values())


def ignore_layer(_: LayerReport) -> None:
    """An `on_layer` callback for callers that need no progress; does nothing."""


@runtime_checkable
class PruningMethod(Protocol):
    """One way of deciding which weights to remove.

    Hyper-parameters are the fields of a frozen dataclass, so that records can store them and the command
    line can set them. Other packages register methods under the entry-point group `prunebench.methods`.
    """

    name: ClassVar[str]
    """Name that users type; lower case, words joined by hyphens."""
    version: ClassVar[int]
    """Version to increase with every change of the method's results; records of older versions are stale."""
    needs_calibration: ClassVar[bool]
    """Whether `prune` reads calibration data."""

    @property
    def reconstructs(self) -> bool:
        """Whether surviving weights may change."""
        ...

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int] | None:
        """Returns rows x columns of the groups within which the method compares weights of `shape`.

        Each such tile of the weight loses exactly floor(n * s) of its n weights or, if the method rebuilds
        an initial mask, as many as that mask removed. None if the groups span more than one weight.
        """
        ...

    def prune(
        self,
        model: PreTrainedModel,
        pattern: SparsityPattern,
        calibration: CalibrationSet | None,
        *,
        placement: Placement = Placement(),
        on_layer: Callable[[LayerReport], None] = ignore_layer,
    ) -> PruneResult:
        """Prunes `model` in place.

        Args:
            model: a causal language model; everything except its target weights is left as it was.
            pattern: the share of weights to remove, or N:M.
            calibration: the calibration data; may be None if the method needs none.
            placement: where the layers are, and the batch size.
            on_layer: called with the report of each target module as soon as it is final.

        Returns:
            The masks, one report per module, and the seconds by phase.

        Raises:
            InputError: the pattern does not fit the model, or calibration is missing.
            PruningError: NaN, a singular Hessian or an unreadable structure; names the module.
        """
        ...


@dataclass
class PhaseClock:
    """Adds up wall-clock seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    device: torch.device | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the body; waits for the GPU to finish its work before and after."""
        self._synchronize()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _synchronize(self) -> None:
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def with_calibration(name: str, calibration: CalibrationSet | None) -> CalibrationSet:
    """Returns `calibration`; raises `InputError` if it is None, because method `name` needs one."""
    if calibration is None:
        raise InputError(f"method {name!r} needs calibration data: give --calibration")
    return calibration


__all__ = [
    "CalibrationSet",
    "LayerReport",
    "LayerStorage",
    "PhaseClock",
    "Placement",
    "PruneResult",
    "PruningMethod",
    "Weights",
    "ignore_layer",
    "token_digest",
    "with_calibration",
]
