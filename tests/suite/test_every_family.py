"""Every causal language model of the installed transformers is computed right, or refused in one line."""

import warnings
from importlib.metadata import version

import pytest
from transformers import AutoModelForCausalLM

from methods.masks.pattern import parse_pattern
from methods.registry import build
from tests import every_family
from tests.every_family import (
    DOCS,
    NOT_TRIED,
    PLACEMENTS,
    RIGHT,
    documented,
    names,
    stored,
    table,
    tried_with,
    verdict,
)
from tests.methods.tiny_models import make_calibration
from tests.tiny import write_text


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in NOT_TRIED])
def test_a_family_is_right_or_refused(name, tmp_path):
    found = verdict(name, tmp_path)
    for reason in found.values():
        assert reason == RIGHT or (len(reason.splitlines()) == 1 and "meta tensor" not in reason), reason
    known = stored().get(name)
    if known is None:
        warnings.warn(f"{name} is new: python -m tests.every_family {name}", stacklevel=1)
    else:
        assert {place: known[place] == RIGHT for place in found} == {p: r == RIGHT for p, r in found.items()}
        if tried_with() == version("transformers"):  # other versions call parts by other names
            assert known == {"class": known["class"], **found}


def test_every_family_is_in_the_table_or_listed_with_a_reason():
    """A family that a later transformers brings is tried all the same, and its test warns."""
    assert not stored().keys() & NOT_TRIED.keys()
    new = set(names()) - stored().keys() - NOT_TRIED.keys()
    if new:
        warnings.warn(f"not in the table yet: {', '.join(sorted(new))}", stacklevel=1)


def test_the_table_in_the_docs_is_that_of_the_verdicts():
    assert documented(DOCS.read_text()) == table()
    resident, onload = (
        sum(found[placement] == RIGHT for found in stored().values()) for placement in PLACEMENTS
    )
    readme = " ".join((DOCS.parent.parent / "README.md").read_text().split())
    assert f"{resident} of {len(stored())} families compute what transformers computes, {onload} of" in readme


def test_a_buffer_that_a_checkpoint_holds_comes_with_its_layer(tmp_path):
    """Apertus keeps the constants of its activation in its files."""
    every_family.build("apertus", tmp_path / "dense")
    text = write_text(tmp_path / "text.txt", n_words=200)
    every_family.check(tmp_path / "dense", text, tmp_path / "onload", "onload")


def test_matrices_that_only_choose_tokens_keep_their_initial_mask():
    """No output of DeepSeek's indexer reaches the layer's: it picks the tokens that attention looks at."""

    def pruned(method):
        model = AutoModelForCausalLM.from_config(every_family.tiny_config("deepseek_v32")).eval()
        every_family.fill(model)
        return build(method).prune(model, parse_pattern("0.5"), make_calibration()).keep

    initial, rebuilt = pruned("wanda"), pruned("llm-barber")
    choosing = {name for name in initial if "indexer" in name}
    assert choosing
    assert all(initial[name].unpack().equal(rebuilt[name].unpack()) for name in choosing)
    assert any(not initial[name].unpack().equal(rebuilt[name].unpack()) for name in initial.keys() - choosing)
