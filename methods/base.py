"""The interface every pruning method implements, and the objects that cross it."""

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
    """The token sequences a method looks at.

    Attributes:
        input_ids: int64 `[n_samples, seqlen]`, without padding.
        source: where the text came from, as a user would name it.
        seed: the seed its windows were drawn with; None where rows were taken as they stood.
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
        """How many sequences there are."""
        return self.input_ids.shape[0]

    @property
    def seqlen(self) -> int:
        """Tokens in each sequence."""
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
"""In a batch, about: enough to keep the device busy, and no more memory than that takes."""


Weights = Literal["resident", "onload"]
"""Where decoder layers are: `resident`, all on the device; `onload`, one after another visits it."""


class LayerStorage(Protocol):
    """Keeps the weights of decoder layers, and gives out copies that belong to the visitor.

    Tensors go by their dotted name inside the layer, and are laid out as the model stores them. `fetch` and
    `dense` are called from another thread while another layer is stored.
    """

    def fetch(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """All parameters and persistent buffers of a layer as they are now, on the CPU.

        Args:
            layer: which one.
            pinned: in memory that a GPU can read while others work.
        """
        ...

    def store(self, layer: DecoderLayer, weights: Mapping[str, Tensor]) -> None:
        """Keeps new values of the parameters that hold a layer's targets."""
        ...

    def remember_dense(self) -> None:
        """Keeps the present weights of all targets for `dense` and `restore_dense`.

        A method inside another one remembers them too: what was remembered last is forgotten first.
        """
        ...

    def dense(self, layer: DecoderLayer, *, pinned: bool = False) -> dict[str, Tensor]:
        """What the parameters that hold a layer's targets were when they were remembered; only to be read."""
        ...

    def restore_dense(self) -> None:
        """Puts the remembered weights of all targets back, and forgets them."""
        ...

    def forget_dense(self) -> None:
        """Forgets them."""
        ...

    def stamp(self, layer: DecoderLayer) -> object:
        """Differs from what it was before wherever the layer was stored or restored since."""
        ...


@dataclass(frozen=True)
class Placement:
    """Where a model's decoder layers are while it is pruned, and in what portions the calibration goes by.

    Attributes:
        batch_size: sequences in one batch; None = as many as make about 2,048 tokens on a CPU and 16,384 on
            an accelerator, and half as many wherever memory runs out. It is part of
            what fixes a mask to the bit, because sums are formed batch by batch.
        weights: `resident`: the model computes where it is. `onload`: one decoder layer at a time visits
            `device`, the next one fetched meanwhile, and goes back.
        device: where visiting layers compute; None = where the model is.
        storage: where layers stay between their visits; None = in the model's own parameters, on the host.

    Raises:
        InputError: `device` or `storage` without `onload`.
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
        """The sequences of `seqlen` tokens that make one batch on `device`."""
        if self.batch_size is not None:
            return self.batch_size
        n_tokens = ACCELERATOR_TOKENS if device is not None and device.type != "cpu" else HOST_TOKENS
        return max(1, n_tokens // seqlen)


@dataclass(frozen=True)
class PruneResult:
    """What a prune decided and what it took.

    Attributes:
        keep: parameter name -> its keep-mask, laid out as the parameter is; where experts are stacked in one
            parameter, its name with the expert's index -> that expert's.
        layers: one report per target module, in the order of the model.
        phases: seconds by phase (`statistics`, `solve`, `propagate`).
        initial: the result a rebuilding method started from.
    """

    keep: Mapping[str, KeepMask]
    layers: tuple[LayerReport, ...]
    phases: Mapping[str, float]
    initial: PruneResult | None = None

    @property
    def mask_digest(self) -> str:
        """SHA-256 (hex) over every parameter's name, shape and packed bits, in the order of names."""
        digest = hashlib.sha256()
        for name in sorted(self.keep):
            mask = self.keep[name]
            digest.update(f"{name}\0{list(mask.shape)}\0".encode())
            digest.update(mask.bits)
        return digest.hexdigest()

    @property
    def sparsity(self) -> float:
        """Share of pruned weights over all target modules."""
        return 1 - sum(m.n_kept for m in self.keep.values()) / sum(m.numel for m in self.keep.values())


def ignore_layer(_: LayerReport) -> None:
    """The `on_layer` of a caller that wants no progress."""


@runtime_checkable
class PruningMethod(Protocol):
    """One way of deciding which weights to remove.

    Hyper-parameters are the fields of a frozen dataclass, so that a record can hold them and the command
    can set them. Other packages register theirs under the entry-point group `prunebench.methods`.
    """

    name: ClassVar[str]
    """What users call it; lower case, words joined by hyphens."""
    version: ClassVar[int]
    """Raised with every change of what it decides: records made by an older version are stale."""
    needs_calibration: ClassVar[bool]
    """Whether `prune` looks at calibration data."""

    @property
    def reconstructs(self) -> bool:
        """Whether surviving weights may change."""
        ...

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int] | None:
        """Rows x columns of the groups in which it counts what it removes from a weight of `shape`.

        Each such tile of the weight loses exactly floor(n * s) of its n weights, or, where the method
        rebuilds an initial mask, as many as it had lost. None where the groups do not fit into one weight.
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
            model: a causal language model; it comes back in the state it came in, but for its weights.
            pattern: which share, or how many of each M, to remove.
            calibration: what to look at; may be None for a method that needs none.
            placement: where the layers are, and the batch size.
            on_layer: called with the report of each target module as soon as it is final.

        Returns:
            The masks, a report a module, and the seconds by phase.

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
        """Times the body, waiting for a GPU to finish its work first and last."""
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
    """`calibration`, or an `InputError` that says that method `name` needs one."""
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
