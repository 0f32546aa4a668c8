"""`prunebench prune` and `prunebench evaluate`: one checkpoint, made or measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suite.commands.options import (
    AsJson,
    Device,
    DTypeChoice,
    First,
    FirstTokenOption,
    LoadedAs,
    Placed,
    PlacementChoice,
    Revision,
    Trusted,
    print_json,
    progress_bars,
    say,
)


def prune(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder or a built-in name.")],
    method: Annotated[str, typer.Option(help="A pruning method (prunebench list methods).")],
    out: Annotated[Path, typer.Option(help="A new folder for the checkpoint.")],
    sparsity: Annotated[str | None, typer.Option(help="Share of weights to remove, e.g. 0.5.")] = None,
    pattern: Annotated[
        str | None, typer.Option(help="In place of --sparsity: N:M, N of every M weights survive, e.g. 2:4.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, key=value; repeatable."),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(help="Divides the sparsity among the layers (prunebench list allocations)."),
    ] = None,
    allocation_settings: Annotated[
        list[str] | None,
        typer.Option("--set-allocation", help="A setting of the allocation, key=value; repeatable."),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            help="A corpus (prunebench list corpora), or a .txt, .jsonl, .parquet or .safetensors file."
        ),
    ] = "wiki-sample",
    n_samples: Annotated[int, typer.Option(min=1, help="Calibration sequences.")] = 128,
    seqlen: Annotated[int, typer.Option(min=1, help="Tokens per calibration sequence.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Seed for drawing the calibration sequences.")] = 0,
    first_token: First = FirstTokenOption.auto,
    dtype: Annotated[
        DTypeChoice,
        typer.Option(
            help="Of the model while it is pruned, and of the checkpoint. auto: as most of its weights are "
            "stored, or float32 if the hardware does not multiply that natively."
        ),
    ] = DTypeChoice.auto,
    revision: Revision = None,
    trust_remote_code: Trusted = False,
    placement: Placed = PlacementChoice.resident,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Prune a model and write the checkpoint."""
    from suite.cell import CalibrationSpec
    from suite.checkpoints.writing.folder import remarks_of, require_empty
    from suite.checkpoints.writing.layered import write_layered_checkpoint
    from suite.checkpoints.writing.resident import write_checkpoint
    from suite.evaluation.inputs import model_key
    from suite.machine.devices import resolve_device, written_dtype
    from suite.models.loading import stored_dtypes
    from suite.planning.option_cells import pruning_cell
    from suite.planning.preflight import preflight
    from suite.running.model_session import ModelSession

    require_empty(out)
    target = resolve_device(device)
    cell = pruning_cell(
        model,
        method,
        sparsity=sparsity,
        pattern=pattern,
        assignments=settings or [],
        allocation=allocation,
        allocation_assignments=allocation_settings or [],
        calibration=CalibrationSpec(
            source=calibration,
            n_samples=n_samples,
            seqlen=seqlen,
            seed=seed,
            first_token=first_token.value,
        ),
        dtype="float32",
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    stored = stored_dtypes(model, revision)
    cell = cell.model_copy(update={"dtype": written_dtype(dtype.value, stored, target)})
    inputs = preflight([cell])
    with progress_bars(1) as bars:
        bars.cell_started(cell)
        if placement is PlacementChoice.onload:
            summary = write_layered_checkpoint(cell, inputs[model_key(cell)], target, out, bars)
        else:
            summary = write_checkpoint(cell, ModelSession(target, inputs), out, bars)
        bars.cell_ended(cell, "complete")
    for remark in remarks_of(summary):
        say(remark)
    if as_json:
        print_json(summary)
    else:
        print(out)
        say(
            f"sparsity {summary['sparsity']:.4f}, {summary['prune_seconds']:.1f} s after the model was loaded"
        )


def evaluate(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder or a built-in name; pruned or not.")],
    dense: Annotated[
        str | None,
        typer.Option(help="The dense model to compare with: divergence, flips, answers side by side."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the records to this results folder.")] = None,
    perplexity: Annotated[
        list[str] | None,
        typer.Option(help="A corpus or text file; repeatable. (default: wiki-sample and news-sample)"),
    ] = None,
    seqlen: Annotated[int, typer.Option(min=2, help="Tokens per window of text.")] = 2048,
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help="At most this many tokens of each text.")
    ] = None,
    first_token: First = FirstTokenOption.auto,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task or set (prunebench list tasks), or none; repeatable. (default: offline)"),
    ] = None,
    task_folder: Annotated[
        str | None, typer.Option(help="A folder with your own lm-eval task files.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Examples before each question. (default: as the task has it)")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many questions per task.")] = None,
    prompts: Annotated[
        str, typer.Option(help="Prompts to answer: built-in, a .jsonl file, or none.")
    ] = "built-in",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="At most this many tokens per answer.")] = 48,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure tokens per second.")] = True,
    dtype: LoadedAs = DTypeChoice.auto,
    revision: Revision = None,
    dense_revision: Annotated[str | None, typer.Option(help="The dense model's revision on the hub.")] = None,
    trust_remote_code: Trusted = False,
    placement: Placed = PlacementChoice.resident,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint: perplexity, tasks, answers, size, speed."""
    from suite.checkpoints.evaluation import Outlet, evaluate_checkpoint
    from suite.commands.output.evaluation import evaluation_rows
    from suite.machine.devices import resolve_device, resolve_dtype
    from suite.planning.option_cells import evaluation_cell
    from suite.results import ResultStore
    from suite.results.records.files import require_folder

    if out is not None:
        require_folder(out)
    target = resolve_device(device)
    asked = evaluation_cell(
        model,
        dense,
        corpora=perplexity or ["wiki-sample", "news-sample"],
        seqlen=seqlen,
        max_tokens=max_tokens,
        first_token=first_token.value,
        tasks=task or ["offline"],
        task_folder=task_folder,
        num_fewshot=num_fewshot,
        limit=limit,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        speed=speed,
        dtype=resolve_dtype(dtype.value, target),
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    with progress_bars(1 if dense is None else 2) as bars:
        evaluated = evaluate_checkpoint(
            asked,
            dense,
            dense_revision=dense_revision,
            device=target,
            watcher=bars,
            weights=placement.weights,
            outlet=Outlet(None if out is None else ResultStore(out), lambda path: say(str(path))),
        )
    record = evaluated[-1].record
    if as_json:
        print_json(record.sealed().model_dump(mode="json"))
        return
    for line in evaluation_rows(record, evaluated[0].record if dense is not None else None):
        print(line)
    for remark in record.warnings:
        say(remark)
