"""Collects what `prunebench doctor` shows of the machine and of a model's structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suite.machine.cache import cache_root
from suite.machine.devices import resolve_dtype
from suite.machine.environment import code_version, environment
from suite.models.loading import load_skeleton

if TYPE_CHECKING:
    import torch

    from suite.models.structure import ModelStructure


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Returns the properties of this machine that affect speed and results, by name."""
    found = environment(device)
    code = code_version(None)
    return {
        "prunebench": code.prunebench,
        "commit": f"{code.git_commit or 'none'}{'' if code.git_clean is not False else ' (changed)'}",
        "python": found.python,
        "platform": found.platform,
        "processor": found.processor,
        "cores": found.physical_cores,
        "threads": found.threads,
        "host memory": f"{found.host_memory_bytes / 2**30:.1f} GiB",
        "device": found.device,
        "native bf16": "yes" if found.native_bf16 else "no",
        "dtype auto": resolve_dtype("auto", device),
        "cache": str(cache_root()),
        **found.packages,
    }


def describe_model(name: str, *, revision: str | None, trust_remote_code: bool) -> ModelStructure:
    """Returns the structure of a model as prunebench reads it, without reading its weights."""
    from suite.models.structure import read_structure

    return read_structure(load_skeleton(name, revision=revision, trust_remote_code=trust_remote_code).model)


__all__ = ["describe_machine", "describe_model"]
