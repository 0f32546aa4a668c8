"""One pruned checkpoint: what `from_pretrained` loads, and `pruning.json` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.decoder import read_decoder
from suite.checkpoints.folder import appearing_whole, require_empty, write_summary
from suite.checkpoints.measured_prune import prune_measured
from suite.models import quiet_transformers
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    from suite.cell import Cell
    from suite.workbench import Workbench


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
    loaded = workbench.dense_model(cell)
    pruned = prune_measured(
        cell,
        loaded.model,
        workbench.inputs(cell),
        placement=loaded.placement,
        device=workbench.device,
        watcher=watcher,
    )
    workbench.check(pruned.method, pruned.pattern, pruned.result)
    n_zeros = {
        target.name: target.stored.numel() - int(target.stored.count_nonzero())
        for _, _, target in read_decoder(loaded.model).targets()
    }
    summary = pruned.summary(loaded.identity, n_zeros)
    watcher.phase_started("save", None)
    with appearing_whole(out) as folder:
        with quiet_transformers():
            loaded.model.save_pretrained(folder)
            if loaded.tokenizer is not None:
                loaded.tokenizer.save_pretrained(folder)
        write_summary(folder, summary)
    return summary


__all__ = ["write_checkpoint"]
