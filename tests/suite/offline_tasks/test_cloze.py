"""Cloze passages: whole beginnings, a word that came before, and nothing twice."""

import random
import re
from itertools import pairwise

import pytest

from suite.evaluation.offline_tasks.cloze import (
    MAX_ITEMS_PER_TEXT,
    MAX_WORDS,
    MIN_LETTERS,
    MIN_WORDS,
    cloze_items,
)
from suite.evaluation.offline_tasks.items import ClozeItem

WORDS = (
    "harbor",
    "lantern",
    "of",
    "the",
    "with",
    "winter",
    "captain",
    "a",
    "stone",
    "without",
    "river",
    "letter",
)


def prose(seed: int, n_paragraphs: int = 8) -> str:
    """Paragraphs of made-up sentences in which words come again."""
    random_words = random.Random(seed)

    def sentence() -> str:
        words = random_words.choices(WORDS, k=random_words.randint(8, 20))
        return " ".join([*words, f"end{random_words.randint(0, 99)}"]).capitalize() + "."

    return "\n\n".join(" ".join(sentence() for _ in range(8)) for _ in range(n_paragraphs))


def check_items(items: list[ClozeItem], texts: list[str]) -> None:
    for item in items:
        passage = item.context + item.continuation
        assert any(passage in text for text in texts)
        assert not item.context[-1].isspace()
        word = item.continuation.removeprefix(" ")
        assert re.fullmatch(r"[A-Za-z]+", word)
        assert len(word) >= MIN_LETTERS
        before = re.escape(item.context.split()[-1])
        assert re.search(rf"(?<!\S){before} \W*{word}\b", item.context, re.IGNORECASE)
        assert MIN_WORDS <= len(passage.split()) <= MAX_WORDS
        assert "\n" not in passage
    contexts = [item.context for item in items]
    assert len(set(contexts)) == len(contexts)


def test_passages_are_of_the_text_and_end_with_words_that_came_before() -> None:
    texts = [prose(seed) for seed in range(6)]
    items = cloze_items(texts)
    assert len(items) > 40
    check_items(items, texts)


def test_passages_do_not_overlap() -> None:
    text = prose(0)
    spans = sorted(
        (text.index(item.context), text.index(item.context) + len(item.context + item.continuation))
        for item in cloze_items([text])
    )
    assert len(spans) > 3
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_items_do_not_depend_on_the_order_of_texts() -> None:
    texts = [prose(seed) for seed in range(4)]
    assert cloze_items(texts) == cloze_items(texts[::-1])


def test_a_long_text_has_no_greater_say() -> None:
    assert len(cloze_items([prose(0, n_paragraphs=60)])) == MAX_ITEMS_PER_TEXT


def test_a_text_that_is_there_twice_gives_no_item_twice() -> None:
    assert cloze_items([prose(0), prose(0)]) == cloze_items([prose(0)])


def test_function_words_and_short_ones_are_not_asked_for() -> None:
    assert cloze_items([" ".join(["The", "with", "of", "winter,", *["which", "of", "a", "with"] * 20])]) == []


@pytest.mark.model
class TestHeldOutText:
    def test_items(self) -> None:
        from suite.data.text_sources import read_documents
        from suite.evaluation.offline_tasks.cloze import SOURCES

        texts = [text for source in SOURCES for text in read_documents(source, "evaluation").texts]
        items = cloze_items(texts)
        assert len(items) >= 300
        check_items(items, texts)
