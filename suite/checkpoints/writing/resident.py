"""One pruned checkpoint: what `from_pretrained` loads, and `pruning.json` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.structure.decoder import read_decoder
from suite.checkpoints.writing.folder import appearing_whole, write_summary
from suite.checkpoints.writing.measured_prune import prune_measured
from suite.checkpoints.writing.round_trip import check_round_trip
from suite.machine.phases import PhaseLog
from suite.models.loading_errors import quiet_transformers
from suite.models.settings import restore_flags
from suite.models.source import find_model
from suite.models.tokenizer import save_tokenizer
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    from suite.cell import Cell
    from suite.running.model_session import ModelSession


def write_checkpoint(
    cell: Cell, session: ModelSession, out: Path, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Prunes the cell's model and writes it to `out`, which appears whole or not at all.

    Args:
        cell: what to prune and how.
        session: loads the model and the calibration set.
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
    with appearing_whole(out) as folder:
        watcher.phase_started("load", None)
        loaded = session.dense_model(cell)
        save_tokenizer(loaded.tokenizer, folder, loaded.identity.name)
        choice = session.first_token(cell, PhaseLog(session.device, watcher))
        pruned = prune_measured(
            cell,
            loaded.model,
            session.inputs(cell),
            placement=loaded.placement,
            device=session.device,
            watcher=watcher,
            first_token=choice,
        )
        session.check(pruned.method, pruned.pattern, pruned.result)
        session.discard()  # its copy of the dense weights makes room for the checkpoint that is read again
        n_zeros = {
            target.name: target.stored.numel() - int(target.stored.count_nonzero())
            for _, _, target in read_decoder(loaded.model).targets()
        }
        summary = pruned.summary(loaded, n_zeros)
        watcher.phase_started("save", None)
        with quiet_transformers():
            loaded.model.save_pretrained(folder)
        watcher.phase_started("read again", None)
        check_round_trip(folder, loaded, trust_remote_code=cell.trust_remote_code)
        restore_flags(find_model(cell.model, cell.revision)[0], folder)
        write_summary(folder, summary)
    return summary


__all__ = ["write_checkpoint"]
