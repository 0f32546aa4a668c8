"""One pruned checkpoint: what `from_pretrained` loads, and `pruning.json` beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.base import PhaseClock, PruneResult
from methods.contract import check_contract
from methods.decoder import read_decoder
from methods.errors import InputError
from suite.memory import MemoryWatch
from suite.models import quiet_transformers
from suite.pruning import method_of, part_versions, pattern_for
from suite.results.environment import code_version, environment
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from suite.cell import Cell
    from suite.workbench import Workbench

SUMMARY = "pruning.json"
SCHEMA_VERSION = 1


def require_empty(out: Path) -> None:
    """Raises `InputError` unless `out` is a folder with nothing in it or does not exist."""
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: the folder is not empty; give a new one")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a new folder")


def write_checkpoint(
    cell: Cell, workbench: Workbench, out: Path, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Prunes the cell's model and writes it to `out`, which appears whole or not at all.

    Args:
        cell: what to prune and how.
        workbench: loads the model and the calibration set.
        out: a folder that is empty or does not exist.
        watcher: hears of progress.

    Returns:
        What `pruning.json` holds.

    Raises:
        InputError: the cell or `out` is not usable.
        PruningError: the prune failed or broke the method's promises.
        OSError: the checkpoint could not be written.
    """
    watcher = watcher or Silent()
    require_empty(out)
    watcher.phase_started("load", None)
    loaded, dense = workbench.dense_model(cell)
    method = method_of(cell)
    timed = None if cell.calibration is None else workbench.inputs(cell).calibrations[cell.calibration]
    calibration = timed.calibration if timed else None
    watcher.phase_started("prune", sum(1 for _ in read_decoder(loaded.model).targets()))
    clock = PhaseClock(device=workbench.device)
    with clock.phase("allocate"):
        pattern = pattern_for(cell, loaded.model, calibration, workbench.placement)
    with MemoryWatch(workbench.device) as memory, clock.phase("prune"):
        result = method.prune(
            loaded.model,
            pattern,
            calibration,
            placement=workbench.placement,
            on_layer=lambda _: watcher.stepped(),
        )
    check_contract(method, pattern, dense, loaded.model, result)
    beforehand = {"calibrate": timed.seconds if timed else 0.0}
    if cell.allocation is not None:
        beforehand["allocate"] = clock.seconds["allocate"]
    summary = {
        "schema_version": SCHEMA_VERSION,
        "model": loaded.identity.model_dump(mode="json"),
        "method": cell.method,
        "settings": cell.settings,
        "pattern": cell.pattern,
        "allocation": None if cell.allocation is None else cell.allocation.model_dump(mode="json"),
        "sparsity": result.sparsity,
        "prune_seconds": sum(beforehand.values()) + clock.seconds["prune"],
        "phases": {**beforehand, **result.phases},
        "peak_host_bytes": memory.host_bytes,
        "peak_device_bytes": memory.device_bytes,
        "calibration": timed.identity.model_dump(mode="json") if timed else None,
        "mask_digest": result.mask_digest,
        "modules": _modules(loaded.model, result),
        "code": code_version(method.version, part_versions(cell)).model_dump(mode="json"),
        "environment": environment(workbench.device).model_dump(mode="json"),
    }
    watcher.phase_started("save", None)
    with _appearing_whole(out) as folder:
        with quiet_transformers():
            loaded.model.save_pretrained(folder)
            if loaded.tokenizer is not None:
                loaded.tokenizer.save_pretrained(folder)
        (folder / SUMMARY).write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return summary


def _modules(model: PreTrainedModel, result: PruneResult) -> dict[str, Any]:
    """Per target module: what was pruned, and how many zeros its stored weight holds.

    The two differ where a dense weight was 0 already or a reconstruction made one 0.
    """
    stored = {target.name: target.stored for _, _, target in read_decoder(model).targets()}
    modules = {}
    for report in result.layers:
        weight = stored[report.module]
        n_zeros = weight.numel() - int(weight.count_nonzero())
        fields = {name: value for name, value in asdict(report).items() if name != "module"}
        modules[report.module] = {**fields, "sparsity": report.sparsity, "n_zeros": n_zeros}
    return modules


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the body is done and vanishes if it fails."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        staging.chmod(0o755)  # mkdtemp makes it private
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        staging.replace(out)  # an empty folder may stand there
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


__all__ = ["SUMMARY", "require_empty", "write_checkpoint"]
