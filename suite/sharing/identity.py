"""The conditions under which two processes compute bit-identical results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from methods.base import Placement
    from suite.results.records.record import ModelIdentity


def conditions(model: ModelIdentity, device: torch.device, placement: Placement) -> dict[str, object]:
    """Returns the conditions (weights, code, machine) as JSON values.

    Args:
        model: the dense model.
        device: the device on which layers compute.
        placement: where the layers' weights are kept.
    """
    from suite.machine.environment import code_version, environment

    here = environment(device)
    return {
        "weights": model.weight_digest,
        "architecture": model.architecture,
        "dtype": model.dtype,
        "placement": placement.weights,
        "source": code_version(None).source_digest,
        "packages": here.packages,
        "processor": here.processor,
        "device": here.device,
        "threads": here.threads,
    }


def digest_of(deciding: Mapping[str, object]) -> str:
    """Returns the SHA-256 of JSON values (the first 32 hex digits)."""
    canonical = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


__all__ = ["conditions", "digest_of"]
