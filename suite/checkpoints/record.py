"""Parts of a checkpoint's record: its cell, its sparsity, and where both are known from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.errors import InputError
from suite.cell import DENSE, CalibrationSpec, Cell
from suite.checkpoints.disagreements import disagreements
from suite.data.corpora import holds_tokens
from suite.evaluation.measure import Measured, add_size
from suite.models.zeros import NEARLY, Zeros
from suite.results.records.pruning_file import PRUNING, Pruning
from suite.results.records.record import Metric

if TYPE_CHECKING:
    from suite.models.loading import LoadedModel
    from suite.results.records.record import ModelIdentity

CHECKPOINT = "checkpoint"
"""The method name of a checkpoint without information on what pruned it."""


def dense_identity(
    asked: Cell, pruning: Pruning | None, dense: ModelIdentity | None, own: ModelIdentity
) -> ModelIdentity:
    """Returns the dense model's identity: as loaded, else from `pruning.json`, else the checkpoint's own."""
    if dense is not None:
        return dense
    # In another dtype the same weights have a different digest.
    return pruning.model if pruning is not None and pruning.model.dtype == asked.dtype else own


def cell_of(asked: Cell, pruning: Pruning | None, zeros: Zeros, model: ModelIdentity) -> Cell:
    """Returns the cell of a checkpoint, with what pruned it as far as that is known.

    Raises:
        InputError: all weights of the target modules are 0.
    """
    if zeros.sparsity == 1:
        raise InputError(
            f"model {asked.model!r}: every weight of its target modules is 0, so there is no model to measure"
        )
    named = {"model": model.name, "revision": None, "checkpoint": asked.model}
    if pruning is not None:
        pruned_by = {
            name: getattr(pruning.record.cell, name)
            for name in ("method", "settings", "pattern", "allocation")
        }
        return asked.model_copy(update={**named, **pruned_by, "calibration": _calibration(pruning)})
    if zeros.pattern is None:
        return asked.model_copy(update={"method": DENSE})
    return asked.model_copy(update={**named, "method": CHECKPOINT, "pattern": zeros.pattern})


def _calibration(pruning: Pruning) -> CalibrationSpec | None:
    """Returns the calibration that was actually used, which may be less than was asked for."""
    used = pruning.record.calibration
    if used is None:
        return None
    return CalibrationSpec(
        source=used.source,
        n_samples=used.n_samples,
        seqlen=used.seqlen,
        seed=used.seed or 0,
        first_token="always" if used.first_token else "auto",
    )


def recorded_first_token(pruning: Pruning | None) -> bool | None:
    """Returns whether the prune's sequences began with the tokenizer's first token; None if unknown."""
    used = None if pruning is None else pruning.record.calibration
    return None if used is None or holds_tokens(used.source) else used.first_token


def add_zeros(
    measured: Measured, loaded: LoadedModel, cell: Cell, pruning: Pruning | None, zeros: Zeros
) -> None:
    """Adds sparsity and sizes to `measured`, with a remark if the sparsity was counted from zeros."""
    if cell.is_dense:
        add_size(measured, loaded, (), None)
        return
    if pruning is None:
        measured.remarks.append(
            f"its sparsity was counted from zeros: the checkpoint has no {PRUNING} written by prunebench"
        )
        sparsity, protocol = zeros.sparsity, "zeros"
    else:
        sparsity, protocol = pruning.sparsity, "target-modules"
        measured.metrics.append(
            Metric(name="prune_seconds", protocol=PRUNING, value=pruning.prune_seconds, direction="lower")
        )
        measured.remarks += disagreements(pruning, zeros)
        if zeros.sparsity > sparsity + NEARLY:
            measured.remarks.append(
                f"{zeros.sparsity:.4g} of the weights of its target modules are 0, more than were pruned"
            )
    measured.metrics.append(Metric(name="sparsity", protocol=protocol, value=sparsity, direction="none"))
    add_size(measured, loaded, zeros.modules, cell.pattern)


__all__ = ["CHECKPOINT", "add_zeros", "cell_of", "dense_identity", "recorded_first_token"]
