"""Prunes a model and writes the checkpoint, which `from_pretrained` loads, together with `pruning.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from methods.base import Placement, Weights
from methods.placement.tensor_files import SINGLE_FILE
from suite.cell import DType
from suite.checkpoints.writing.folder import atomic_folder
from suite.checkpoints.writing.round_trip import check_layered_round_trip, check_round_trip, probe_logits
from suite.checkpoints.writing.shards import write_shards
from suite.evaluation.inputs import model_key
from suite.models.layered import LayeredModel
from suite.models.loading import stored_dtypes
from suite.models.loading_errors import quiet_transformers
from suite.models.settings import restore_flags
from suite.models.source import find_model
from suite.models.tokenizer import save_tokenizer
from suite.models.zeros import count_zeros
from suite.results.records.pruning_file import Pruning, write_pruning
from suite.running.model_session import ModelSession
from suite.running.run_cell import CellRun
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    import torch

    from suite.cell import Cell
    from suite.evaluation.inputs import Inputs


def write_checkpoint(
    cell: Cell,
    inputs: Inputs,
    out: Path,
    device: torch.device,
    weights: Weights = "resident",
    watcher: Watcher | None = None,
) -> Pruning:
    """Prunes the cell's model and writes it to `out`, which appears only once it is complete.

    Onloaded layers are read and written one by one, so that the model is never completely in memory. Masks,
    weights and `pruning.json` are then the same as for a resident model on the same device, except for costs
    and the placement.

    Args:
        cell: what to prune and how; it measures nothing.
        inputs: what the cell reads (`suite.planning.preflight.preflight`).
        out: an empty or new folder.
        device: the device on which layers compute.
        weights: where the weights are kept.
        watcher: receives progress events.

    Returns:
        The contents of `pruning.json`.

    Raises:
        InputError: the cell, the model's files or `out` cannot be used.
        PruningError: the prune failed or broke the method's contract.
        OSError: the model could not be read or the checkpoint could not be written.
    """
    watcher = watcher or Silent()
    with atomic_folder(out) as folder:
        placement = Placement(weights=weights)
        session = ModelSession(device, {model_key(cell): inputs}, placement, pruned_layers=folder)
        run = CellRun(cell, session, watcher)
        loaded = run.load(reference_speed=False)
        run.remarks += _dtype_remarks(cell)
        save_tokenizer(loaded.tokenizer, folder, loaded.identity.name)
        run.prune(loaded)
        session.discard()  # frees its copy of the dense weights before the checkpoint is read again
        zeros = count_zeros(loaded.model, loaded.placement)
        pruning = Pruning(record=run.record().sealed(), n_zeros=zeros.counts)
        watcher.phase_started("save", None)
        if isinstance(loaded, LayeredModel):
            with quiet_transformers():
                # Saves only the configuration and the code that comes with the model, not the weights.
                loaded.model.save_pretrained(folder, state_dict={})
                (folder / SINGLE_FILE).unlink(missing_ok=True)
            expected = probe_logits(loaded)
            write_shards(loaded, folder)
            watcher.phase_started("read again", None)
            check_layered_round_trip(folder, cell, loaded, expected)
        else:
            with quiet_transformers():
                loaded.model.save_pretrained(folder)
            watcher.phase_started("read again", None)
            check_round_trip(folder, loaded, trust_remote_code=cell.trust_remote_code)
        restore_flags(find_model(cell.model, cell.revision)[0], folder)
        write_pruning(folder, pruning)
    return pruning


def _dtype_remarks(cell: Cell) -> list[str]:
    """Returns a remark if the dtype of the checkpoint differs from that of the model's files."""
    import torch

    written: torch.dtype = getattr(torch, cell.dtype)
    stored = [dtype for dtype in stored_dtypes(cell.model, cell.revision) if dtype != written]
    if not stored:
        return []
    names = [str(dtype).removeprefix("torch.") for dtype in stored]
    rounded = [dtype for dtype in stored if torch.promote_types(dtype, written) != written]
    remark = (
        f"weights that are stored as {' and '.join(names)} were computed with and written as {cell.dtype}"
    )
    if not rounded:
        return [f"{remark}, which holds every one of them exactly"]
    name = str(rounded[0]).removeprefix("torch.")
    keeps = f" (--dtype {name} keeps them)" if name in get_args(DType) else ""
    return [f"{remark}, so those of {name} were rounded{keeps}"]


__all__ = ["write_checkpoint"]
