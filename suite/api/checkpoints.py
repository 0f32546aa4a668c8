"""`prune_checkpoint` and `evaluate_checkpoint`: one finished checkpoint, made or measured."""

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
    """A checkpoint that was pruned and written.

    Attributes:
        folder: what `from_pretrained` loads, with `pruning.json` in it.
        pruning: what `pruning.json` holds.
    """

    folder: Path
    pruning: Pruning = field(repr=False)

    @property
    def record(self) -> Record:
        """Of the prune: its cell, what it took, masks and modules."""
        return self.pruning.record

    @property
    def sparsity(self) -> float:
        """Share of the target modules' weights that were removed."""
        return self.pruning.sparsity

    @property
    def prune_seconds(self) -> float:
        """Wall-clock time of the prune with its calibration, after the model was loaded."""
        return self.pruning.prune_seconds


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a checkpoint.

    Attributes:
        record: of the checkpoint.
        dense: of the dense model beside it; None where none was given.
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
        out: a folder that is empty or does not exist; it appears whole or not at all.
        sparsity: the share of weights to remove, at least 0 and below 1.
        pattern: instead of `sparsity`, N:M: N of every M weights survive.
        settings: hyper-parameters of the method in place of its defaults.
        allocation: what divides the sparsity among the layers, e.g. `owl`; None = all get the same.
        allocation_settings: its hyper-parameters.
        calibration: which tokens the method looks at; a text alone stands for 128 x 2,048 tokens of it.
        dtype: of the model while it is pruned, and of the checkpoint; `auto` = as most of its weights are
            stored, or float32 where the hardware does not multiply that natively.
        revision: a branch, tag or commit on the hub.
        trust_remote_code: whether Python files that come with the model may run.
        device: `cpu`, `cuda`, `cuda:1`...; `auto` = a GPU if there is one.
        placement: `resident`: the whole model is on the device; `onload`: one decoder layer at a time is.
        watcher: hears of progress.

    Raises:
        InputError: something that was asked for is not usable; nothing was written.
        AssetError: a built-in model or text could not be fetched.
        PruningError: the prune failed or broke the method's promises; nothing was written.
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
    """Measures a checkpoint, whoever pruned it, as `prunebench evaluate` does.

    Args:
        model: a hub id, a local folder or a built-in name; pruned or not.
        dense: the dense model to hold it against: divergence, flips, answers side by side.
        out: a results folder for the records; None = they are only returned.
        perplexity: a corpus or a text file, or several.
        seqlen: tokens in a window of text.
        max_tokens: at most this many tokens of each text.
        first_token: whether each sequence begins with the tokenizer's first token.
        tasks: a task or a set of tasks, or several; empty = none.
        task_folder: a folder with lm-eval task files of one's own.
        num_fewshot: examples before each question; None = as the task has it.
        limit: at most this many questions per task.
        prompts: a set of prompts to answer: `built-in` or a `.jsonl` file; None = none.
        max_new_tokens: at most this many tokens per answer.
        speed: whether tokens per second are measured.
        dtype: what the models are loaded as; `auto` = bfloat16 where the hardware multiplies it natively,
            else float32.
        revision: the model's branch, tag or commit on the hub.
        dense_revision: likewise of the dense model.
        trust_remote_code: whether Python files that come with the models may run.
        device: `cpu`, `cuda`, `cuda:1`...; `auto` = a GPU if there is one.
        placement: `resident`: the whole model is on the device; `onload`: one decoder layer at a time is.
        on_cell: gets each record as soon as it is measured, and stored if `out` was given.
        watcher: hears of progress.

    Raises:
        InputError: something that was asked for is not usable, the two models do not fit each other, or `out`
            holds a record of other weights under the same name.
        AssetError: a built-in model or text could not be fetched.
        PruningError: a model's structure cannot be read.
        OSError: a record could not be written.
    """
    if dense is None and dense_revision is not None:
        raise InputError(f"dense_revision {dense_revision!r}: there is no dense model to take it of")
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
    """One text, or several, as a list."""
    return [str(given)] if isinstance(given, str | Path) else list(map(str, given))


__all__ = ["Evaluation", "PrunedCheckpoint", "evaluate_checkpoint", "prune_checkpoint"]
