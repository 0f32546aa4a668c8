"""Options from which each worker sets up its session, in this process or another one."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from suite.evaluation.inputs import Inputs, ModelKey

if TYPE_CHECKING:
    import torch

    from methods.base import Weights
    from suite.planning.resume import PlannedCell
    from suite.running.model_session import ModelSession
    from suite.sharing.folder import SharedFolder


@dataclass(frozen=True)
class WorkerOptions:
    """How the session of every worker is set up.

    Attributes:
        shared: name of the folder for shared work in the scratch folder of each machine; None = nothing is
            shared in files.
        wanted: digests of the initial prunes that are worth storing.
        weights: where weights are kept: on the device, or in files with one layer at a time on the device.
    """

    shared: str | None = None
    wanted: frozenset[str] = frozenset()
    weights: Weights = "resident"


def worker_options(
    planned: Sequence[PlannedCell], out: Path, *, reuse: bool, weights: Weights = "resident"
) -> WorkerOptions:
    """Returns the options for a plan.

    Args:
        planned: the plan.
        out: the results tree of the plan; each tree has its own folder of shared work.
        reuse: whether work is stored for other cells.
        weights: where the models' weights are kept.
    """
    from suite.sharing import wanted_initials

    if not reuse:
        return WorkerOptions(weights=weights)
    # The host is part of the name, as machines of a cluster may share a disk.
    tree = f"{socket.gethostname()}\0{out.resolve()}"
    name = f"shared-{hashlib.sha256(tree.encode()).hexdigest()[:12]}"
    return WorkerOptions(name, wanted_initials([entry.cell for entry in planned if entry.runs]), weights)


def open_session(
    device: torch.device, inputs: Mapping[ModelKey, Inputs], options: WorkerOptions
) -> ModelSession:
    """Opens a session with these options."""
    from methods.base import Placement
    from suite.running.model_session import ModelSession
    from suite.sharing import SharedWork

    folder = shared_folder(options)
    if folder is not None:
        folder.sweep()
    placement = Placement(weights=options.weights)
    return ModelSession(device, inputs, placement, SharedWork(folder, options.wanted))


def shared_folder(options: WorkerOptions) -> SharedFolder | None:
    """Returns this machine's folder of shared work; None if nothing is shared in files."""
    from suite.machine.scratch import scratch_root
    from suite.sharing.folder import SharedFolder

    return None if options.shared is None else SharedFolder(scratch_root() / options.shared)


def forget_shared(options: WorkerOptions) -> None:
    """Removes this machine's folder of shared work."""
    folder = shared_folder(options)
    if folder is not None:
        folder.remove()


__all__ = ["WorkerOptions", "forget_shared", "open_session", "shared_folder", "worker_options"]
