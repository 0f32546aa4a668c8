"""Pages as HTML, from templates that escape whatever the records hold."""

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
"""Name, first page and words of the navigation."""


def render(template: str, path: str, page: object, *, site: str, title: str, section: str) -> str:
    """A page.

    Args:
        template: its name.
        path: of the page below the site's root, to which all its links are relative.
        page: what the template shows.
        site: the site's title.
        title: the page's own.
        section: the entry of the navigation that it belongs to.
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
    """The style sheet: the report's, and what only the site needs."""
    templates = _templates()
    return "\n".join(templates.get_template(name).render() for name in ("style.css", "site.css"))


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return templates(ChoiceLoader([PackageLoader("reports.site"), PackageLoader("reports")]))
