"""Puts another forward in the place of a module's own for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Gives `module` another forward while the body runs; then exactly what it had, an own one or none."""
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
