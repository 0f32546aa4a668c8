"""Settings are called by what sets them apart."""

from __future__ import annotations

from dataclasses import replace

from reports.rankings.ranking import Protocol, Setting
from reports.rankings.settings import setting_titles

WIKI = Protocol("wiki-token-s512", "digest", "1", 512, 0, 20)
SETTING = Setting("m", "weights-one", "float32", (WIKI,))


def test_model_and_dtype_are_enough_where_they_differ() -> None:
    assert setting_titles([SETTING, replace(SETTING, dtype="bfloat16")]) == ["m, float32", "m, bfloat16"]


def test_what_differs_is_said_and_nothing_else() -> None:
    capped = replace(SETTING, protocols=(replace(WIKI, limit=4096),))
    assert setting_titles([SETTING, capped]) == [
        "m, float32, wiki-token-s512",
        "m, float32, wiki-token-s512, first 4,096 tokens",
    ]
    other = replace(SETTING, weight_digest="weights-two")
    assert setting_titles([SETTING, replace(other, weight_digest="another-two")]) == [
        "m, float32, weights weights-",
        "m, float32, weights another-",
    ]
    revised = replace(SETTING, protocols=(replace(WIKI, corpus_revision="2"),))
    assert setting_titles([SETTING, revised]) == ["m, float32, revision 1", "m, float32, revision 2"]


def test_what_no_fact_tells_apart_is_numbered() -> None:
    twin = replace(SETTING, protocols=(replace(WIKI, n=21),))
    assert setting_titles([SETTING, twin]) == ["m, float32, setting 1", "m, float32, setting 2"]
