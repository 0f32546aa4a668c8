"""The articles of `wiki-sample`: a small Wikipedia dump, cleaned of its markup."""

from __future__ import annotations

import bz2
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from suite.data.assets import WIKI_DUMP, fetch
from suite.machine.cache import built_folder

if TYPE_CHECKING:
    from mwparserfromhell.wikicode import Wikicode

CLEANER_VERSION = 1
"""Raised with every change of the cleaned text: cached articles are then cleaned anew."""

_MIN_CHARACTERS = 2_000
"""Below this a page is a list of links or a stub, not an article."""

_DROPPED_TAGS = {"ref", "references", "table", "gallery", "math", "timeline", "imagemap"}
_BACK_MATTER = re.compile(
    r"(see also|references?|notes?|footnotes|notes and references|citations|sources|bibliography|works cited"
    r"|further reading|external links|gallery)",
    re.IGNORECASE,
)
_NAMESPACE_LINK = re.compile(
    r":?\s*(file|image|category|media|[a-z]{2,3}(-[a-z]+)*|simple)\s*:", re.IGNORECASE
)
"""Links to files, categories and other languages: they are not part of a sentence."""
_LEFT_OVER = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\||^[|!]|</?[a-z]+[^>]*>", re.IGNORECASE)
"""Markup that the author mistyped, so that no parser reads it."""


@dataclass(frozen=True)
class Article:
    """One Wikipedia article: its title, and its text in paragraphs parted by blank lines."""

    title: str
    text: str


def wiki_articles() -> tuple[Article, ...]:
    """The sample's articles in the order of the dump; parsed once, then read from the cache.

    Raises:
        AssetError: the dump could not be fetched, or the cache not be written.
    """
    folder = built_folder("wiki-articles", f"{WIKI_DUMP.sha256[:12]}-{cleaner()}", _write_articles)
    with (folder / "articles.jsonl").open(encoding="utf-8") as file:
        return tuple(Article(**json.loads(line)) for line in file)


def cleaner() -> str:
    """What decides the cleaned text beside the dump: our rules and the parser's version."""
    return f"cleaner{CLEANER_VERSION}-mwparserfromhell{version('mwparserfromhell')}"


def plain_text(markup: str) -> str:
    """The running text of an article in wiki markup.

    Templates, tables, notes, pictures, formulas and the sections of links at the end are left out, and so is
    a paragraph whose markup is broken. Headings stay, a paragraph each.
    """
    import mwparserfromhell

    code = mwparserfromhell.parse(markup)
    _keep_prose(code)
    return _tidy(code.strip_code(normalize=True, collapse=True))


def _keep_prose(code: Wikicode) -> None:
    """Drops, in place and at every depth, what is no part of a sentence.

    Node lists are rebuilt rather than emptied by `Wikicode.remove`, which searches the whole page each time.
    """
    from mwparserfromhell.nodes import Heading, Tag, Wikilink

    kept = []
    back_matter: int | None = None
    """The level of the heading whose section is being left out."""
    for node in code.nodes:
        if isinstance(node, Heading):
            if back_matter is not None and node.level <= back_matter:
                back_matter = None
            if back_matter is None and _BACK_MATTER.fullmatch(node.title.strip_code().strip()):
                back_matter = node.level
        if back_matter is not None:
            continue
        if isinstance(node, Tag):
            if str(node.tag).strip().lower() in _DROPPED_TAGS:
                continue
            if node.contents is not None:
                _keep_prose(node.contents)
        elif isinstance(node, Wikilink):
            if _NAMESPACE_LINK.match(str(node.title)):
                continue
            if node.text is not None:
                _keep_prose(node.text)
        kept.append(node)
    code.nodes = kept


def _tidy(text: str) -> str:
    """Removes what the markup left behind: brackets it emptied, doubled spaces, uneven blank lines."""
    text = re.sub(r"'{2,}", "", text)
    text = re.sub(r"\(\s*[,;:\s]*\)|\[\s*\]", "", text)
    text = re.sub(r"\(\s*[,;]\s*", "(", text)
    text = re.sub(r"[,;]?\s*\)", ")", text)
    text = re.sub(r"[ \t\xa0]+", " ", text)
    text = re.sub(r" +([,.;:)])", r"\1", text)
    paragraphs = (line.strip() for line in text.splitlines())
    return "\n\n".join(line for line in paragraphs if line and not _LEFT_OVER.search(line))


def _write_articles(folder: Path) -> None:
    with (folder / "articles.jsonl").open("w", encoding="utf-8") as file:
        for title, markup in _pages(fetch(WIKI_DUMP)):
            text = plain_text(markup)
            if len(text) >= _MIN_CHARACTERS:
                file.write(json.dumps({"title": title, "text": text}, ensure_ascii=False) + "\n")


def _pages(dump: Path) -> Iterator[tuple[str, str]]:
    """Title and markup of the dump's articles, without redirects and pages that only tell names apart."""
    with bz2.open(dump) as file:
        for _, page in ElementTree.iterparse(file):
            if not page.tag.endswith("}page"):
                continue
            title, markup = page.findtext("{*}title", ""), page.findtext("{*}revision/{*}text", "")
            is_article = page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None
            if is_article and "(disambiguation)" not in title:
                yield title, markup
            page.clear()


__all__ = ["CLEANER_VERSION", "Article", "cleaner", "plain_text", "wiki_articles"]
