"""Replaces the forward of a module temporarily."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replaces the forward of `module` while the body runs, and restores the previous one afterwards."""
    had_own = "forward" in module.__dict__
    before = module.forward
    module.forward = forward
    try:
        yield
    finally:
        if had_own:
            module.forward = before
        else:
            del module.forward


__all__ = ["replaced_forward"]
