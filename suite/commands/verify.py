"""`prunebench verify`: checks records and checkpoints for damage and contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from methods.errors import InputError, PruningError
from suite.commands.options import BROKEN, FAILED, AsJson, Device, Trusted, print_json, progress_bars, say

if TYPE_CHECKING:
    from suite.cell import Cell
    from suite.results.records.record import CodeVersion
    from suite.results.verification import CheckedRecord, Finding, Verification
    from suite.running.rerun import Rerun


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Records, folders of records (searched at any depth), or pruned checkpoints."),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The pruned checkpoint of a single record, to compare its zeros with the record."),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Also run the cells again, and compare masks and numbers.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Rerun only this many cells, chosen at random. Implies --rerun.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choice of --sample.")] = 0,
    keep: Annotated[
        Path | None,
        typer.Option(help="Write the records of the reruns to this results folder. Implies --rerun."),
    ] = None,
    trust_remote_code: Trusted = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Print all remarks and the result of each record, even if there are many records."
        ),
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Check records for damage and contradictions.

    With --rerun, also run their cells again: only that detects a consistently forged record (docs/trust.md).
    """
    from suite.checkpoints.verification import is_checkpoint, verify_checkpoint
    from suite.commands.output.verification import Verified, as_json_report, as_lines
    from suite.results.verification import verify as verify_records
    from suite.storage.files import require_folder

    if keep is not None:
        require_folder(keep, "--keep")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such record or folder")
    checkpoints = [path for path in paths if is_checkpoint(path)]
    found = verify_records([path for path in paths if path not in checkpoints], present=_present_code)
    if not found.records and not checkpoints:
        raise InputError(f"{paths[0]}: holds no records; prunebench run writes them")
    of_checkpoints = [
        finding
        for path in checkpoints
        for finding in verify_checkpoint(path, trust_remote_code=trust_remote_code)
    ]
    if checkpoint is not None:
        of_checkpoints += _with_checkpoint(checkpoint, found, trust_remote_code)
    wants_rerun = rerun or sample is not None or keep is not None
    reruns = _rerun(found.records, sample, seed, keep, trust_remote_code, device) if wants_rerun else []
    verified = Verified(found, tuple(of_checkpoints), tuple(reruns))
    if as_json:
        print_json(as_json_report(verified))
    else:
        for line in as_lines(verified, everything=everything):
            print(line)
    if verified.n_problems:
        raise typer.Exit(BROKEN)
    if any(again.outcome == "impossible" for again in reruns) or (wants_rerun and not reruns):
        raise typer.Exit(FAILED)


def _present_code(cell: Cell) -> CodeVersion | None:
    from suite.running.run_cell import present_code

    try:
        return present_code(cell)
    except (PruningError, TypeError, ValueError):
        return None  # a record may name a method, allocation or settings that are unknown here


def _with_checkpoint(checkpoint: Path, found: Verification, trust_remote_code: bool) -> list[Finding]:
    from suite.checkpoints.verification import is_checkpoint, verify_checkpoint
    from suite.results.records.index import read_again
    from suite.results.records.reading import RecordError

    if len(found.records) != 1:
        raise InputError(f"--checkpoint is compared with exactly one record, not {len(found.records)}")
    if not is_checkpoint(checkpoint):
        raise InputError(f"--checkpoint {checkpoint}: holds no pruning.json; prunebench prune writes it")
    stored = found.records[0].stored
    if stored is None:
        return []
    try:
        record, _ = read_again(stored)
    except RecordError as error:
        raise InputError(str(error)) from error
    return verify_checkpoint(checkpoint, record, trust_remote_code=trust_remote_code)


def _rerun(
    records: tuple[CheckedRecord, ...],
    sample: int | None,
    seed: int,
    keep: Path | None,
    trust_remote_code: bool,
    device: str,
) -> list[Rerun]:
    from suite.results import ResultStore
    from suite.running.rerun import choose
    from suite.running.rerun import rerun as run_again

    chosen = choose(records, sample, seed)
    if not chosen:
        say("nothing to rerun: no finished record is consistent")
    for entry in chosen:
        say(f"reruns {entry.path}")
    with progress_bars(len(chosen)) as bars:
        return run_again(
            chosen,
            device=device,
            keep=None if keep is None else ResultStore(keep),
            trust_remote_code=trust_remote_code,
            watcher=bars,
        )
