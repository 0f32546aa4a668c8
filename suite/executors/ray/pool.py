"""A pool of workers on the machines of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from suite.cell import Cell
from suite.evaluation.inputs import Inputs, ModelKey, model_key
from suite.executors.options import WorkerOptions
from suite.executors.pool import Event, Finished, Lost, PoolError, Told, Worker
from suite.executors.ray.actor import CellActor
from suite.executors.ray.cluster import Node, RayCluster
from suite.executors.ray.resources import Needs
from suite.executors.worker_inputs import WorkerInputs

WAIT_S = 0.5
"""Longest wait for events, in seconds."""
LOOK_EVERY_S = 10.0
"""Seconds between two searches for nodes that have joined the cluster."""
CHECK_EVERY_S = 1.0
"""Seconds between two checks whether the cluster is alive."""
ASK_EVERY_S = 0.5
"""Seconds between two progress requests to a worker."""


@dataclass
class _Actor:
    """One worker: its handle, node, the index of its cell, and its pending run and progress request."""

    handle: Any
    node: str
    place: int | None = None
    run: Any = None
    asked: Any = None


class RayPool:
    """A pool of actors, as many as fit on the cluster; lost actors are replaced.

    Args:
        cluster: the cluster on which they run.
        needs: resources of one actor.
        device: the device on which actors put their models.
        options: how each session is set up.
        inputs: what the cells read.
        limit: maximum number of workers; None = as many as fit.
        ask: whether to request progress reports from workers.
        say: called with messages about nodes for the user.
    """

    def __init__(
        self,
        cluster: RayCluster,
        needs: Needs,
        device: str,
        options: WorkerOptions,
        inputs: Mapping[ModelKey, Inputs],
        *,
        limit: int | None = None,
        ask: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        import ray

        self._ray = ray
        self._cluster = cluster
        self._needs = needs
        self._start = (device, options, needs.cpus)
        self._inputs = {key: [ray.put(WorkerInputs.of(of_model))] for key, of_model in inputs.items()}
        self._limit = limit
        self._ask = ask
        self._say = say
        self._actors: dict[Worker, _Actor] = {}
        self._nodes: list[Node] = []
        self._looked = self._checked = float("-inf")
        self._asked = float("-inf")
        self._n_started = 0
        self._reported: set[str] = set()

    def idle(self, n_waiting: int) -> list[Worker]:
        """See `Pool.idle`."""
        free = [name for name, actor in self._actors.items() if actor.place is None]
        if n_waiting > len(free):
            for node in self._room():
                if len(free) >= n_waiting:
                    break
                free.append(self._start_on(node))
        return free

    def give(self, worker: Worker, place: int, cell: Cell) -> None:
        """See `Pool.give`."""
        actor = self._actors[worker]
        actor.place = place
        actor.run = actor.handle.run.remote(cell, self._inputs[model_key(cell)])

    def wait(self) -> list[Event]:
        """See `Pool.wait`."""
        if time.monotonic() - self._checked >= CHECK_EVERY_S:
            self._checked = time.monotonic()
            if not self._cluster.is_alive():
                raise PoolError("the Ray cluster is gone; finished cells are kept, the same command resumes")
        if not self._actors and not self._room():
            raise PoolError("no node of the cluster is left that may run cells")
        self._ask_all()
        busy = {actor.run: name for name, actor in self._actors.items() if actor.run is not None}
        asked = {actor.asked: name for name, actor in self._actors.items() if actor.asked is not None}
        if not busy:
            time.sleep(WAIT_S)
            return []
        ready, _ = self._ray.wait([*busy, *asked], num_returns=1, timeout=WAIT_S)
        if ready:  # collect everything else that is ready by now
            more, _ = self._ray.wait([*busy, *asked], num_returns=len(busy) + len(asked), timeout=0)
            ready = more or ready
        events = [self._event(busy[ref]) if ref in busy else self._progress(asked[ref]) for ref in ready]
        return [event for event in events if event is not None]

    def arrived(self) -> list[Finished]:
        """See `Pool.arrived`."""
        busy = {actor.run: name for name, actor in self._actors.items() if actor.run is not None}
        if not busy or not self._cluster.is_alive():
            return []
        ready, _ = self._ray.wait(list(busy), num_returns=len(busy), timeout=0)
        events = [self._event(busy[ref]) for ref in ready]
        return [event for event in events if isinstance(event, Finished)]

    def close(self) -> None:
        """See `Pool.close`."""
        if self._cluster.is_alive():
            for actor in self._actors.values():
                self._ray.kill(actor.handle, no_restart=True)
        self._actors.clear()

    def _room(self) -> list[Node]:
        """Returns one node per worker that can still be started, nodes with the fewest workers first."""
        if not self._cluster.is_alive():
            return []
        if time.monotonic() - self._looked >= LOOK_EVERY_S:
            self._nodes, self._looked = self._cluster.nodes(), time.monotonic()
            for node, why in self._cluster.refused.items():
                if node not in self._reported:
                    self._reported.add(node)
                    self._say(f"{why}: no cell runs there")
        on_node = [actor.node for actor in self._actors.values()]
        free = [
            (turn, node)
            for node in self._nodes
            for turn in range(on_node.count(node.id), node.resources.n_workers(self._needs))
        ]
        vacant = [node for _, node in sorted(free, key=lambda one: one[0])]
        return vacant if self._limit is None else vacant[: max(0, self._limit - len(self._actors))]

    def _start_on(self, node: Node) -> Worker:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._n_started += 1
        name = f"{node.resources.node} ({self._n_started})"
        actor_class = self._ray.remote(CellActor).options(
            num_cpus=self._needs.cpus,
            num_gpus=self._needs.gpus,
            memory=self._needs.host_bytes,
            max_restarts=0,
            max_concurrency=2,  # answers progress requests while it runs a cell
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )
        self._actors[name] = _Actor(actor_class.remote(*self._start), node.id)
        return name

    def _event(self, name: Worker) -> Event:
        actor = self._actors[name]
        try:
            record, items = self._ray.get(actor.run)
        except self._ray.exceptions.RayTaskError as error:
            return self._gone(name, f"{type(error.cause or error).__name__}: {error.cause or error}")
        except self._ray.exceptions.RayError as error:
            return self._gone(name, str(error))
        place, actor.place, actor.run = actor.place, None, None
        assert place is not None
        return Finished(name, place, record, items)

    def _gone(self, name: Worker, reason: str) -> Lost:
        actor = self._actors.pop(name)
        self._looked = self._checked = float("-inf")  # its node may be lost as well
        return Lost(name, actor.place, " ".join(reason.split())[:300])

    def _ask_all(self) -> None:
        if self._ask and time.monotonic() - self._asked >= ASK_EVERY_S:
            self._asked = time.monotonic()
            for actor in self._actors.values():
                if actor.run is not None and actor.asked is None:
                    actor.asked = actor.handle.progress.remote()

    def _progress(self, name: Worker) -> Told | None:
        actor = self._actors.get(name)
        if actor is None:
            return None
        ref, actor.asked = actor.asked, None
        try:
            progress = self._ray.get(ref)
        except self._ray.exceptions.RayError:
            return None  # the pending run reports the loss of the worker
        return None if actor.place is None else Told(name, actor.place, progress)


__all__ = ["RayPool"]
