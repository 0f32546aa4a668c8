"""The page's first words: which method, at what cost, and whether to believe it."""

from __future__ import annotations

import pytest

from reports.answer import Answer, answer
from reports.comparison import compare
from suite.results.record import Record
from tests.reports.synthetic import ENVIRONMENT, failed_record, make_record, quickstart


def told(records: list[Record]) -> Answer:
    return answer(compare(records))


def test_it_names_method_pattern_interval_ratio_and_text_half_sparsity_first() -> None:
    which = told([*quickstart(), make_record("wanda", "0.3")]).which
    for piece in (
        "On smollm2-135m, perplexity stays lowest with sparsegpt at 50\u00a0% unstructured: 40.30 (",
        "1.61 times dense (",
        "wiki-sample-token-s512, first 10,240 tokens, n = 20 windows, lower is better",
    ):
        assert piece in which
    places = [which.index(piece) for piece in ("at 50\u00a0%", "at 2:4", "at 30\u00a0%")]
    assert places == sorted(places)


def test_the_cost_is_that_of_the_best_at_half_sparsity_beside_the_fastest() -> None:
    cost = told([*quickstart(), make_record("wanda", "0.3")]).cost
    assert cost.startswith(
        "At 50\u00a0% unstructured, sparsegpt took 50.7 s to prune (one run) at a peak of 2.40 GiB"
    )
    assert "magnitude, the fastest, took 0.4 s for 12.43 times that perplexity" in cost


def test_many_rankings_are_told_by_who_leads_at_each_pattern() -> None:
    records = []
    for number in range(6):
        model = f"m{number}"
        # On the last model Wanda is better than SparseGPT.
        factor = 0.5 if number == 5 else 1.0
        records += [make_record("dense", model_name=model), make_record("sparsegpt", model_name=model)]
        records.append(make_record("wanda", model_name=model, ppl_factor=factor))
    which = told(records).which
    assert "at 50\u00a0% unstructured with sparsegpt in 5 and wanda in 1 of 6 rankings, 0.98 to 1.61" in which


def test_many_patterns_are_cut_to_those_nearest_half() -> None:
    which = told([make_record("wanda", p) for p in ("0.4", "0.5", "0.6", "0.7", "0.8", "2:4")]).which
    assert "3 further patterns stand in the table" in which and "80\u00a0%" not in which


def trust_of(*records: Record) -> str:
    return told(list(records)).trust


def test_trust_counts_cells_code_machines_and_settled_differences() -> None:
    said = trust_of(*quickstart(), failed_record("wanda", "4:8"))
    assert said.startswith(
        "13 of 14 cells finished, by one version of the code (prunebench 0.1.0) and on one machine."
    )
    assert "10 of 10 differences to the best are beyond the chance of the text" in said
    assert "Calibration was drawn once: another draw can move the numbers further." in said


def test_a_tie_is_no_settled_difference() -> None:
    said = trust_of(make_record("barber-wanda"), make_record("wanda"), make_record("magnitude"))
    assert "1 of 2 differences to the best is beyond the chance of the text" in said


def test_what_has_no_interval_is_never_called_settled() -> None:
    said = trust_of(make_record("wanda", n_windows=1), make_record("magnitude", n_windows=1))
    assert "difference" not in said
    bare = [make_record(kind, windows=()) for kind in ("wanda", "magnitude")]
    assert "difference" not in trust_of(*bare)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"git_clean": False, "git_commit": "abcdef0123456789"}, "commit abcdef01, a tree with changes"),
        ({"git_clean": True, "git_commit": "abcdef0123456789"}, "commit abcdef01, clean tree"),
        ({"source_digest": "0" * 64}, "by 2 versions of the code, so that not all may be compared"),
    ],
)
def test_the_code_is_named(change: dict[str, object], piece: str) -> None:
    wanda = make_record("wanda")
    changed = wanda.model_copy(update={"code": wanda.code.model_copy(update=change)}).sealed()
    records = [changed] if "git_clean" in change else [make_record("dense"), changed]
    assert piece in trust_of(*records)


def test_other_machines_other_seeds_and_broken_seals_are_said() -> None:
    other = ENVIRONMENT.model_copy(update={"threads": 8})
    said = trust_of(
        make_record("wanda"), make_record("magnitude", environment=other), make_record("wanda", seed=1)
    )
    assert "on 2 kinds of machine or thread counts" in said
    assert "Calibration was drawn with 2 seeds, each a row of its own." in said
    broken = make_record("wanda").model_copy(update={"warnings": ("made up",)})
    assert "1 record changed after it was sealed" in trust_of(broken)


def test_without_a_number_there_is_nothing_to_trust() -> None:
    assert trust_of(failed_record()) == "No number was measured."
