"""A leaderboard as a folder of static pages, built from trees of records."""

from __future__ import annotations

from reports.site.build import BuiltSite, build_site
from reports.site.files.folder import SiteError

__all__ = ["BuiltSite", "SiteError", "build_site"]
