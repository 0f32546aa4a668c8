"""Connects to a Ray cluster or starts one, and finds the machines on which cells may run."""

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
"""Timeout for connecting to an address, in seconds."""
JOIN_S = 20.0
"""Timeout for joining the Ray cluster at an address that accepts connections, in seconds."""
PROBE_S = 120.0
"""Timeout for a node's report, in seconds: importing PyTorch over a network takes long."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Size of the object store of a Ray that is started here; token ids and records are small."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster on which cells may run.

    Attributes:
        id: Ray's id of the node.
        resources: the CPUs, GPUs and memory of the node.
        report: the node's report on its software and accelerator; None for this machine.
    """

    id: str
    resources: Resources
    report: NodeReport | None


class RayCluster:
    """A connection to Ray; closing it stops a Ray that was started for it.

    Args:
        address: `auto`, or host:port of the cluster's head; None = start Ray on this machine.
        gpu: whether cells run on GPUs.
        cpus: number of CPUs that a Ray started here may use; None = all.

    Attributes:
        refused: maps the id of each refused node to the reason why no cell may run there.

    Raises:
        InputError: Ray is not installed, does not answer, or has a different version.
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
        """Returns the machines that are alive and may run cells; requests a report from new ones."""
        found = []
        for entry in self._ray.nodes():
            if not entry["Alive"]:
                continue
            node = self._known.get(entry["NodeID"])
            if node is None and entry["NodeID"] not in self.refused:
                node = self._probed(entry)
            if node is not None:
                found.append(node)
        return found

    def on_each_node(self, work: Callable[[WorkerOptions], None], options: WorkerOptions) -> None:
        """Runs a small task on every machine; ignores machines on which it fails."""
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
        """Returns whether the cluster's head accepts connections; calling Ray without a head exits Python."""
        return _answers(self._head)

    def close(self) -> None:
        """Disconnects from the cluster, which ends everything that was started on it."""
        if self.is_alive():
            self._ray.shutdown()

    def _probed(self, entry: dict[str, Any]) -> Node | None:
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
                self.refused[entry["NodeID"]] = f"node {name} did not report its software"
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
            # A different version of prunebench may lack the function that is called.
            cause = error.cause if error.cause is not None else error
            raise InputError(
                f"node {name} cannot run this version of prunebench: {type(cause).__name__}: {_line(cause)}"
            ) from None
        except self._ray.exceptions.RayError:
            return None
        return report


def import_ray() -> Any:
    """Imports `ray` with its warnings and usage reports turned off.

    Raises:
        InputError: Ray is not installed.
    """
    # Ray reads these at import: no usage report, no warnings about future changes.
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
    """Raises `InputError` unless `address` accepts a connection within `CONNECT_S`."""
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
        # Not in a thread: Ray's processes end together with the thread that started them.
        failed = _refusal(lambda: ray.init(address="local", **options))
        if failed is not None:
            raise InputError(f"Ray does not start: {failed}")
        return
    # In a thread, which is abandoned if no answer comes: Ray itself would wait for minutes.
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
    """Returns in one line why connecting to Ray failed; None if it succeeded."""
    try:
        connect()
    except Exception as error:  # Ray may raise anything
        return _line(error)
    return None


def _line(error: BaseException) -> str:
    """Returns the first non-empty line of an error's message, or else the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["Node", "RayCluster", "import_ray"]
