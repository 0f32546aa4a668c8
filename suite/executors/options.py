"""How the session of a worker is set up, in whatever process it is."""

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
        shared: the name of the folder, in the scratch of each machine, where cells keep what they share; None
            = nothing is kept.
        wanted: which initial prunes are worth keeping.
        weights: where models are: on the device, or in their files with one layer at a time on it.
    """

    shared: str | None = None
    wanted: frozenset[str] = frozenset()
    weights: Weights = "resident"


def worker_options(
    planned: Sequence[PlannedCell], out: Path, *, reuse: bool, weights: Weights = "resident"
) -> WorkerOptions:
    """The options for a plan.

    Args:
        planned: the plan.
        out: its results tree, which the folder of shared work belongs to.
        reuse: whether anything is kept for other cells.
        weights: where models are.
    """
    from suite.sharing import wanted_initials

    if not reuse:
        return WorkerOptions(weights=weights)
    # Machines of a cluster may share a disk.
    tree = f"{socket.gethostname()}\0{out.resolve()}"
    name = f"shared-{hashlib.sha256(tree.encode()).hexdigest()[:12]}"
    return WorkerOptions(name, wanted_initials([entry.cell for entry in planned if entry.runs]), weights)


def open_session(
    device: torch.device, inputs: Mapping[ModelKey, Inputs], options: WorkerOptions
) -> ModelSession:
    """A session as the options have it."""
    from methods.base import Placement
    from suite.running.model_session import ModelSession
    from suite.sharing import SharedWork

    folder = shared_folder(options)
    if folder is not None:
        folder.sweep()
    placement = Placement(weights=options.weights)
    return ModelSession(device, inputs, placement, SharedWork(folder, options.wanted))


def shared_folder(options: WorkerOptions) -> SharedFolder | None:
    """Where cells keep what they share on this machine; None where they keep nothing."""
    from suite.machine.scratch import scratch_root
    from suite.sharing.folder import SharedFolder

    return None if options.shared is None else SharedFolder(scratch_root() / options.shared)


def forget_shared(options: WorkerOptions) -> None:
    """Removes what cells shared on this machine."""
    folder = shared_folder(options)
    if folder is not None:
        folder.remove()


__all__ = ["WorkerOptions", "forget_shared", "open_session", "shared_folder", "worker_options"]
