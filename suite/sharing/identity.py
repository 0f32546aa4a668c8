"""What has to be equal for two processes to compute the same, to the bit."""

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
    """Weights, code and machine, as JSON values.

    Args:
        model: the dense model.
        device: where layers compute.
        placement: where they are.
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
    """SHA-256 (hex, 32 digits) of JSON values."""
    canonical = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


__all__ = ["conditions", "digest_of"]
