"""Paths of pages: permanent names that are valid on every file system and unique.

A page's name depends only on the thing it shows, so that no later record changes it. The names of models and
methods are arbitrary: a name that is not plain is simplified, and made unique by a digest of the full name.
"""

from __future__ import annotations

import hashlib
import re

DIGEST_DIGITS = 12
"""Number of digits of a record's body digest in the name of its page."""

_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,58}[a-z0-9])?")
_RESERVED = {"index", "con", "prn", "aux", "nul"}


def slug(name: str) -> str:
    """Returns a file name for `name`, without an extension.

    A plain name is used as it is. Any other one gets `_` and twelve digits of its SHA-256. As no plain name
    has a `_`, neither such a name nor the number of a further page (`_p2`) can collide with another name.
    """
    if _PLAIN.fullmatch(name) and name not in _RESERVED and ".." not in name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    written = re.sub(r"[^a-z0-9]+", "-", name.lower())[:48].strip("-")
    return f"{written or 'x'}_{digest[:12]}"


def record_stem(digest: str) -> str:
    """Returns the file name of a record's page without extension, from its body digest."""
    return digest[:DIGEST_DIGITS]


def record_page(digest: str) -> str:
    """Returns the path of a record's page."""
    return f"records/{record_stem(digest)}.html"


def record_file(digest: str) -> str:
    """Returns the path of the record file, next to its page."""
    return f"records/{record_stem(digest)}.json"


def model_page(name: str) -> str:
    """Returns the path of a model's page."""
    return f"models/{slug(name)}.html"


def method_page(name: str) -> str:
    """Returns the path of a method's page."""
    return f"methods/{slug(name)}.html"


def board_page(name: str) -> str:
    """Returns the path of a board's page."""
    return f"boards/{slug(name)}.html"


def further_page(path: str, number: int) -> str:
    """Returns the path of page `number` of a listing that does not fit on one page."""
    return path if number == 1 else f"{path.removesuffix('.html')}_p{number}.html"
