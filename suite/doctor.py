"""What `prunebench doctor` says of the machine and of a model's structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from methods.decoder import read_decoder
from suite.cache import cache_root
from suite.models import load_skeleton
from suite.plan import resolve_dtype
from suite.results.environment import code_version, environment

if TYPE_CHECKING:
    import torch


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What decides speed and numbers here, by name."""
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


def describe_model(name: str) -> dict[str, Any]:
    """The structure of a model as prunebench reads it: layers, blocks, targets with their shapes."""
    model = load_skeleton(name).model
    decoder = read_decoder(model)
    first = decoder.layers[0]
    facts: dict[str, Any] = {
        "architecture": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "decoder layers": f"{len(decoder.layers)} x {type(first.module).__name__}",
        "target weights": sum(target.weight.numel() for _, _, target in decoder.targets()),
    }
    for block in first.blocks:
        chain = " -> ".join(type(module).__name__ for module in block.chain)
        facts[f"{block.kind} block"] = chain
        for name, target in block.targets.items():
            facts[f"  {name.removeprefix(f'{first.name}.')}"] = list(target.shape)
    return facts


__all__ = ["describe_machine", "describe_model"]
