"""Renders pages as HTML, from templates that escape everything in the records."""

from __future__ import annotations

from functools import lru_cache

from jinja2 import ChoiceLoader, Environment, PackageLoader

from reports.templating import templates

STYLE_PATH = "style.css"

SECTIONS = (
    ("boards", "index.html", "Boards"),
    ("models", "models/index.html", "Models"),
    ("methods", "methods/index.html", "Methods"),
    ("records", "records/index.html", "Records"),
    ("history", "history.html", "History"),
    ("not-ranked", "not-ranked.html", "Not ranked"),
)
"""Name, first page and text of each navigation entry."""


def render(template: str, path: str, page: object, *, site: str, title: str, section: str) -> str:
    """Renders one page.

    Args:
        template: name of the template.
        path: path of the page below the site's root, to which all its links are relative.
        page: the data that the template shows.
        site: title of the site.
        title: title of the page.
        section: the navigation entry that it belongs to.
    """
    root = "../" * path.count("/")
    return (
        _templates()
        .get_template(template)
        .render(
            page=page, root=root, site=site, title=title, section=section, sections=SECTIONS, style=STYLE_PATH
        )
    )


def style() -> str:
    """Returns the style sheet: that of the report, followed by that of the site."""
    templates = _templates()
    return "\n".join(templates.get_template(name).render() for name in ("style.css", "site.css"))


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return templates(ChoiceLoader([PackageLoader("reports.site"), PackageLoader("reports")]))
