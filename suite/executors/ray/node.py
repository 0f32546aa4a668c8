"""What a machine of a cluster has, and whether its software is the same as here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from methods.errors import InputError


@dataclass(frozen=True)
class Software:
    """What has to be equal on all machines, for numbers to be.

    Attributes:
        prunebench: its version.
        source: SHA-256 over the sources that decide numbers.
        torch: PyTorch's version.
        transformers: the version of that.
    """

    prunebench: str
    source: str
    torch: str
    transformers: str


@dataclass(frozen=True)
class NodeReport:
    """What a machine says of itself.

    Attributes:
        software: what it would run cells with.
        device: the accelerator's name, or `cpu`.
        native_bf16: whether that multiplies bf16 natively.
        device_bytes: memory of one accelerator; None without.
    """

    software: Software
    device: str
    native_bf16: bool
    device_bytes: int | None


def present_software() -> Software:
    """That of this process."""
    import torch
    import transformers

    from suite.machine.environment import code_version

    code = code_version(None)
    # The part behind + names the build (cpu, cu128), which machines of a cluster may differ in.
    version = str(torch.__version__).partition("+")[0]
    return Software(code.prunebench, code.source_digest, version, str(transformers.__version__))


def report_of_node(gpu: bool) -> NodeReport:
    """What this machine says.

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
    """What of two machines' software differs, with both versions; None where nothing does."""
    for name in ("prunebench", "torch", "transformers"):
        ours, theirs = getattr(here, name), getattr(there, name)
        if ours != theirs:
            return f"{name} {theirs}, and {ours} here"
    if here.source != there.source:
        return f"prunebench from other sources ({there.source[:8]}), and {here.source[:8]} here"
    return None


def same_bf16(reports: Sequence[NodeReport]) -> bool:
    """Whether the machines multiply bf16 natively.

    Raises:
        InputError: some do and some do not, or there is none.
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
