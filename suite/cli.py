"""The command `prunebench`: parses, calls, prints. Heavy libraries are imported inside the commands."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from methods.errors import InputError, PruningError

if TYPE_CHECKING:
    import torch

    from suite.executors import PlannedCell
    from suite.progress import ProgressBars

app = typer.Typer(
    name="prunebench",
    help="One-shot LLM pruning as a benchmark: prune, measure, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 fine, 1 a regression was found, 2 the input is wrong, 3 something failed.",
)

FAILED = 3
WRONG_INPUT = 2
BROKEN = 1
INTERRUPTED = 130


class DTypeChoice(StrEnum):
    """What a model is loaded as."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class PlacementChoice(StrEnum):
    """Where a model's weights are while it is pruned."""

    resident = "resident"
    onload = "onload"


class ExistingChoice(StrEnum):
    """What becomes of cells that have a record."""

    skip = "skip"
    rerun_stale = "rerun-stale"
    rerun = "rerun"
    fail = "fail"


class Listable(StrEnum):
    """What can be listed."""

    methods = "methods"
    allocations = "allocations"
    models = "models"
    corpora = "corpora"
    tasks = "tasks"
    suites = "suites"


Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A built-in suite (prunebench list suites) or a .toml file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of records and report. [default: results/<suite>]")
    ] = None,
    existing: Annotated[
        ExistingChoice,
        typer.Option(
            help="Cells that have a record: keep them, run those of other code or inputs, run all, or refuse."
        ),
    ] = ExistingChoice.skip,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only cells whose label has this text or glob; may be given often."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a suite, resume what is missing, write the report."""
    from suite.config import load_suite, plan
    from suite.executors import decide, hold_against_inputs, run_here
    from suite.harness import present_code
    from suite.plan import matching, resolve_device, resolve_dtype
    from suite.preflight import preflight
    from suite.results import ResultStore
    from suite.workbench import Workbench

    config = load_suite(suite)
    target = resolve_device(device)
    cells = matching(plan(config, dtype=resolve_dtype(config.dtype, target)), only or [])
    out = out or Path("results") / config.name
    store = ResultStore(out)
    planned = decide(cells, store, existing.value, code=present_code)
    if dry_run:
        _print_plan(planned, target, as_json)
        return
    inputs = preflight(cells)
    planned = hold_against_inputs(planned, existing.value, inputs)
    for entry in planned:
        if entry.state.kind == "stale" and not entry.runs:
            _say(
                f"stale, kept: {entry.cell.label} ({entry.state.reason}); --existing rerun-stale runs it anew"
            )
    workbench = Workbench(target, inputs)
    store.sweep()
    with _bars(sum(entry.runs for entry in planned)) as bars:
        outcome = run_here(planned, workbench, store, bars)
    report_file = _write_report(out, out / "report.html", title=config.name)
    for cell, reason in outcome.failed:
        _say(f"failed: {cell.label}: {reason}")
    if as_json:
        _print_json(
            {
                "report": str(report_file),
                "finished": len(outcome.finished),
                "kept": len(outcome.kept),
                "failed": [{"cell": cell.label, "reason": reason} for cell, reason in outcome.failed],
            }
        )
    else:
        print(report_file)
    if outcome.failed:
        raise typer.Exit(FAILED)


@app.command()
def prune(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder or a built-in name.")],
    method: Annotated[str, typer.Option(help="prunebench list methods.")],
    out: Annotated[Path, typer.Option(help="A new folder for the checkpoint.")],
    sparsity: Annotated[str | None, typer.Option(help="Share of weights to remove, e.g. 0.5.")] = None,
    pattern: Annotated[str | None, typer.Option(help="N:M, N of every M survive, e.g. 2:4.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, key=value; may be given often."),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(help="Divides the sparsity among the layers: prunebench list allocations."),
    ] = None,
    allocation_settings: Annotated[
        list[str] | None,
        typer.Option("--set-allocation", help="A setting of the allocation, key=value; may be given often."),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(help="A corpus (prunebench list corpora) or a .txt/.jsonl/.parquet/.safetensors file."),
    ] = "wiki-sample",
    n_samples: Annotated[int, typer.Option(min=1, help="Calibration sequences.")] = 128,
    seqlen: Annotated[int, typer.Option(min=1, help="Tokens in each.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Which windows are drawn.")] = 0,
    dtype: Annotated[DTypeChoice, typer.Option(help="auto: bf16 where the hardware multiplies it.")] = (
        DTypeChoice.auto
    ),
    revision: Annotated[str | None, typer.Option(help="Revision on the hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Let code that comes with the model run.")] = False,
    placement: Annotated[
        PlacementChoice,
        typer.Option(
            help="resident: the whole model is on the device. onload: one decoder layer at a time comes from "
            "the model's files, so that it may be larger than the device's memory, and the host's."
        ),
    ] = PlacementChoice.resident,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Prune a model and write the checkpoint."""
    from suite.cell import CalibrationSpec
    from suite.checkpoint import write_checkpoint
    from suite.checkpoint_folder import require_empty
    from suite.layered_checkpoint import write_layered_checkpoint
    from suite.plan import pruning_cell, resolve_device, resolve_dtype
    from suite.preflight import model_key, preflight
    from suite.workbench import Workbench

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
        calibration=CalibrationSpec(source=calibration, n_samples=n_samples, seqlen=seqlen, seed=seed),
        dtype=resolve_dtype(dtype.value, target),
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    inputs = preflight([cell])
    with _bars(1) as bars:
        bars.cell_started(cell)
        if placement is PlacementChoice.onload:
            summary = write_layered_checkpoint(cell, inputs[model_key(cell)], target, out, bars)
        else:
            summary = write_checkpoint(cell, Workbench(target, inputs), out, bars)
        bars.cell_ended(cell, "complete")
    if as_json:
        _print_json(summary)
    else:
        print(out)
        _say(
            f"sparsity {summary['sparsity']:.4f}, {summary['prune_seconds']:.1f} s after the model was loaded"
        )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A hub id, a local folder or a built-in name; pruned or not.")],
    dense: Annotated[
        str | None,
        typer.Option(help="The dense model to hold it against: divergence, flips, answers side by side."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also put the records into this results folder.")] = None,
    perplexity: Annotated[
        list[str] | None,
        typer.Option(help="A corpus or text file; may be given often. [default: wiki-sample, news-sample]"),
    ] = None,
    seqlen: Annotated[int, typer.Option(min=2, help="Tokens in a window of text.")] = 2048,
    max_tokens: Annotated[int | None, typer.Option(min=2, help="At most this many of each text.")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="An lm-eval task, offline, paper7 or none; may be given often. [default: offline]"),
    ] = None,
    task_folder: Annotated[str | None, typer.Option(help="A folder with task files of your own.")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each question.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many questions a task.")] = None,
    prompts: Annotated[str, typer.Option(help="built-in, a .jsonl file, or none.")] = "built-in",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Where an answer is cut.")] = 48,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure tokens per second.")] = True,
    dtype: Annotated[DTypeChoice, typer.Option(help="auto: bf16 where the hardware multiplies it.")] = (
        DTypeChoice.auto
    ),
    revision: Annotated[str | None, typer.Option(help="Revision on the hub.")] = None,
    dense_revision: Annotated[str | None, typer.Option(help="The dense model's.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Let code that comes with the model run.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure any checkpoint: perplexity, tasks, answers, size and speed."""
    from suite.checkpoint_evaluation import evaluate_checkpoint
    from suite.evaluation_table import evaluation_rows
    from suite.plan import evaluation_cell, resolve_device, resolve_dtype
    from suite.results import ResultStore

    target = resolve_device(device)
    asked = evaluation_cell(
        model,
        dense,
        corpora=perplexity or ["wiki-sample", "news-sample"],
        seqlen=seqlen,
        max_tokens=max_tokens,
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
    with _bars(1 if dense is None else 2) as bars:
        evaluated = evaluate_checkpoint(
            asked, dense, dense_revision=dense_revision, device=target, watcher=bars
        )
    if out is not None:
        store = ResultStore(out)
        for found in evaluated:
            _say(str(store.write(found.record, found.items)))
    record = evaluated[-1].record
    if as_json:
        _print_json(record.sealed().model_dump(mode="json"))
        return
    for line in evaluation_rows(record, evaluated[0].record if dense is not None else None):
        print(line)
    for remark in record.warnings:
        _say(remark)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="A folder of records.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    title: Annotated[str | None, typer.Option(help="Its heading. [default: the folder's name]")] = None,
) -> None:
    """Render the comparison report of a folder of records."""
    if not results.is_dir():
        raise InputError(f"{results}: no such folder of records")
    print(_write_report(results, out, title=title or results.resolve().name))


@app.command("list")
def list_(what: Annotated[Listable, typer.Argument()], as_json: AsJson = False) -> None:
    """List methods, allocations, models, corpora, tasks or suites."""
    from suite.listing import listing

    rows = listing(what.value)
    if as_json:
        _print_json(rows)
        return
    width = max(16, *(len(row["name"]) for row in rows))
    for row in rows:
        print(f"{row['name']:<{width}} {row['description']}")


@app.command()
def doctor(
    model: Annotated[str | None, typer.Argument(help="Also print the structure of this model.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision on the hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Let code that comes with the model run.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what this machine can do, and how a model's structure is read."""
    from suite.doctor import describe_machine, describe_model
    from suite.plan import resolve_device

    machine = describe_machine(resolve_device(device))
    structure = None
    if model is not None:
        structure = describe_model(model, revision=revision, trust_remote_code=trust_remote_code)
    if as_json:
        _print_json({"machine": machine, **({"model": asdict(structure)} if structure else {})})
        return
    print("machine")
    for name, value in machine.items():
        print(f"  {name:<24} {value}")
    if structure:
        print("model")
        for line in structure.lines():
            print(f"  {line}")


@app.command(epilog="Exit codes: 0 every promise is kept, 1 one is broken, 2 the method cannot be loaded.")
def check_method(
    method: Annotated[
        str,
        typer.Argument(help="module:Class, the module in the current folder or installed; or a known name."),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, key=value; may be given often."),
    ] = None,
    families: Annotated[
        list[str] | None,
        typer.Option("--family", help="Only this model family, e.g. gpt2; may be given often."),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Each family and pattern in fp32, bf16, fp16 and training mode."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold a pruning method against everything that a method promises.

    Tiny random models of every family are pruned to every pattern, and hard inputs tried. Takes a minute.
    """
    from suite.method_check import as_json as check_as_json
    from suite.method_check import as_text, cases_of, run_with_bar
    from suite.method_source import load_method
    from suite.plan import parse_assignments

    loaded = load_method(method, parse_assignments(settings or []))
    check = run_with_bar(loaded.name, cases_of(loaded, families or [], everything=whole))
    if as_json:
        _print_json(check_as_json(check))
    else:
        for line in as_text(check):
            print(line)
    if not check.holds:
        raise typer.Exit(BROKEN)


def main() -> None:
    """Runs the command, and turns every way it can end into an exit code and at most one line."""
    # What takes long before the first bar is drawn (a fetch, a build) says so on stderr.
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("suite").setLevel(logging.INFO)
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = _end(str(error), WRONG_INPUT)
    except TyperException as error:
        code = _end(error.format_message(), WRONG_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = _end("interrupted; finished cells stand, the same command resumes", INTERRUPTED)
    except (PruningError, OSError) as error:
        code = _end(str(error), FAILED)
    except Exception as error:
        # Python's own exit code for a traceback is 1, which says here that a regression was found.
        if os.environ.get("PRUNEBENCH_TRACEBACK"):
            traceback.print_exc()
        code = _end(_unforeseen(error), FAILED)
    sys.exit(code)


def _unforeseen(error: Exception) -> str:
    """One line for an error that nobody planned for; errors of a fetch explain themselves."""
    from suite.cache import AssetError

    if isinstance(error, AssetError):
        return str(error)
    return f"{type(error).__name__}: {error} (PRUNEBENCH_TRACEBACK=1 shows where)"


def _write_report(results: Path, out: Path, *, title: str) -> Path:
    """Renders the records below `results` into `out`, which is replaced in one step."""
    from reports import render_report
    from suite.results import ResultStore
    from suite.results.files import replace_text

    contents = ResultStore(results).records()
    if not contents.records:
        broken = f" that can be read ({len(contents.unreadable)} cannot)" if contents.unreadable else ""
        raise InputError(f"{results}: holds no records{broken}; prunebench run writes them")
    problems = [f"{entry.path}: {entry.reason}" for entry in contents.unreadable]
    page = render_report([stored.record for stored in contents.records], title=title, problems=problems)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, page)
    return out


def _print_plan(planned: list[PlannedCell], device: torch.device, as_json: bool) -> None:
    from suite.estimate import estimate
    from suite.plan_table import as_json_rows, as_lines

    estimates = [estimate(entry.cell, device) for entry in planned]
    if as_json:
        _print_json(as_json_rows(planned, estimates))
        return
    *lines, total = as_lines(planned, estimates)
    for line in lines:
        print(line)
    _say(total)


def _bars(n_cells: int) -> ProgressBars:
    from suite.progress import ProgressBars

    return ProgressBars(n_cells)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _end(message: str, code: int) -> int:
    _say(f"prunebench: {' '.join(message.split())}")
    return code


if __name__ == "__main__":
    main()
