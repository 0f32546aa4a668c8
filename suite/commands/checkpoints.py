"""`prunebench prune` and `prunebench evaluate`: write or measure a single checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from methods.errors import InputError
from suite.commands.options import (
    AsJson,
    Device,
    DTypeName,
    First,
    LoadedAs,
    Placed,
    Revision,
    Settings,
    Trusted,
    print_json,
    progress_bars,
    say,
)

if TYPE_CHECKING:
    from suite.results.records.record import Record


def prune(
    model: Annotated[str, typer.Argument(help="The model: a hub id, a local folder or a built-in name.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder for the checkpoint.")],
    method: Annotated[str | None, typer.Option(help="A pruning method (prunebench list methods).")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A recipe instead of --method: a score, refinements and an update, such as "
            "'alphapruning | wanda | swaps | refit(steps=20)' (prunebench list steps)."
        ),
    ] = None,
    sparsity: Annotated[str | None, typer.Option(help="Fraction of weights to remove, e.g. 0.5.")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="An N:M pattern instead of --sparsity: keep N of every M weights, e.g. 2:4."),
    ] = None,
    settings: Settings = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            help="How to divide the sparsity among the layers (prunebench list allocations). "
            "(default: equally)"
        ),
    ] = None,
    allocation_settings: Annotated[
        list[str] | None,
        typer.Option("--set-allocation", help="Change a setting of the allocation: key=value; repeatable."),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            help="Calibration data: a corpus (prunebench list corpora), or a .txt, .jsonl, .parquet or "
            ".safetensors file."
        ),
    ] = "wiki-sample",
    n_samples: Annotated[int, typer.Option(min=1, help="Number of calibration sequences.")] = 128,
    seqlen: Annotated[int, typer.Option(min=1, help="Tokens per calibration sequence.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Seed for drawing the calibration sequences.")] = 0,
    first_token: First = "auto",
    dtype: Annotated[
        DTypeName,
        typer.Option(
            help="dtype of the model during pruning, and of the checkpoint. auto: the dtype in which most of "
            "its weights are stored, or float32 if the hardware does not multiply that natively."
        ),
    ] = "auto",
    revision: Revision = None,
    trust_remote_code: Trusted = False,
    placement: Placed = "resident",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Prune a model and write the checkpoint."""
    from methods.recipe import parse_recipe
    from suite.api.checkpoints import prune_checkpoint
    from suite.cell import CalibrationSpec
    from suite.planning.option_cells import parse_assignments

    if method is not None and recipe is None:
        asked = method
    elif recipe is not None and method is None:
        asked = str(parse_recipe(recipe))
    else:
        raise InputError("give either --method or --recipe")
    set_method, set_allocation = (
        parse_assignments(settings or []),
        parse_assignments(allocation_settings or [], option="--set-allocation"),
    )
    with progress_bars(1) as bars:
        pruned = prune_checkpoint(
            model,
            asked,
            out,
            sparsity=sparsity,
            pattern=pattern,
            settings=set_method,
            allocation=allocation,
            allocation_settings=set_allocation,
            calibration=CalibrationSpec(
                source=calibration,
                n_samples=n_samples,
                seqlen=seqlen,
                seed=seed,
                first_token=first_token,
            ),
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            placement=placement,
            watcher=bars,
        )
    for remark in pruned.record.warnings:
        say(remark)
    if as_json:
        print_json(pruned.pruning.model_dump(mode="json"))
    else:
        print(out)
        say(f"sparsity {pruned.sparsity:.4f}, pruned in {pruned.prune_seconds:.1f} s (without loading)")


def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="The model, pruned or not: a hub id, a local folder or a built-in name."),
    ],
    dense: Annotated[
        str | None,
        typer.Option(help="The dense model to compare with: divergence, flips, answers side by side."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the records to this results folder.")] = None,
    perplexity: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure perplexity on this corpus or text file; repeatable. "
            "(default: wiki-sample and news-sample)"
        ),
    ] = None,
    seqlen: Annotated[int, typer.Option(min=2, help="Tokens per window of text.")] = 2048,
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help="Use at most this many tokens of each text.")
    ] = None,
    first_token: First = "auto",
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A task or set of tasks (prunebench list tasks), or none; repeatable. (default: offline)"
        ),
    ] = None,
    task_folder: Annotated[
        str | None, typer.Option(help="A folder with additional lm-eval task files.")
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(min=0, help="Number of examples before each question. (default: as the task defines)"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use at most this many questions per task.")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="Prompts that the model answers: built-in, a .jsonl file, or none.")
    ] = "built-in",
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Generate at most this many tokens per answer.")
    ] = 48,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure tokens per second.")] = True,
    dtype: LoadedAs = "auto",
    revision: Revision = None,
    dense_revision: Annotated[str | None, typer.Option(help="The dense model's revision on the hub.")] = None,
    trust_remote_code: Trusted = False,
    placement: Placed = "resident",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint: perplexity, tasks, answers, size, speed."""
    from suite.api.checkpoints import evaluate_checkpoint
    from suite.commands.output.evaluation import evaluation_rows
    from suite.results import ResultStore

    def tell(written: Record) -> None:
        if out is not None:
            say(str(ResultStore(out).path_of(written.cell)))

    with progress_bars(1 if dense is None else 2) as bars:
        found = evaluate_checkpoint(
            model,
            dense=dense,
            out=out,
            perplexity=perplexity or ["wiki-sample", "news-sample"],
            seqlen=seqlen,
            max_tokens=max_tokens,
            first_token=first_token,
            tasks=task or ["offline"],
            task_folder=task_folder,
            num_fewshot=num_fewshot,
            limit=limit,
            prompts=prompts,
            max_new_tokens=max_new_tokens,
            speed=speed,
            dtype=dtype,
            revision=revision,
            dense_revision=dense_revision,
            trust_remote_code=trust_remote_code,
            device=device,
            placement=placement,
            on_cell=tell,
            watcher=bars,
        )
    if as_json:
        print_json(found.record.model_dump(mode="json"))
        return
    for line in evaluation_rows(found.record, found.dense):
        print(line)
    for remark in found.record.warnings:
        say(remark)
