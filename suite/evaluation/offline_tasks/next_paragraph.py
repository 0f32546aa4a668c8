"""Choose which of four paragraphs of an article precedes a given paragraph.

The task does not ask for the next paragraph, because beginnings of paragraphs differ more in their likelihood
without context than in what the previous paragraph adds, so a small model choosing among them is not far from
chance. Here the same beginning is scored after four endings, and its own likelihood cancels out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.evaluation.offline_tasks.items import (
    ContextItem,
    as_dataset,
    fixed_rank,
    in_random_order,
    with_right_at,
)
from suite.evaluation.offline_tasks.sentences import sentence_spans

if TYPE_CHECKING:
    from datasets import DatasetDict

N_CONTEXTS = 4
CONTEXT_WORDS = 22
CONTINUATION_WORDS = 12
MIN_PARAGRAPH_WORDS = 10
MAX_ITEMS_PER_ARTICLE = 8

_PARAGRAPH = re.compile(r"\S.*?(?=\s*(?:\n\n|\Z))", re.DOTALL)
_PROSE = re.compile(r"[\"'“‘(\[]*[A-Z].*[.!?][\"'”’)\]]*", re.DOTALL)
_BIBLIOGRAPHY = re.compile(r"\bISBN\b|\(\d{4}[a-z]?\)[.,]|\bUniversity Press\b")
_BEGINNING = re.compile(rf"(?:\S+\s+){{{CONTINUATION_WORDS - 1}}}\S+")


@dataclass(frozen=True)
class Article:
    """A text and the positions of its paragraphs.

    Attributes:
        text: the whole text.
        spans: start and end of each paragraph, in order; headings and lists are paragraphs too.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


def divided_article(text: str) -> Article:
    """Returns an article from a text whose paragraphs are separated by blank lines."""
    return Article(text, tuple(match.span() for match in _PARAGRAPH.finditer(text)))


def undivided_article(text: str) -> Article:
    """Returns an article from a news text without line breaks; each sentence becomes a paragraph."""
    return Article(text, sentence_spans(text))


def next_paragraph_items(articles: Sequence[Article]) -> list[ContextItem]:
    """Returns items: a paragraph's beginning, the end of the one before it, and the ends of three others.

    The continuation is a paragraph's first `CONTINUATION_WORDS` words, contexts are the last `CONTEXT_WORDS`
    words up to the end of a paragraph. Headings, lists and short paragraphs are left out, and no wrong
    context overlaps in the text with the right one or the continuation. An article yields at most
    `MAX_ITEMS_PER_ARTICLE` items, and each position is right equally often.
    """
    items: dict[str, ContextItem] = {}
    for article in articles:
        for item in in_random_order(_items(article), _right)[:MAX_ITEMS_PER_ARTICLE]:
            items.setdefault(_right(item), item)
    placed: list[ContextItem] = []
    for number, item in enumerate(in_random_order(items.values(), _right)):
        position = number % N_CONTEXTS
        contexts = with_right_at(position, _right(item), item.contexts[1:])
        placed.append(ContextItem(contexts, item.continuation, position))
    return placed


def dataset(**_: object) -> DatasetDict:
    """The task's data set; lm-eval hands over the task's metadata, none of which is needed."""
    from suite.data.text_sources import read_documents

    wiki = [divided_article(text) for text in read_documents("wiki-sample", "evaluation").texts]
    news = [undivided_article(text) for text in read_documents("news-sample", "evaluation").texts]
    return as_dataset(next_paragraph_items([*wiki, *news]))


def _right(item: ContextItem) -> str:
    return item.contexts[item.answer]


def _items(article: Article) -> Iterator[ContextItem]:
    """Yields an item for each paragraph that follows a paragraph of prose, with its right context first."""
    text, spans = article.text, article.spans
    endings = [_ending(text, start, end) for start, end in spans]
    for (_, end), (following, following_end), right in zip(spans, spans[1:], endings, strict=False):
        beginning = _BEGINNING.match(text, following, following_end)
        if right is None or beginning is None or not _is_prose(text[following:following_end]):
            continue
        apart = {
            text[slice(*other)]: None
            for other in endings
            if other is not None and (other[1] <= right[0] or other[0] >= beginning.end())
        }
        context = text[slice(*right)]
        wrong = sorted(apart, key=lambda other: fixed_rank(f"{context}\0{other}"))[: N_CONTEXTS - 1]
        if len(wrong) == N_CONTEXTS - 1 and context not in apart:
            yield ContextItem((context, *wrong), text[end : beginning.end()], 0)


def _ending(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Returns start and end of a paragraph's last words; None if it is not prose or too short."""
    if not _is_prose(text[start:end]) or len(text[start:end].split()) < MIN_PARAGRAPH_WORDS:
        return None
    before, *words = text[:end].rsplit(maxsplit=CONTEXT_WORDS)
    if len(words) < CONTEXT_WORDS:
        return None
    return end - len(text[len(before) : end].lstrip()), end


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph consists of sentences and is not a bibliography entry at the end of an article."""
    return bool(_PROSE.fullmatch(paragraph)) and not _BIBLIOGRAPHY.search(paragraph)


__all__ = ["Article", "dataset", "divided_article", "next_paragraph_items", "undivided_article"]
