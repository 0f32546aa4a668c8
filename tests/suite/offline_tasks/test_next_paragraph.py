"""The next paragraph: it follows the right one in the text, and the wrong ones are of the same article."""

from collections import Counter

import pytest

from suite.evaluation.offline_tasks.items import ContextItem
from suite.evaluation.offline_tasks.next_paragraph import (
    CONTEXT_WORDS,
    CONTINUATION_WORDS,
    MAX_ITEMS_PER_ARTICLE,
    Article,
    divided_article,
    next_paragraph_items,
    undivided_article,
)


def sentence(article: int, number: int, n_words: int = 20) -> str:
    return " ".join([f"Sentence{number}", *(f"word{article}x{number}x{i}" for i in range(n_words - 1))]) + "."


def articles(n_articles: int = 3, n_paragraphs: int = 10) -> list[Article]:
    """Half of them divided by blank lines, half not."""
    made: list[Article] = []
    for place in range(n_articles):
        paragraphs = [sentence(place, number) for number in range(n_paragraphs)]
        made.append(divided_article("\n\n".join(paragraphs)))
        made.append(undivided_article(" ".join(f"News {paragraph}" for paragraph in paragraphs)))
    return made


def check_items(items: list[ContextItem], articles: list[Article]) -> None:
    for item in items:
        right = item.contexts[item.answer] + item.continuation
        home = next(article for article in articles if right in article.text)
        assert item.continuation[0].isspace()
        assert len(item.continuation.split()) == CONTINUATION_WORDS
        assert len(set(item.contexts)) == 4
        for place, context in enumerate(item.contexts):
            assert context in home.text
            assert context == context.strip()
            assert len(context.split()) == CONTEXT_WORDS
            assert place == item.answer or context + item.continuation not in home.text
            assert item.continuation.strip() not in context
    assert len({item.contexts[item.answer] for item in items}) == len(items)
    assert len({item.continuation for item in items}) == len(items)
    positions = Counter(item.answer for item in items)
    assert max(positions.values()) - min(positions[position] for position in range(4)) <= 1


def test_it_follows_the_right_one_and_the_others_are_of_the_same_article() -> None:
    made = articles()
    items = next_paragraph_items(made)
    assert len(items) > 30
    check_items(items, made)


def test_items_do_not_depend_on_the_order_of_articles() -> None:
    assert next_paragraph_items(articles()) == next_paragraph_items(articles()[::-1])


def test_a_long_article_has_no_greater_say() -> None:
    assert len(next_paragraph_items(articles(1, n_paragraphs=80)[:1])) == MAX_ITEMS_PER_ARTICLE


def test_an_article_that_is_there_twice_gives_no_item_twice() -> None:
    assert next_paragraph_items(articles(1) * 2) == next_paragraph_items(articles(1))


def test_headings_lists_and_books_are_neither_given_nor_chosen() -> None:
    prose = [sentence(0, number) for number in range(12)]
    others = [
        "History",
        "lower case " + sentence(1, 1),
        "Smith, J. (1991). " + sentence(1, 2),
        sentence(1, 3).removesuffix("."),
        sentence(1, 4, n_words=5),
    ]
    mixed = [paragraph for pair in zip(prose, others, strict=False) for paragraph in pair]
    items = next_paragraph_items([divided_article("\n\n".join([*mixed, *prose[len(others) :]]))])
    assert items
    for item in items:
        assert not any(item.continuation.strip() in other for other in others)
        assert not any(context.endswith(other) for other in others for context in item.contexts)


def test_an_article_too_short_for_four_contexts_gives_none() -> None:
    assert next_paragraph_items([divided_article("\n\n".join(sentence(0, n) for n in range(3)))]) == []


@pytest.mark.model
class TestHeldOutText:
    def test_items(self) -> None:
        from suite.data.text_sources import read_documents

        wiki = [divided_article(text) for text in read_documents("wiki-sample", "evaluation").texts]
        news = [undivided_article(text) for text in read_documents("news-sample", "evaluation").texts]
        items = next_paragraph_items([*wiki, *news])
        assert len(items) >= 300
        check_items(items, [*wiki, *news])
