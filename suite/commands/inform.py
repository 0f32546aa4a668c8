"""`prunebench list`, `doctor` and `check-method`: inspect what is available, this machine, and a method."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from suite.commands.options import BROKEN, AsJson, Device, Revision, Settings, Trusted, print_json


def list_(
    what: Annotated[
        Literal["methods", "steps", "allocations", "models", "corpora", "tasks", "suites"],
        typer.Argument(help="What to list."),
    ],
    as_json: AsJson = False,
) -> None:
    """List methods, steps of recipes, allocations, models, corpora, tasks or suites."""
    from suite.commands.output.listing import listing

    rows = listing(what)
    if as_json:
        print_json(rows)
        return
    width = max(16, *(len(row["name"]) for row in rows))
    for row in rows:
        print(f"{row['name']:<{width}} {row['description']}")


def doctor(
    model: Annotated[str | None, typer.Argument(help="Also show the structure of this model.")] = None,
    revision: Revision = None,
    trust_remote_code: Trusted = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Show the hardware and software of this machine, and the structure of a model."""
    from suite.inspection.doctor import describe_machine, describe_model
    from suite.machine.devices import resolve_device

    machine = describe_machine(resolve_device(device))
    structure = None
    if model is not None:
        structure = describe_model(model, revision=revision, trust_remote_code=trust_remote_code)
    if as_json:
        print_json({"machine": machine, **({"model": asdict(structure)} if structure else {})})
        return
    print("machine")
    for name, value in machine.items():
        print(f"  {name:<24} {value}")
    if structure:
        print("model")
        for line in structure.lines():
            print(f"  {line}")


def check_method(
    method: Annotated[
        str,
        typer.Argument(
            help="A method's name, a recipe, or module:Class (a module that is installed or in this folder)."
        ),
    ],
    settings: Settings = None,
    families: Annotated[
        list[str] | None,
        typer.Option("--family", help="Try only this model family, e.g. gpt2; repeatable."),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Try each family and pattern in fp32, bf16, fp16 and training mode."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a pruning method keeps every promise of its contract.

    Prunes tiny random models of every family to every pattern, and tries hard inputs. Takes about a minute.
    """
    from suite.commands.output.method_check import as_json as check_as_json
    from suite.commands.output.method_check import as_text, run_with_bar
    from suite.inspection.method_check import cases_of
    from suite.inspection.method_source import load_method
    from suite.planning.option_cells import parse_assignments

    loaded = load_method(method, parse_assignments(settings or []))
    check = run_with_bar(loaded.name, cases_of(loaded, families or [], everything=whole))
    if as_json:
        print_json(check_as_json(check))
    else:
        for line in as_text(check):
            print(line)
    if not check.holds:
        raise typer.Exit(BROKEN)
