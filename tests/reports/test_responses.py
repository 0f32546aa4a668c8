"""Answers on the page: counted in a table, and word by word beside the dense model's."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from reports import render_report
from suite.results.records.record import Record
from tests.reports.page_tables import PageTables
from tests.reports.synthetic import SETTINGS
from tests.reports.synthetic_measured import measured_record
from tests.reports.test_html import HOSTILE, Page

TABLE = "built-in (48 prompts, by the model's chat template), at most 48 tokens per answer"


def dialogues(source: str) -> list[str]:
    return re.findall(r'<details class="said">.*?</details>', source, re.S)


def reply(dialogue: str, label: str) -> str:
    """What stands beside a model's name, as text, its mark in brackets."""
    found = re.search(rf"<dt><bdi>{re.escape(label)}</bdi>(.*?)</dd>", dialogue, re.S)
    assert found is not None, dialogue
    marked = found[1].replace("<mark>", "[").replace("</mark>", "]").replace("</dt>", "|")
    return html.unescape(re.sub(r"<[^>]*>", "", marked)).replace("\u00a0", " ")


def with_answer(record: Record, **changes: Any) -> Record:
    """The record with its first answer changed."""
    assert record.answers is not None
    first, *others = record.answers.answers
    answers = (first.model_copy(update=changes), *others)
    return record.model_copy(update={"answers": record.answers.model_copy(update={"answers": answers})})


def first_dialogue(dense: dict[str, Any], wanda: dict[str, Any]) -> str:
    records = [
        with_answer(measured_record("dense"), **dense),
        with_answer(measured_record("wanda"), **wanda),
    ]
    return dialogues(render_report(records, title="t"))[0]


def test_the_table_has_shares_repetition_and_likelihood_with_intervals() -> None:
    wanda = measured_record("wanda")
    found = PageTables(render_report([measured_record("dense"), wanda], title="t"))
    assert [h.split("|")[0] for h in found.headings(TABLE)[2:]] == [
        "As dense ↑",
        "Repetition ↓",
        "Dense model's loss ↓",
        "Length",
        "Ended",
    ]
    row = found.row(TABLE, "wanda")
    same = wanda.metric("answers_as_dense")
    nll = wanda.metric("answer_dense_nll")
    assert same and same.value and same.low and same.high and nll
    assert row[2] == f"{100 * same.value:.2f} %|{100 * same.low:.2f} to {100 * same.high:.2f}"
    assert row[4] == f"{nll.value:.3f}|{nll.low:.3f} to {nll.high:.3f}"
    assert found.row(TABLE, "dense")[2] == "–"


def test_every_prompt_is_collapsed_and_holds_every_answer() -> None:
    records = [measured_record("dense"), measured_record("wanda"), measured_record("sparsegpt", "2:4")]
    source = render_report(records, title="t")
    found = dialogues(source)
    assert len(found) == 48 and "<details open" not in source
    answers = records[1].answers
    assert answers is not None
    for dialogue, answer in zip(found, answers.answers, strict=True):
        assert html.unescape(dialogue).count(answer.prompt) >= 1
        said = reply(dialogue, "wanda, 50\u00a0% unstructured")
        if answer.parted_at is None:
            assert "the dense model's answer" in said and "as dense" in said
        else:
            assert answer.text in said.replace("[", "").replace("]", "")
            assert f"parts from dense at token {answer.parted_at}, character" in said
        assert f"repetition {100 * (answer.repetition or 0):.2f} %" in said
        assert f"dense model's loss {answer.dense_nll:.3f}" in said
    assert "Word by word, to keep the page small" not in source


@pytest.mark.parametrize(
    ("dense", "ours", "place", "shown"),
    [
        ("one two", "one too", 5, "one t[o]o"),
        ("one two", "one", 3, "one[∎]"),
        ("one", "one two", 3, "one[ ]two"),
        ("one two", "one\ntwo", 3, "one[↵\n]two"),
        ("one", "", 0, "[∎]"),
        ("", "one", 0, "[o]ne"),
        ("a\u202eb", "a\u202ec", 2, "a\\u202e[c]"),
    ],
)
def test_the_first_parting_is_marked(dense: str, ours: str, place: int, shown: str) -> None:
    dialogue = first_dialogue({"text": dense}, {"text": ours, "parted_at": 1})
    said = reply(dialogue, "wanda, 50\u00a0% unstructured")
    assert said.startswith(f"parts from dense at token 1, character {place} · ")
    assert said.endswith(f"|{shown}")


def test_other_tokens_may_read_the_same() -> None:
    dialogue = first_dialogue({"text": "one"}, {"text": "one", "parted_at": 1})
    said = reply(dialogue, "wanda, 50\u00a0% unstructured")
    assert said.startswith("parts from dense at token 1, with the same text · ") and said.endswith("|one")


def test_an_empty_answer_and_missing_numbers_are_said() -> None:
    lost = {
        "text": "",
        "n_tokens": 0,
        "parted_at": None,
        "repetition": None,
        "dense_nll": None,
        "ended": False,
    }
    source = render_report([with_answer(measured_record("wanda"), **lost)], title="t")
    assert reply(dialogues(source)[0], "wanda, 50\u00a0% unstructured") == "cut after 0 tokens|no text"


def test_hostile_prompts_and_answers_stay_text() -> None:
    told = {"prompt": HOSTILE, "id": HOSTILE, "kind": HOSTILE}
    records = [
        with_answer(measured_record("dense"), text=f"a{HOSTILE}", **told),
        with_answer(measured_record("wanda"), text=f"b{HOSTILE}", parted_at=0, **told),
    ]
    page = Page(render_report(records, title="t"))
    assert page.text.count('<script>alert("x")</script><!--{{ 7 * 7 }}\\u2028\\u2029\\u202e&"\'<b>') >= 5
    assert not [script for script in page.scripts if "alert(" in script]
    assert "b" not in page.tags and len(page.scripts) == 2


def test_other_prompts_or_lengths_share_no_table() -> None:
    other = measured_record("sparsegpt")
    assert other.answers is not None
    shorter = other.answers.model_copy(update={"max_new_tokens": 32})
    records = [
        measured_record("dense"),
        measured_record("wanda"),
        other.model_copy(update={"answers": shorter}),
    ]
    found = PageTables(render_report(records, title="t"))
    assert [row[0] for row in found.rows(TABLE)] == ["dense", "wanda"]
    assert [row[0] for row in found.rows("at most 32 tokens per answer")] == ["sparsegpt"]


def test_other_batches_are_said() -> None:
    other = measured_record("sparsegpt")
    assert other.answers is not None
    halved = other.model_copy(update={"answers": other.answers.model_copy(update={"batch_size": 24})})
    text = Page(render_report([measured_record("dense"), halved], title="t")).text
    assert "Not all models answered as many prompts at once (24 and 48)" in text


def test_of_many_models_the_best_of_each_pattern_are_shown_word_by_word() -> None:
    records = [measured_record("dense")]
    for size in range(10):
        records += [
            measured_record("sparsegpt", p, settings={"block_size": size}, ppl_factor=1 + size / 10)
            for p in ("0.5", "2:4")
        ]
    source = render_report(records, title="t")
    assert len(PageTables(source).rows(TABLE)) == 21
    text = Page(source).text
    assert "the 8 best models of each pattern, by perplexity (16 of 20). The records hold all." in text
    found = dialogues(source)
    assert len(found) == 48
    assert found[0].count("<dt>") == 2 + 16
    assert "block_size=7" in found[0] and "block_size=8" not in found[0]


@pytest.mark.slow
@pytest.mark.parametrize("n_patterns", [4, 20])
def test_one_hundred_cells_with_answers_stay_under_three_megabytes(n_patterns: int) -> None:
    records = [measured_record("dense")]
    kinds = ("magnitude", "wanda", "sparsegpt", "barber-wanda", "barber-magnitude")
    for i in range(20):
        pattern, run = f"{0.3 + 0.02 * (i % n_patterns):.2f}", {"run": i // n_patterns}
        records += [measured_record(kind, pattern, settings={**SETTINGS[kind], **run}) for kind in kinds]
    source = render_report(records, title="many")
    assert len(source.encode()) < 3_000_000
    assert len(PageTables(source).rows(TABLE)) == 101
    assert len(dialogues(source)) >= 5
    assert "Word by word, to keep the page small" in source


def test_answers_longer_than_a_page_leave_out_prompts_evenly() -> None:
    records = [measured_record(kind, answers=["<&" * 40_000] * 48) for kind in ("dense", "wanda")]
    source = render_report(records, title="t")
    assert len(source.encode()) < 3_100_000
    assert re.search(r"small: \d of 48 prompts, evenly picked", Page(source).text)
