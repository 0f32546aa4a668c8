"""`prune_checkpoint` and `evaluate_checkpoint`: write or measure a single checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from methods.base import Weights
from methods.errors import InputError
from suite.api.arguments import checked
from suite.cell import CalibrationSpec, DType, FirstToken
from suite.checkpoints.evaluation import Outlet, measure_checkpoint
from suite.checkpoints.writing.checkpoint import write_checkpoint
from suite.checkpoints.writing.folder import require_empty
from suite.evaluation.inputs import model_key
from suite.machine.devices import resolve_device, resolve_dtype, written_dtype
from suite.models.loading import stored_dtypes
from suite.planning.option_cells import NOTHING, evaluation_cell, pruning_cell
from suite.planning.preflight import preflight
from suite.results import Record, ResultStore
from suite.results.records.pruning_file import Pruning
from suite.storage.files import require_folder
from suite.watcher import Silent, Watcher


@dataclass(frozen=True)
class PrunedCheckpoint:
    """A pruned checkpoint on the disk.

    Attributes:
        folder: the checkpoint's folder, for `from_pretrained`; it contains `pruning.json`.
        pruning: the contents of `pruning.json`.
    """

    folder: Path
    pruning: Pruning = field(repr=False)

    @property
    def record(self) -> Record:
        """The record of the prune: its cell, its cost, its mask digests and its modules."""
        return self.pruning.record

    @property
    def sparsity(self) -> float:
        """Fraction of the target modules' weights that were removed."""
        return self.pruning.sparsity

    @property
    def prune_seconds(self) -> float:
        """Wall-clock time of calibration and pruning, without loading the model, in seconds."""
        return self.pruning.prune_seconds


@dataclass(frozen=True)
class Evaluation:
    """The measurements of a checkpoint.

    Attributes:
        record: the checkpoint's record.
        dense: the dense model's record; None if no dense model was given.
    """

    record: Record
    dense: Record | None


@checked
def prune_checkpoint(
    model: str | Path,
    method: str,
    out: str | Path,
    *,
    sparsity: str | float | None = None,
    pattern: str | None = None,
    settings: Mapping[str, Any] | None = None,
    allocation: str | None = None,
    allocation_settings: Mapping[str, Any] | None = None,
    calibration: CalibrationSpec | str = CalibrationSpec(),
    dtype: DType | Literal["auto"] = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | torch.device = "auto",
    placement: Weights = "resident",
    watcher: Watcher | None = None,
) -> PrunedCheckpoint:
    """Prunes a model and writes the checkpoint, as `prunebench prune` does.

    Args:
        model: a hub id, a local folder or a built-in name.
        method: a registered pruning method, e.g. `wanda`, or a recipe, e.g. `wanda | swaps | refit`.
        out: an empty or new folder; it appears only once the checkpoint is complete.
        sparsity: the fraction of weights to remove, at least 0 and below 1.
        pattern: an N:M pattern instead of `sparsity`: N of every M weights are kept.
        settings: hyper-parameters of the method that replace its defaults.
        allocation: how the sparsity is divided among the layers, e.g. `owl`; None = equally.
        allocation_settings: hyper-parameters of the allocation.
        calibration: which tokens the method is calibrated on; the name of a text alone means 128 x 2,048
            tokens of it.
        dtype: dtype of the model while it is pruned, and of the checkpoint; `auto` = the dtype in which most
            of its weights are stored, or float32 if the hardware does not multiply that natively.
        revision: a branch, tag or commit on the hub.
        trust_remote_code: whether Python files that come with the model may run.
        device: `cpu`, `cuda`, `cuda:1`...; `auto` = a GPU if there is one.
        placement: `resident` keeps the whole model on the device; `onload` one decoder layer at a time.
        watcher: receives progress events.

    Raises:
        InputError: an argument cannot be used; nothing was written.
        AssetError: a built-in model or text could not be fetched.
        PruningError: the prune failed or broke the method's contract; nothing was written.
        OSError: the checkpoint could not be written.
    """
    folder, watcher = Path(out).expanduser(), watcher or Silent()
    require_empty(folder)
    target = resolve_device(device)
    cell = pruning_cell(
        str(model),
        method,
        sparsity=sparsity,
        pattern=pattern,
        settings=settings or {},
        allocation=allocation,
        allocation_settings=allocation_settings or {},
        calibration=CalibrationSpec(source=calibration) if isinstance(calibration, str) else calibration,
        dtype="float32",
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    stored = stored_dtypes(cell.model, revision)
    cell = cell.model_copy(update={"dtype": written_dtype(dtype, stored, target)})
    inputs = preflight([cell])
    watcher.cell_started(cell)
    pruning = write_checkpoint(cell, inputs[model_key(cell)], folder, target, placement, watcher)
    watcher.cell_ended(cell, "complete")
    return PrunedCheckpoint(folder, pruning)


@checked
def evaluate_checkpoint(
    model: str | Path,
    *,
    dense: str | Path | None = None,
    out: str | Path | None = None,
    perplexity: str | Path | Sequence[str | Path] = ("wiki-sample", "news-sample"),
    seqlen: Annotated[int, Field(ge=2)] = 2048,
    max_tokens: Annotated[int, Field(ge=2)] | None = None,
    first_token: FirstToken = "auto",
    tasks: str | Sequence[str] = "offline",
    task_folder: str | Path | None = None,
    num_fewshot: Annotated[int, Field(ge=0)] | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    prompts: str | Path | None = "built-in",
    max_new_tokens: Annotated[int, Field(ge=1)] = 48,
    speed: bool = True,
    dtype: DType | Literal["auto"] = "auto",
    revision: str | None = None,
    dense_revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | torch.device = "auto",
    placement: Weights = "resident",
    on_cell: Callable[[Record], None] | None = None,
    watcher: Watcher | None = None,
) -> Evaluation:
    """Measures a checkpoint, pruned by any program or not at all, as `prunebench evaluate` does.

    Args:
        model: a hub id, a local folder or a built-in name; pruned or not.
        dense: the dense model to compare it with: divergence, flips, answers side by side.
        out: a results folder for the records; None = they are only returned.
        perplexity: a corpus or a text file, or several.
        seqlen: number of tokens per window of text.
        max_tokens: maximum number of tokens used of each text.
        first_token: whether each sequence begins with the tokenizer's first token.
        tasks: a task or a set of tasks, or several; empty = none.
        task_folder: a folder with additional lm-eval task files.
        num_fewshot: number of examples before each question; None = the task's default.
        limit: maximum number of questions per task.
        prompts: a set of prompts to answer: `built-in` or a `.jsonl` file; None = none.
        max_new_tokens: maximum number of tokens per answer.
        speed: whether to measure tokens per second.
        dtype: dtype in which the models are loaded; `auto` = bfloat16 if the hardware multiplies it natively,
            else float32.
        revision: the model's branch, tag or commit on the hub.
        dense_revision: the dense model's branch, tag or commit on the hub.
        trust_remote_code: whether Python files that come with the models may run.
        device: `cpu`, `cuda`, `cuda:1`...; `auto` = a GPU if there is one.
        placement: `resident` keeps the whole model on the device; `onload` one decoder layer at a time.
        on_cell: called with each record once it is measured and, if `out` was given, stored.
        watcher: receives progress events.

    Raises:
        InputError: an argument cannot be used, the two models do not match, or `out` contains a record of
            different weights under the same name.
        AssetError: a built-in model or text could not be fetched.
        PruningError: a model's structure cannot be read.
        OSError: a record could not be written.
    """
    if dense is None and dense_revision is not None:
        raise InputError(f"dense_revision {dense_revision!r}: no dense model was given")
    store = None if out is None else ResultStore(Path(out).expanduser())
    if store is not None:
        require_folder(store.root)
    target = resolve_device(device)
    asked = evaluation_cell(
        str(model),
        None if dense is None else str(dense),
        corpora=_texts(perplexity),
        seqlen=seqlen,
        max_tokens=max_tokens,
        first_token=first_token,
        tasks=_texts(tasks),
        task_folder=None if task_folder is None else str(task_folder),
        num_fewshot=num_fewshot,
        limit=limit,
        prompts=NOTHING if prompts is None else str(prompts),
        max_new_tokens=max_new_tokens,
        speed=speed,
        dtype=resolve_dtype(dtype, target),
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    *beside, found = measure_checkpoint(
        asked,
        None if dense is None else str(dense),
        dense_revision=dense_revision,
        device=target,
        watcher=watcher or Silent(),
        weights=placement,
        outlet=Outlet(store, on_cell),
    )
    return Evaluation(found, beside[0] if beside else None)


def _texts(given: str | Path | Sequence[str | Path]) -> list[str]:
    """Returns one or several texts as a list of strings."""
    return [str(given)] if isinstance(given, str | Path) else list(map(str, given))


__all__ = ["Evaluation", "PrunedCheckpoint", "evaluate_checkpoint", "prune_checkpoint"]
