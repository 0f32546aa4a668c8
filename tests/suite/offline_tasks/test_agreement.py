"""The agreement pairs: grammatical, balanced and always the same."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict

from suite.evaluation.offline_tasks.agreement import FRAMES, VERBS, agreement_items

ITEMS = agreement_items()
SINGULAR = {f" {singular}" for singular, _ in VERBS}
DIGEST = "2986089d1f6b881e641907b0df01239efc958db3eaa3b617ce28fd30089fbc74"


def test_items_are_those_that_were_published() -> None:
    text = json.dumps([asdict(item) for item in ITEMS])
    assert hashlib.sha256(text.encode()).hexdigest() == DIGEST


def test_no_item_comes_twice() -> None:
    assert len({item.context for item in ITEMS}) == len(ITEMS) == 4 * len(FRAMES) >= 200


def test_the_right_verb_has_the_number_of_the_first_noun() -> None:
    for item in ITEMS:
        subject = item.context.split()[1]
        is_singular = item.choices[item.answer] in SINGULAR
        assert any(f"{{{subject}|" in frame for frame in FRAMES) is is_singular
        assert {item.choices[0].strip(), item.choices[1].strip()} in [set(verb) for verb in VERBS]


def test_number_and_position_are_balanced_in_any_prefix() -> None:
    for n in (40, 100, 200, len(ITEMS)):
        counts = Counter((item.answer, item.choices[item.answer] in SINGULAR) for item in ITEMS[:n])
        assert counts == {(position, number): n / 4 for position in (0, 1) for number in (True, False)}


def test_verbs_are_as_frequent_in_both_numbers() -> None:
    counts = Counter(item.choices[item.answer].strip() for item in ITEMS)
    assert counts == {form: len(ITEMS) / 8 for verb in VERBS for form in verb}


def test_every_subject_comes_with_other_nouns_of_both_numbers() -> None:
    contexts = {item.context for item in ITEMS}
    assert {
        "The key to the old cabinet",
        "The key to the old cabinets",
        "The keys to the old cabinet",
        "The keys to the old cabinets",
    } <= contexts
    assert not any("|" in context or "{" in context for context in contexts)
