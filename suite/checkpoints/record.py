"""What the record of a finished checkpoint says of it: what pruned it, how sparse it is, and who says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.errors import InputError
from suite.cell import DENSE, CalibrationSpec, Cell
from suite.checkpoints.finished import NEARLY, CountedZeros, Summary, disagreements
from suite.evaluation.measure import Measured, add_size
from suite.results.records.record import Metric, ModuleReport

if TYPE_CHECKING:
    from suite.models.loading import LoadedModel
    from suite.results.records.record import CalibrationIdentity, ModelIdentity

CHECKPOINT = "checkpoint"
"""The method name of a checkpoint that does not say what pruned it."""


def dense_identity(
    asked: Cell, summary: Summary | None, dense: ModelIdentity | None, own: ModelIdentity
) -> ModelIdentity:
    """The dense model's identity: as loaded, else as `pruning.json` has it, else the checkpoint's own."""
    if dense is not None:
        return dense
    # In another dtype its weights would have another digest.
    return summary.model if summary is not None and summary.model.dtype == asked.dtype else own


def cell_of(asked: Cell, summary: Summary | None, zeros: CountedZeros, model: ModelIdentity) -> Cell:
    """The cell of a checkpoint: what pruned it, as far as that is known.

    Raises:
        InputError: nothing of it is left.
    """
    if zeros.sparsity == 1:
        raise InputError(
            f"model {asked.model!r}: every weight of its target modules is 0, so there is no model to measure"
        )
    named = {"model": model.name, "revision": None, "checkpoint": asked.model}
    if summary is not None:
        told = {name: getattr(summary, name) for name in ("method", "settings", "pattern", "allocation")}
        calibration = None if summary.calibration is None else _calibration(summary.calibration)
        return asked.model_copy(update={**named, **told, "calibration": calibration})
    if zeros.pattern is None:
        return asked.model_copy(update={"method": DENSE})
    return asked.model_copy(update={**named, "method": CHECKPOINT, "pattern": zeros.pattern})


def _calibration(stored: CalibrationIdentity) -> CalibrationSpec:
    return CalibrationSpec(
        source=stored.source,
        n_samples=stored.n_samples,
        seqlen=stored.seqlen,
        seed=stored.seed or 0,
        first_token="always" if stored.first_token else "auto",
    )


def add_zeros(
    measured: Measured,
    loaded: LoadedModel,
    cell: Cell,
    summary: Summary | None,
    zeros: CountedZeros,
) -> None:
    """Adds sparsity and sizes, and says where the sparsity comes from."""
    if cell.is_dense:
        add_size(measured, loaded, (), None)
        return
    if summary is None:
        measured.remarks.append(
            "its sparsity was counted from zeros: the checkpoint has no pruning.json written by prunebench"
        )
        sparsity, protocol = zeros.sparsity, "zeros"
    else:
        sparsity, protocol = summary.sparsity, "target-modules"
        measured.metrics.append(
            Metric(
                name="prune_seconds",
                protocol="pruning.json",
                value=summary.prune_seconds,
                direction="lower",
            )
        )
        measured.remarks += disagreements(summary, zeros)
        if zeros.sparsity > sparsity + NEARLY:
            measured.remarks.append(
                f"{zeros.sparsity:.4g} of the weights of its target modules are 0, more than were pruned"
            )
    measured.metrics.append(Metric(name="sparsity", protocol=protocol, value=sparsity, direction="none"))
    add_size(measured, loaded, module_reports(zeros), cell.pattern)


def module_reports(zeros: CountedZeros) -> tuple[ModuleReport, ...]:
    """A report a target module, of its zeros."""
    return tuple(
        ModuleReport(
            module=m.name,
            layer=m.layer,
            block=m.block,
            shape=m.shape,
            n_weights=m.n_weights,
            n_pruned=m.n_zeros,
        )
        for m in zeros.modules
    )


__all__ = ["CHECKPOINT", "add_zeros", "cell_of", "dense_identity", "module_reports"]
