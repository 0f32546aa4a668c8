"""How pages are made of templates: what records hold is text, and nothing undefined passes in silence."""

from __future__ import annotations

from jinja2 import BaseLoader, Environment, StrictUndefined

from reports.wording import counted, visible


def templates(loader: BaseLoader) -> Environment:
    """An environment that escapes everything and writes out characters that nobody would see."""
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.globals["counted"] = counted
    return environment


__all__ = ["templates"]
