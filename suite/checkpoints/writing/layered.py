"""One pruned checkpoint, read and written layer by layer: the model is never whole in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from methods.contract import ModelState
from methods.placement.tensor_files import INDEX_FILE, SINGLE_FILE, TensorFiles
from methods.structure.decoder import read_decoder, target_parameters
from suite.checkpoints.writing.folder import appearing_whole, write_summary
from suite.checkpoints.writing.measured_prune import prune_measured
from suite.checkpoints.writing.round_trip import check_layered_round_trip, probe_logits
from suite.evaluation.first_token import choose_first_token
from suite.machine.phases import PhaseLog
from suite.models.layered import LayeredModel, load_layered_model, outside_layers
from suite.models.layered_contract import check_layered_contract
from suite.models.loading_errors import quiet_transformers
from suite.models.settings import restore_flags
from suite.models.source import find_model
from suite.models.tokenizer import save_tokenizer
from suite.watcher import Silent, Watcher

if TYPE_CHECKING:
    import torch

    from suite.cell import Cell
    from suite.evaluation.inputs import Inputs


def write_layered_checkpoint(
    cell: Cell,
    inputs: Inputs,
    device: torch.device,
    out: Path,
    watcher: Watcher | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Prunes the cell's model and writes it to `out`, which appears whole or not at all.

    The masks, the weights and all that `pruning.json` says, but for seconds, peaks and the placement, are
    what `suite.checkpoints.writing.resident.write_checkpoint` gives on the same device.

    Args:
        cell: what to prune and how.
        inputs: what it reads (`suite.planning.preflight.preflight`).
        device: where each layer computes in its turn.
        out: a folder that is empty or does not exist.
        watcher: hears of progress.
        batch_size: sequences in one batch; None as for `Placement`.

    Returns:
        What `pruning.json` holds.

    Raises:
        InputError: the cell, the model's files or `out` are not usable.
        PruningError: the prune failed or broke the method's promises.
        OSError: the model could not be read or the checkpoint not be written.
    """
    watcher = watcher or Silent()
    with appearing_whole(out) as folder:
        watcher.phase_started("load", None)
        dense = load_layered_model(cell, inputs.folder_digest)
        save_tokenizer(dense.tokenizer, folder, dense.identity.name)
        before = ModelState.of(dense.model, {})
        loaded = dense.staged(folder, device, batch_size)
        probe = inputs.first_token
        choice = None if probe is None else choose_first_token(loaded, probe, PhaseLog(device, watcher))
        pruned = prune_measured(
            cell,
            loaded.model,
            inputs,
            placement=loaded.placement,
            device=device,
            watcher=watcher,
            first_token=choice,
        )
        n_zeros = check_layered_contract(pruned.method, pruned.pattern, before, loaded, pruned.result)
        summary = pruned.summary(loaded, n_zeros)
        watcher.phase_started("save", None)
        with quiet_transformers():
            # No weights: the configuration, and the code that comes with a model.
            loaded.model.save_pretrained(folder, state_dict={})
            (folder / SINGLE_FILE).unlink(missing_ok=True)
        expected = probe_logits(loaded)
        _write_shards(loaded, folder)
        watcher.phase_started("read again", None)
        check_layered_round_trip(folder, cell, loaded, expected)
        restore_flags(find_model(cell.model, cell.revision)[0], folder)
        write_summary(folder, summary)
    return summary


def _write_shards(loaded: LayeredModel, folder: Path) -> None:
    """All files of weights and their index: first what is outside the decoder layers, then a file each.

    Tensors have the names they had in the model's files, which load.
    """
    decoder, storage = read_decoder(loaded.model), loaded.storage
    n_shards = len(decoder.layers) + 1
    shards = [
        folder / f"model-{number:05d}-of-{n_shards:05d}.safetensors" for number in range(1, n_shards + 1)
    ]
    outside = outside_layers(loaded.model, decoder)
    save_file(
        {loaded.names[name]: value.contiguous() for name, value in outside.items()},
        shards[0],
        metadata={"format": "pt"},
    )
    for layer, shard in zip(decoder.layers, shards[1:], strict=True):
        if not storage.file_of(layer).exists():  # a method that left the layer alone need not have visited it
            weights = storage.fetch(layer)
            storage.store(layer, {name: weights[name] for name in target_parameters(layer)})
        storage.file_of(layer).replace(shard)
    written = TensorFiles(shards).stored
    index = {
        "metadata": {
            "total_parameters": loaded.identity.n_parameters,
            "total_size": sum(stored.n_bytes for stored in written.values()),
        },
        "weight_map": {name: written[name].file.name for name in sorted(written)},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


__all__ = ["write_layered_checkpoint"]
