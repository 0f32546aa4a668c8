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
"""Increment when the cleaned text changes: cached articles are then cleaned again."""

_MIN_CHARACTERS = 2_000
"""Minimum length of an article; shorter pages are stubs or lists of links."""

_DROPPED_TAGS = {"ref", "references", "table", "gallery", "math", "timeline", "imagemap"}
_BACK_MATTER = re.compile(
    r"(see also|references?|notes?|footnotes|notes and references|citations|sources|bibliography|works cited"
    r"|further reading|external links|gallery)",
    re.IGNORECASE,
)
_NAMESPACE_LINK = re.compile(
    r":?\s*(file|image|category|media|[a-z]{2,3}(-[a-z]+)*|simple)\s*:", re.IGNORECASE
)
"""Links to files, categories and other languages, which are not part of a sentence."""
_LEFT_OVER = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\||^[|!]|</?[a-z]+[^>]*>", re.IGNORECASE)
"""Remains of markup that the parser did not recognize because it was mistyped."""


@dataclass(frozen=True)
class Article:
    """One Wikipedia article: its title, and its text with paragraphs separated by blank lines."""

    title: str
    text: str


def wiki_articles() -> tuple[Article, ...]:
    """Returns the sample's articles in the order of the dump; parsed once, then read from the cache.

    Raises:
        AssetError: the dump could not be fetched, or the cache could not be written.
    """
    folder = built_folder("wiki-articles", f"{WIKI_DUMP.sha256[:12]}-{cleaner()}", _write_articles)
    with (folder / "articles.jsonl").open(encoding="utf-8") as file:
        return tuple(Article(**json.loads(line)) for line in file)


def cleaner() -> str:
    """Returns the versions of the cleaning rules and of the parser, which the cleaned text depends on."""
    return f"cleaner{CLEANER_VERSION}-mwparserfromhell{version('mwparserfromhell')}"


def plain_text(markup: str) -> str:
    """Extracts the running text of an article from its wiki markup.

    Templates, tables, notes, pictures, formulas and the sections of links at the end are left out, and so are
    paragraphs with broken markup. Each heading is kept as a paragraph of its own.
    """
    import mwparserfromhell

    code = mwparserfromhell.parse(markup)
    _keep_prose(code)
    return _tidy(code.strip_code(normalize=True, collapse=True))


def _keep_prose(code: Wikicode) -> None:
    """Removes, in place and at every depth, all nodes that are not part of a sentence.

    Node lists are rebuilt because `Wikicode.remove` searches the whole page on each call.
    """
    from mwparserfromhell.nodes import Heading, Tag, Wikilink

    kept = []
    back_matter: int | None = None
    """Level of the heading whose section is being left out."""
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
    """Cleans up after the removal of markup: empty brackets, repeated spaces, uneven blank lines."""
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
    """Yields title and markup of the dump's articles, without redirects and disambiguation pages."""
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
