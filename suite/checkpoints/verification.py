"""Verifies a checkpoint written by `prunebench prune` against its `pruning.json` and a record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from methods.base import PruneResult
from methods.errors import InputError, PruningError
from methods.masks.pattern import SemiStructured, parse_pattern
from methods.structure.decoder import read_decoder
from suite.checkpoints.disagreements import disagreements
from suite.models.loading import load_model
from suite.models.zeros import Zeros, count_zeros, keeps
from suite.results.records.pruning_file import PRUNING, Pruning, read_pruning
from suite.results.verification import Finding, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from suite.results.records.record import Record


def is_checkpoint(folder: Path) -> bool:
    """Returns whether `folder` contains a `pruning.json`."""
    return (folder / PRUNING).is_file()


def verify_checkpoint(
    folder: Path, record: Record | None = None, *, trust_remote_code: bool = False
) -> list[Finding]:
    """Compares a checkpoint's weights with its `pruning.json`, and both with a record.

    Args:
        folder: the checkpoint's folder; its weights are loaded.
        record: a record of the same prune; None = no comparison.
        trust_remote_code: whether Python files that come with the checkpoint may run.

    Returns:
        The findings; empty if all is consistent.
    """
    try:
        pruning = read_pruning(folder)
        if pruning is None:
            return [_problem(folder, f"holds no {PRUNING} written by prunebench")]
        dtype = pruning.record.cell.dtype
        model = load_model(str(folder.absolute()), dtype=dtype, trust_remote_code=trust_remote_code).model
        zeros = count_zeros(model)
    except (InputError, PruningError, OSError) as error:
        return [_problem(folder, str(error))]
    messages = [*disagreements(pruning, zeros), *_groups(model, pruning)]
    against = [] if record is None else _against_record(record, pruning, zeros)
    return [
        *(_problem(folder, message) for message in messages),
        *_mask(folder, model, pruning, zeros),
        *(_problem(folder, message) for message in against),
    ]


def _problem(folder: Path, message: str, check: str = "checkpoint") -> Finding:
    return Finding(folder, check, "problem", one_line(message))


def _groups(model: PreTrainedModel, pruning: Pruning) -> Iterator[str]:
    """Yields modules with groups that keep more than N of M weights; keeping fewer is allowed."""
    pattern = parse_pattern(pruning.record.cell.pattern or "")
    if isinstance(pattern, SemiStructured):
        for _, _, target in read_decoder(model).targets():
            if not keeps(target.weight, pattern.n, pattern.m):
                yield f"{target.name}: more than {pattern.n} of {pattern.m} consecutive weights are not 0"


def _mask(folder: Path, model: PreTrainedModel, pruning: Pruning, zeros: Zeros) -> Iterator[Finding]:
    """Recomputes the mask digest from the zeros of the weights; possible only if every zero was pruned."""
    pruned = {module.module: module.n_pruned for module in pruning.record.modules}
    more = [name for name, n_zeros in zeros.counts.items() if pruned.get(name) != n_zeros]
    if more:
        message = (
            f"{len(more)} modules have zeros that were not pruned, so the mask digest was not formed anew"
        )
        yield Finding(folder, "mask", "remark", message)
        return
    keep = {t.mask_name: t.pack(t.weight != 0) for _, _, t in read_decoder(model).targets()}
    found, recorded = PruneResult(keep, (), {}).mask_digest, pruning.record.mask_digest
    if found != recorded:
        yield _problem(
            folder, f"mask_digest is {_short(recorded)}, by the zeros of the weights {_short(found)}", "mask"
        )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def _against_record(record: Record, pruning: Pruning, zeros: Zeros) -> Iterator[str]:
    of_prune = pruning.record
    for name in ("method", "settings", "pattern", "allocation"):
        value, other = getattr(of_prune.cell, name), getattr(record.cell, name)
        if value != other:
            yield f"{PRUNING} has {name} {value}, and the record {other}"
    dense, pruned = record.model, pruning.model
    if dense is not None and (dense.weight_digest, dense.dtype) != (pruned.weight_digest, pruned.dtype):
        yield "it was pruned from other dense weights, or in another dtype, than the record"
    if record.cell.prunes and record.mask_digest != of_prune.mask_digest:
        yield f"mask_digest is {_short(of_prune.mask_digest)}, and the record's {_short(record.mask_digest)}"
    counted = zeros.counts
    reported = {module.module: module.n_pruned for module in record.modules}
    if counted.keys() != reported.keys():
        off = min(counted.keys() ^ reported.keys())
        yield f"{off} is a module of the checkpoint or of the record, not of both"
    for name in counted.keys() & reported.keys():
        if reported[name] > counted[name]:
            yield f"{name}: the record says {reported[name]} weights pruned, and {counted[name]} are 0"


__all__ = ["is_checkpoint", "verify_checkpoint"]
