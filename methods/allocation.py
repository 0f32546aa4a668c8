"""The interface of an allocation: how a model's sparsity is spread over its target modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from methods.base import CalibrationSet, Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from methods.masks.pattern import Allocated, UniformPattern


@runtime_checkable
class Allocation(Protocol):
    """One way of giving each target module a sparsity of its own; any method prunes by what it gives.

    Hyper-parameters are the fields of a frozen dataclass, as those of a method are. Other packages register
    theirs under the entry-point group `prunebench.allocations`.
    """

    name: ClassVar[str]
    """What users call it; lower case, words joined by hyphens."""
    version: ClassVar[int]
    """Raised with every change of what it decides: records made by an older version are stale."""
    needs_calibration: ClassVar[bool]
    """Whether `allocate` looks at calibration data."""

    def check_pattern(self, pattern: UniformPattern) -> None:
        """Raises `InputError` if `pattern` is of a kind that it cannot spread."""
        ...

    def allocate(
        self,
        model: PreTrainedModel,
        pattern: UniformPattern,
        calibration: CalibrationSet | None,
        *,
        placement: Placement = Placement(),
    ) -> Allocated:
        """Spreads the sparsity of `pattern` over the targets of `model`.

        Args:
            model: a dense causal language model; it comes back as it was.
            pattern: the sparsity that all target modules have together.
            calibration: what to look at; may be None for an allocation that needs none.
            placement: device and batch size.

        Returns:
            A pattern that names a sparsity for every target module.

        Raises:
            InputError: the pattern cannot be spread, or calibration is missing.
            PruningError: NaN or an unreadable structure; names the module.
        """
        ...


__all__ = ["Allocation"]
