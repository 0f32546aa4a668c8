"""Whether a checkpoint that `prunebench prune` made is what its `pruning.json`, or a record, says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from methods.base import PruneResult
from methods.errors import InputError, PruningError
from methods.masks.pattern import SemiStructured, parse_pattern
from methods.structure.decoder import read_decoder
from suite.checkpoints.finished import CountedZeros, Summary, count_zeros, disagreements, read_summary
from suite.checkpoints.writing.folder import SUMMARY
from suite.models.loading import load_model
from suite.results.verification import Finding, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from suite.cell import DType
    from suite.results.records.record import Record

_DTYPES: dict[str, DType] = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}


class _Masks(BaseModel):
    """What `pruning.json` says of the masks as a whole."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    mask_digest: str = Field(pattern=r"^[0-9a-f]{64}$")


def is_checkpoint(folder: Path) -> bool:
    """Whether `prunebench prune` wrote that folder."""
    return (folder / SUMMARY).is_file()


def verify_checkpoint(
    folder: Path, record: Record | None = None, *, trust_remote_code: bool = False
) -> list[Finding]:
    """Holds a checkpoint's weights against its `pruning.json`, and both against a record.

    Args:
        folder: of the checkpoint; its weights are loaded.
        record: of the same prune; None = none.
        trust_remote_code: whether Python files that come with the checkpoint may run.

    Returns:
        What was found; nothing where all is consistent.
    """
    try:
        summary = read_summary(folder)
        if summary is None:
            return [Finding(folder, "checkpoint", "problem", f"holds no {SUMMARY} written by prunebench")]
        told = _Masks.model_validate_json((folder / SUMMARY).read_bytes()).mask_digest
        dtype = _DTYPES.get(summary.model.dtype, "float32")
        model = load_model(str(folder.absolute()), dtype=dtype, trust_remote_code=trust_remote_code).model
        zeros = count_zeros(model)
    except ValidationError as error:
        return [Finding(folder, "checkpoint", "problem", one_line(f"{SUMMARY}: {error.errors()[0]['msg']}"))]
    except (InputError, PruningError, OSError) as error:
        return [Finding(folder, "checkpoint", "problem", one_line(str(error)))]
    messages = [*disagreements(summary, zeros), *_groups(model, summary)]
    findings = [Finding(folder, "checkpoint", "problem", one_line(message)) for message in messages]
    findings += _mask(folder, model, summary, zeros, told)
    if record is not None:
        for message in _against_record(record, summary, zeros, told):
            findings.append(Finding(folder, "checkpoint", "problem", one_line(message)))
    return findings


def _groups(model: PreTrainedModel, summary: Summary) -> Iterator[str]:
    """The modules whose groups of M keep more than N weights; they may keep fewer, where others are 0 too."""
    pattern = parse_pattern(summary.pattern)
    if isinstance(pattern, SemiStructured):
        for _, _, target in read_decoder(model).targets():
            weight = target.weight
            groups = (
                weight.reshape(weight.shape[0], -1, pattern.m) if weight.shape[1] % pattern.m == 0 else None
            )
            if groups is None or bool((groups.count_nonzero(-1) > pattern.n).any()):
                yield f"{target.name}: more than {pattern.n} of {pattern.m} consecutive weights are not 0"


def _mask(
    folder: Path, model: PreTrainedModel, summary: Summary, zeros: CountedZeros, told: str
) -> Iterator[Finding]:
    """Forms the mask digest anew, where every 0 is a pruned weight: then the zeros are the mask."""
    pruned = {name: module.n_pruned for name, module in summary.modules.items()}
    more = [module.name for module in zeros.modules if pruned.get(module.name) != module.n_zeros]
    if more:
        message = (
            f"{len(more)} modules have zeros that were not pruned, so the mask digest was not formed anew"
        )
        yield Finding(folder, "mask", "remark", message)
        return
    keep = {t.mask_name: t.pack(t.weight != 0) for _, _, t in read_decoder(model).targets()}
    found = PruneResult(keep, (), {}).mask_digest
    if found != told:
        message = f"mask_digest is {told[:12]}, by the zeros of the weights {found[:12]}"
        yield Finding(folder, "mask", "problem", one_line(message))


def _against_record(record: Record, summary: Summary, zeros: CountedZeros, told: str) -> Iterator[str]:
    cell = record.cell
    for name in ("method", "settings", "pattern", "allocation"):
        if getattr(cell, name) != getattr(summary, name):
            yield f"{SUMMARY} has {name} {getattr(summary, name)}, and the record {getattr(cell, name)}"
    dense = record.model
    if dense is not None and (dense.weight_digest, dense.dtype) != (
        summary.model.weight_digest,
        summary.model.dtype,
    ):
        yield "it was pruned from other dense weights, or in another dtype, than the record"
    if record.cell.prunes and record.mask_digest != told:
        yield f"mask_digest is {told[:12]}, and the record's {(record.mask_digest or 'none')[:12]}"
    counted = {module.name: module.n_zeros for module in zeros.modules}
    reported = {module.module: module.n_pruned for module in record.modules}
    if counted.keys() != reported.keys():
        off = min(counted.keys() ^ reported.keys())
        yield f"{off} is a module of the checkpoint or of the record, not of both"
    for name in counted.keys() & reported.keys():
        if reported[name] > counted[name]:
            yield f"{name}: the record says {reported[name]} weights pruned, and {counted[name]} are 0"


__all__ = ["is_checkpoint", "verify_checkpoint"]
