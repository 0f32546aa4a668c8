"""A leaderboard as a folder of static pages, built from results trees."""

from typing import TYPE_CHECKING

from methods.lazy import lazily

if TYPE_CHECKING:
    from reports.site.build import BuiltSite, build_site
    from reports.site.files.folder import SiteError

_NAMES = {"build": ("BuiltSite", "build_site"), "files.folder": ("SiteError",)}
__getattr__, __dir__ = lazily(__name__, _NAMES)

__all__ = ["BuiltSite", "SiteError", "build_site"]
