"""Predict the last word of a passage, which occurred in it before (similar to LAMBADA, arXiv:1606.06031)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from suite.evaluation.offline_tasks.items import ClozeItem, as_dataset, in_random_order
from suite.evaluation.offline_tasks.sentences import sentence_spans

if TYPE_CHECKING:
    from datasets import DatasetDict

SOURCES = ("wiki-sample", "news-sample")
MIN_WORDS = 30
MAX_WORDS = 60
MIN_LETTERS = 4
MAX_ITEMS_PER_TEXT = 12

_WORD = re.compile(r"\S+")
_PLAIN_WORD = re.compile(r"[\"'“‘(\[]*(?P<word>[A-Za-z]+)[.,;:!?\"'”’)\]]*")
_FUNCTION_WORDS = frozenset(
    {
        *("about", "above", "after", "again", "against", "almost", "along", "already", "also"),
        *("although", "always", "among", "another", "around", "because", "been", "before"),
        *("being", "below", "between", "both", "cannot", "could", "does", "done", "down"),
        *("during", "each", "either", "ever", "every", "from", "further", "have", "having"),
        *("hence", "here", "however", "into", "itself", "just", "less", "many", "might", "more"),
        *("most", "much", "must", "neither", "never", "often", "once", "only", "onto", "other"),
        *("others", "over", "perhaps", "quite", "rather", "same", "several", "shall", "should"),
        *("since", "some", "still", "such", "than", "that", "their", "them", "themselves", "then"),
        *("there", "therefore", "these", "they", "this", "those", "though", "through", "thus"),
        *("together", "toward", "towards", "under", "unless", "until", "upon", "very", "well"),
        *("were", "what", "when", "where", "whereas", "whether", "which", "while", "whom"),
        *("whose", "will", "with", "within", "without", "would", "your"),
    }
)


def cloze_items(texts: Sequence[str]) -> list[ClozeItem]:
    """Returns passages of the texts, each up to a word that occurred in it before.

    A passage begins with a sentence and ends, after at least `MIN_WORDS` words, at the first content word
    (not a function word) of at least `MIN_LETTERS` letters that already occurred in the passage after the
    same preceding word. Passages do not overlap, and a text yields at most `MAX_ITEMS_PER_TEXT` of them, so
    that long texts do not dominate.

    Args:
        texts: the articles, with paragraphs separated by blank lines.
    """
    items: dict[str, ClozeItem] = {}
    for text in texts:
        found = (item for paragraph in text.split("\n\n") for item in _passages(paragraph))
        for item in in_random_order(found, _context)[:MAX_ITEMS_PER_TEXT]:
            items.setdefault(item.context, item)
    return in_random_order(items.values(), _context)


def dataset(**_: object) -> DatasetDict:
    """The task's data set; lm-eval hands over the task's metadata, none of which is needed."""
    from suite.data.text_sources import read_documents

    return as_dataset(
        cloze_items([text for source in SOURCES for text in read_documents(source, "evaluation").texts])
    )


def _context(item: ClozeItem) -> str:
    return item.context


def _passages(paragraph: str) -> Iterator[ClozeItem]:
    free = 0
    for start, _ in sentence_spans(paragraph):
        if start >= free and (item := _passage(paragraph, start)):
            free = start + len(item.context + item.continuation)
            yield item


def _passage(paragraph: str, start: int) -> ClozeItem | None:
    """Returns the passage that begins at `start`; None if none of the next words is suitable."""
    seen: set[tuple[str, str]] = set()
    before = ""
    for position, token in enumerate(islice(_WORD.finditer(paragraph, start), MAX_WORDS), 1):
        plain = _PLAIN_WORD.fullmatch(token[0])
        word = plain["word"] if plain else token[0]
        pair = (before.lower(), word)
        if position >= MIN_WORDS and pair in seen and token[0].startswith(word) and _is_asked_for(word):
            context = paragraph[start : token.start()]
            if context.endswith(" "):
                return ClozeItem(context.rstrip(), context[len(context.rstrip()) :] + word)
        seen.add(pair)
        before = token[0]
    return None


def _is_asked_for(word: str) -> bool:
    return (
        word.isascii() and word.isalpha() and len(word) >= MIN_LETTERS and word.lower() not in _FUNCTION_WORDS
    )


__all__ = ["cloze_items", "dataset"]
