"""Published numbers: each with its source, found on its own protocol and on no other."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from methods.masks.pattern import parse_pattern
from methods.registry import allocations, build, methods
from suite.results.published import PUBLISHED, PublishedValue, parse_published, published_values
from tests import PATIENCE_S

ROWS = parse_published(PUBLISHED.read_text(encoding="utf-8"))
LLAMA_2 = "meta-llama/Llama-2-7b-hf"
LLAMA = "decapoda-research/llama-7b-hf"

EXAMPLE = """
[papers.one]
arxiv = "2301.00001"
title = "One"
url = "https://arxiv.org/abs/2301.00001"
[[tables]]
paper = "one"
protocol = "wikitext2-token-s2048"
metric = "perplexity"
calibration = "C4"
evidence = "authors"
verified_in = ["somebody/something README.md"]
values = [
    { model = "a/b", method = "dense", value = 5.0 },
    { model = "a/b", method = "wanda", pattern = "0.5", value = 6.0 },
]
"""


def label(row: PublishedValue) -> str:
    return f"{row.paper.arxiv}-{row.model}-{row.method}-{row.allocation}-{row.pattern}"


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_every_number_has_a_source_that_can_be_opened_and_words_that_we_know(row: PublishedValue) -> None:
    assert row.paper.url.endswith(row.paper.arxiv)
    for source in row.verified_in:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} \S+|https://github\.com/\S+/issues/\d+", source)
    assert row.protocol.startswith(("wikitext2-token-s", "c4-paper-token-s"))
    if row.method != "dense":
        assert row.method in methods.names()
        build(row.method, row.settings)  # refuses settings that the method does not have
    assert row.allocation is None or row.allocation in allocations.names()
    if row.pattern is not None:
        assert str(parse_pattern(row.pattern)) == row.pattern
    if row.method == "dense":
        assert row.calibration is None


def test_a_number_is_found_on_its_protocol_and_on_no_other() -> None:
    (found,) = published_values(
        model=LLAMA_2, method="wanda", pattern="2:4", protocol="wikitext2-token-s4096"
    )
    assert (found.value, found.paper.arxiv, found.evidence) == (11.02, "2306.11695", "authors")
    for protocol in ("wikitext2-token-s2048", "wikitext2-token-s409", "c4-token-s4096", ""):
        assert published_values(model=LLAMA_2, method="wanda", pattern="2:4", protocol=protocol) == ()


def test_model_method_and_pattern_are_compared_exactly_too() -> None:
    asked = {"model": LLAMA_2, "method": "wanda", "pattern": "0.5", "protocol": "wikitext2-token-s4096"}
    assert len(published_values(**asked)) == 1
    for key, other in (("model", LLAMA), ("method", "ria"), ("pattern", "0.6"), ("pattern", None)):
        assert published_values(**{**asked, key: other}) == ()  # type: ignore[arg-type]


def test_the_dense_model_is_asked_for_without_a_pattern() -> None:
    (found,) = published_values(model=LLAMA, method="dense", pattern=None, protocol="wikitext2-token-s2048")
    assert found.value == 5.68


def test_a_number_under_an_allocation_does_not_answer_for_uniform_sparsity() -> None:
    asked = {"model": LLAMA, "method": "wanda", "pattern": "0.7", "protocol": "wikitext2-token-s2048"}
    (uniform,) = published_values(**asked)
    (owl,) = published_values(**asked, allocation="owl")
    assert (uniform.value, owl.value) == (85.77, 24.55)


def test_settings_that_a_number_states_must_be_the_cells() -> None:
    asked = {"model": LLAMA, "method": "dsnot", "pattern": "0.7", "protocol": "wikitext2-token-s2048"}
    assert published_values(**asked) == ()
    assert published_values(**asked, settings={"initial": "magnitude"}) == ()
    (found,) = published_values(**asked, settings={"initial": "wanda", "max_cycles": 50})
    assert (found.value, found.table) == (62.05, "2")


def test_calibration_is_not_said_of_the_dense_model() -> None:
    assert [row.calibration for row in parse_published(EXAMPLE)] == [None, "C4"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('arxiv = "2301.00001"', 'arxiv = "2301.00001"\nyear = 2023', "papers.one.year"),
        ('metric = "perplexity"', 'metric = "perplexity"\nstderr = 0.1', "tables.0.stderr"),
        ("value = 6.0", "value = 6.0, dtype = 1", "tables.0.values.1.dtype"),
        ("[papers.one]", "[other]\n[papers.one]", "other"),
        ('protocol = "wikitext2-token-s2048"', "", "tables.0.protocol"),
        ('verified_in = ["somebody/something README.md"]', "", "tables.0.verified_in"),
        ('["somebody/something README.md"]', "[]", "verified_in"),
        ('"wikitext2-token-s2048"', '"wikitext2"', "protocol"),
        ("value = 6.0", "value = nan", "value"),
        ("value = 6.0", "value = 0.0", "value"),
        ('evidence = "authors"', 'evidence = "memory"', "evidence"),
        ('method = "dense"', 'method = "dense", pattern = "0.5"', "and `dense` must have none"),
        (', pattern = "0.5"', "", "every method needs a pattern"),
    ],
)
def test_what_is_unknown_missing_or_malformed_is_refused(old: str, new: str, message: str) -> None:
    assert EXAMPLE.count(old) == 1
    with pytest.raises(ValidationError, match=re.escape(message)):
        parse_published(EXAMPLE.replace(old, new))


def test_a_paper_that_is_not_listed_and_a_number_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="paper 'two' is not among"):
        parse_published(EXAMPLE.replace('paper = "one"', 'paper = "two"'))
    with pytest.raises(ValueError, match=r"twice in one: a/b wanda 0\.5"):
        again = '{ model = "a/b", method = "wanda", pattern = "0.5", value = 6.1 },\n]'
        parse_published(EXAMPLE.rstrip().removesuffix("]") + again)
    assert parse_published("") == ()


def test_reading_them_loads_no_torch() -> None:
    read = "p.parse_published(p.PUBLISHED.read_text())"
    probe = f"import sys, suite.results.published as p; {read}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.split() == ["False"]
