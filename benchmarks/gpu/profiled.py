"""Profiles one prune of a few layers with PyTorch's profiler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.shapes import Shape
from methods.masks.pattern import parse_pattern
from methods.registry import build

ROWS = 40


def save_profile(method: str, pattern: str, shape: Shape, device: torch.device, folder: Path) -> Path:
    """Prunes twice, the first time to warm up, and saves the operators that took longest.

    Args:
        method: a registered name.
        pattern: as a user writes it.
        shape: shape of the model; a few layers suffice.
        device: device of the model.
        folder: folder for the table.

    Returns:
        The path of the table.
    """
    calibration = shape.calibration()
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    build(method).prune(shape.build(device), parse_pattern(pattern), calibration)
    model = shape.build(device)
    with profile(activities=activities, record_shapes=True) as recorded:
        build(method).prune(model, parse_pattern(pattern), calibration)
    order = f"self_{'cuda' if device.type == 'cuda' else 'cpu'}_time_total"
    table = recorded.key_averages(group_by_input_shape=True).table(sort_by=order, row_limit=ROWS)
    path = folder / f"profile-{method}-{pattern.replace(':', 'of')}.txt"
    path.write_text(
        f"{method} {pattern} on {shape.name}, {shape.n_layers} layers\n{table}\n", encoding="utf-8"
    )
    return path


__all__ = ["save_profile"]
