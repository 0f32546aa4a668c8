"""The template environment of pages: text from records is escaped, and undefined variables are errors."""

from __future__ import annotations

from jinja2 import BaseLoader, Environment, StrictUndefined

from reports.wording import counted, visible


def templates(loader: BaseLoader) -> Environment:
    """Returns an environment that escapes everything and writes invisible characters visibly."""
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
