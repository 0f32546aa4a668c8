"""Reports of the machines of a cluster, and comparison of their software with this machine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from methods.errors import InputError


@dataclass(frozen=True)
class Software:
    """The software versions that must be equal on all machines for their results to be comparable.

    Attributes:
        prunebench: version of prunebench.
        source: SHA-256 over the sources that determine results.
        torch: version of PyTorch, without its build.
        transformers: version of transformers.
    """

    prunebench: str
    source: str
    torch: str
    transformers: str


@dataclass(frozen=True)
class NodeReport:
    """The report of a machine on itself.

    Attributes:
        software: the software with which it would run cells.
        device: the accelerator's name, or `cpu`.
        native_bf16: whether that device multiplies bf16 natively.
        device_bytes: memory of one accelerator in bytes; None if there is none.
    """

    software: Software
    device: str
    native_bf16: bool
    device_bytes: int | None


def present_software() -> Software:
    """Returns the software of this process."""
    import torch
    import transformers

    from suite.machine.environment import code_version

    code = code_version(None)
    # The part after + names the build (cpu, cu128), which may differ between machines of a cluster.
    version = str(torch.__version__).partition("+")[0]
    return Software(code.prunebench, code.source_digest, version, str(transformers.__version__))


def report_of_node(gpu: bool) -> NodeReport:
    """Returns the report of the machine on which it is called.

    Args:
        gpu: whether cells will run on its accelerator.
    """
    import torch

    from suite.machine.environment import native_bf16

    has_gpu = gpu and torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    return NodeReport(
        software=present_software(),
        device=torch.cuda.get_device_name(device) if has_gpu else "cpu",
        native_bf16=native_bf16(device),
        device_bytes=torch.cuda.get_device_properties(device).total_memory if has_gpu else None,
    )


def difference(here: Software, there: Software) -> str | None:
    """Describes the first difference between two machines' software; None if there is none."""
    for name in ("prunebench", "torch", "transformers"):
        ours, theirs = getattr(here, name), getattr(there, name)
        if ours != theirs:
            return f"{name} {theirs}, and {ours} here"
    if here.source != there.source:
        return f"prunebench from other sources ({there.source[:8]}), and {here.source[:8]} here"
    return None


def same_bf16(reports: Sequence[NodeReport]) -> bool:
    """Returns whether the machines multiply bf16 natively.

    Raises:
        InputError: only some of them do, or there are no reports.
    """
    if not reports:
        raise InputError("no node of the Ray cluster can use its GPU: is its PyTorch built for CUDA?")
    found = {report.native_bf16 for report in reports}
    if len(found) > 1:
        raise InputError(
            "dtype 'auto' is bfloat16 on some nodes and float32 on others: give a dtype in the suite file"
        )
    return found.pop()


__all__ = ["NodeReport", "Software", "difference", "present_software", "report_of_node", "same_bf16"]
