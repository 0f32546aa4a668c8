"""The interface of an allocation, which spreads a model's sparsity over its target modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from methods.base import CalibrationSet, Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from methods.masks.pattern import Allocated, UniformPattern


@runtime_checkable
class Allocation(Protocol):
    """One way of choosing a sparsity for each target module; the result can be used with any method.

    Hyper-parameters are the fields of a frozen dataclass, like those of a method. Other packages register
    allocations under the entry-point group `prunebench.allocations`.
    """

    name: ClassVar[str]
    """Name that users type; lower case, words joined by hyphens."""
    version: ClassVar[int]
    """Version to increase with every change of the results; records of older versions are stale."""
    needs_calibration: ClassVar[bool]
    """Whether `allocate` reads calibration data."""

    def check_pattern(self, pattern: UniformPattern) -> None:
        """Raises `InputError` if the allocation cannot spread this kind of pattern."""
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
            model: a dense causal language model; it is not changed.
            pattern: the overall sparsity of all target modules.
            calibration: the calibration data; may be None if the allocation needs none.
            placement: device and batch size.

        Returns:
            A pattern with one sparsity per target module.

        Raises:
            InputError: the pattern cannot be spread, or calibration is missing.
            PruningError: NaN or an unreadable structure; names the module.
        """
        ...


__all__ = ["Allocation"]
