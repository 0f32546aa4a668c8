"""Where pages lie: names that stay, that no file system minds, and that no two things share.

A page's name depends on nothing but the thing itself, so that no later record moves it. Names come from
anybody: what is not plain is written plainly, and told apart by a digest of the whole name.
"""

from __future__ import annotations

import hashlib
import re

DIGEST_DIGITS = 12
"""Of a record's body digest, in the name of its page."""

_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,58}[a-z0-9])?")
_RESERVED = {"index", "con", "prn", "aux", "nul"}


def slug(name: str) -> str:
    """A file name for `name`, without an ending.

    A plain name stands for itself. Any other one gets `_` and twelve digits of its SHA-256, and as no plain
    name has a `_`, neither it nor the number of a further page (`_p2`) can be taken for another's.
    """
    if _PLAIN.fullmatch(name) and name not in _RESERVED and ".." not in name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    written = re.sub(r"[^a-z0-9]+", "-", name.lower())[:48].strip("-")
    return f"{written or 'x'}_{digest[:12]}"


def record_stem(digest: str) -> str:
    """The name of a record's page, from its body digest."""
    return digest[:DIGEST_DIGITS]


def record_page(digest: str) -> str:
    """The page of a record."""
    return f"records/{record_stem(digest)}.html"


def record_file(digest: str) -> str:
    """The record itself, beside its page."""
    return f"records/{record_stem(digest)}.json"


def model_page(name: str) -> str:
    """The page of a model."""
    return f"models/{slug(name)}.html"


def method_page(name: str) -> str:
    """The page of a method."""
    return f"methods/{slug(name)}.html"


def board_page(name: str) -> str:
    """The page of a board."""
    return f"boards/{slug(name)}.html"


def further_page(path: str, number: int) -> str:
    """The second, third... page of what did not fit on one."""
    return path if number == 1 else f"{path.removesuffix('.html')}_p{number}.html"
