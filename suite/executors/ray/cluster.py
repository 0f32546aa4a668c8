"""A Ray cluster, started here or joined: its machines, and whether cells may run on them."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from suite.executors.ray.node import NodeReport, difference, present_software, report_of_node
from suite.executors.ray.resources import Resources

if TYPE_CHECKING:
    from suite.executors.options import WorkerOptions

CONNECT_S = 5.0
"""A machine that does not take a connection within this does not answer."""
JOIN_S = 20.0
"""One that took it, and is not a Ray cluster that can be joined by then, is none."""
PROBE_S = 120.0
"""A node that has not said what it has by then is left out: importing PyTorch over a network takes long."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Of a Ray that is started here: token ids and records are small."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that cells may run on.

    Attributes:
        id: Ray's.
        resources: what it has.
        report: what it says of itself; None for this machine.
    """

    id: str
    resources: Resources
    report: NodeReport | None


class RayCluster:
    """A connection to Ray; a Ray that was started for it ends with it.

    Args:
        address: `auto`, or host:port of the head; None = a Ray of this machine's own.
        gpu: whether cells run on GPUs.
        cpus: how many a Ray of our own may use; None = all.

    Attributes:
        refused: node -> why no cell may run there.

    Raises:
        InputError: Ray is not installed, does not answer, or is another version.
    """

    def __init__(self, address: str | None, *, gpu: bool, cpus: int | None = None) -> None:
        self.refused: dict[str, str] = {}
        self._gpu = gpu
        self._is_ours = address is None
        self._known: dict[str, Node] = {}
        self._ray = import_ray()
        if address is not None and address != "auto":
            _check_answers(address)
        _join(self._ray, address, cpus)
        self._head = str(self._ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[Node]:
        """The machines that are alive and may run cells; new ones are asked what they have."""
        found = []
        for entry in self._ray.nodes():
            if not entry["Alive"]:
                continue
            node = self._known.get(entry["NodeID"])
            if node is None and entry["NodeID"] not in self.refused:
                node = self._asked(entry)
            if node is not None:
                found.append(node)
        return found

    def on_each_node(self, work: Callable[[WorkerOptions], None], options: WorkerOptions) -> None:
        """Runs something small on every machine; one that cannot is passed over."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = self._ray.remote(work)
        running = [
            task.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            ).remote(options)
            for node in self._known.values()
        ]
        self._ray.wait(running, num_returns=len(running), timeout=PROBE_S)

    def is_alive(self) -> bool:
        """Whether the cluster's head still takes connections: to ask a dead one ends the process."""
        return _answers(self._head)

    def close(self) -> None:
        """Leaves the cluster; all that was started on it ends."""
        if self.is_alive():
            self._ray.shutdown()

    def _asked(self, entry: dict[str, Any]) -> Node | None:
        counts, name = entry["Resources"], entry["NodeManagerAddress"]
        resources = Resources(
            name,
            int(counts.get("CPU", 0)),
            int(counts.get("GPU", 0)),
            int(counts.get("memory", 0)),
        )
        report = None
        if not self._is_ours:
            report = self._report(entry["NodeID"], name, resources)
            if report is None:
                self.refused[entry["NodeID"]] = f"node {name} did not say what it has"
                return None
            if (other := difference(present_software(), report.software)) is not None:
                self.refused[entry["NodeID"]] = f"node {name} has {other}"
                return None
        node = self._known[entry["NodeID"]] = Node(entry["NodeID"], resources, report)
        return node

    def _report(self, node_id: str, name: str, resources: Resources) -> NodeReport | None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        probe = self._ray.remote(report_of_node).options(
            num_cpus=0,
            num_gpus=0.01 if self._gpu and resources.gpus else 0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        try:
            report: NodeReport = self._ray.get(
                probe.remote(self._gpu and bool(resources.gpus)), timeout=PROBE_S
            )
        except self._ray.exceptions.RayTaskError as error:
            # Another prunebench may not have what it is asked for.
            cause = error.cause if error.cause is not None else error
            raise InputError(
                f"node {name} cannot run prunebench as it is here: {type(cause).__name__}: {_line(cause)}"
            ) from None
        except self._ray.exceptions.RayError:
            return None
        return report


def import_ray() -> Any:
    """The module `ray`, quiet.

    Raises:
        InputError: it is not installed.
    """
    # Read when it is imported: no report of use, no warnings about what is to come.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray needs Ray: pip install 'prunebench[ray]'") from None
    return ray


def _check_answers(address: str) -> None:
    """Raises `InputError` unless somebody takes a connection at `address` within seconds."""
    match = re.fullmatch(r"(\[[^\]]+\]|[^:/\s]+):(\d+)", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise InputError(f"--address {address}: give auto, or HOST:PORT of the cluster's head (port 6379)")
    if not _answers(address):
        raise InputError(f"--address {address}: nobody answers there")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError:
        return False
    return True


def _join(ray: Any, address: str | None, cpus: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        # Not in a thread: its processes end with the thread that started them.
        failed = _refusal(lambda: ray.init(address="local", **options))
        if failed is not None:
            raise InputError(f"Ray does not start: {failed}")
        return
    # In a thread, which is left behind where no answer comes: Ray itself waits for minutes.
    answer: list[str | None] = []
    thread = threading.Thread(
        target=lambda: answer.append(_refusal(lambda: ray.init(address=address, **options))), daemon=True
    )
    thread.start()
    thread.join(JOIN_S)
    if not answer:
        raise InputError(
            f"--address {address}: no Ray cluster answered within {JOIN_S:.0f} s "
            "(is RAY_AUTH_TOKEN the same as the cluster's?)"
        )
    if answer[0] is not None:
        raise InputError(f"--address {address}: {answer[0]}")


def _refusal(connect: Callable[[], object]) -> str | None:
    """Why Ray cannot be had, in one line; None where it can."""
    try:
        connect()
    except Exception as error:  # every way in which Ray says no
        return _line(error)
    return None


def _line(error: BaseException) -> str:
    """The first line of what an error says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["Node", "RayCluster", "import_ray"]
