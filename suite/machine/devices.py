"""Resolves the device and dtype options of a user to torch devices and the dtype a model computes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from methods.errors import InputError
from suite.cell import DType

if TYPE_CHECKING:
    import torch


def resolve_device(wanted: str | torch.device) -> torch.device:
    """Returns the device of that name; `auto` is a GPU if there is one, otherwise the CPU.

    Raises:
        InputError: this machine has no such device.
    """
    import torch

    wanted = str(wanted)
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {wanted}: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # memory counters cannot be reset earlier
    return device


def resolve_devices(wanted: str | torch.device, workers: int | None) -> list[torch.device]:
    """Returns one device for each worker of this machine.

    Args:
        wanted: `auto` (all GPUs, or the CPU if there are none), `cpu`, `cuda` (all GPUs), or a list of GPUs
            such as `cuda:0,cuda:2`.
        workers: number of workers; None = one per GPU, or one on the CPU.

    Raises:
        InputError: this machine has no such device, or fewer GPUs than workers.
    """
    import torch

    names = [name.strip() for name in str(wanted).split(",")]
    if names in (["auto"], ["cuda"]):
        first = resolve_device(names[0])
        n_gpus = torch.cuda.device_count() if first.type == "cuda" else 0
        devices = [torch.device("cuda", n) for n in range(n_gpus)] if n_gpus > 1 else [first]
    else:
        devices = [resolve_device(name) for name in names]
    if len(set(devices)) < len(devices):
        raise InputError(f"--device {wanted}: names a device twice")
    if {device.type for device in devices} == {"cpu"}:
        return devices * (workers or 1)
    if workers is not None and workers > len(devices):
        raise InputError(f"--workers {workers}: {len(devices)} GPUs run {len(devices)} cells at a time")
    return devices[:workers]


def resolve_dtype(wanted: str, device: torch.device) -> DType:
    """Returns the dtype for a device; `auto` is bf16 if the hardware multiplies it natively, else fp32."""
    from suite.machine.environment import native_bf16

    if wanted == "auto":
        return "bfloat16" if native_bf16(device) else "float32"
    return cast(DType, wanted)


def written_dtype(wanted: str, stored: Sequence[torch.dtype], device: torch.device) -> DType:
    """Returns the dtype in which a model is pruned and written.

    `auto` is the dtype in which most of the weights are stored, if the device computes in it natively;
    otherwise fp32, which represents every value of the 16-bit types.

    Args:
        wanted: the dtype option of the user.
        stored: the dtypes in which the model's weights are stored, the one with the most bytes first.
        device: the device that prunes the model.
    """
    import torch

    from suite.machine.environment import native_bf16

    if wanted != "auto":
        return cast(DType, wanted)
    if stored[:1] == [torch.bfloat16] and native_bf16(device):
        return "bfloat16"
    return "float16" if stored[:1] == [torch.float16] and device.type == "cuda" else "float32"


__all__ = ["resolve_device", "resolve_devices", "resolve_dtype", "written_dtype"]
