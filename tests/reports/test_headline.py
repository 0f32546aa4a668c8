"""The page's first words: which method, at what cost, and whether to believe it."""

from __future__ import annotations

import pytest

from reports.rankings.comparison import compare
from reports.rankings.headline import Answer, answer
from suite.results.records.record import Record
from tests.reports.synthetic import ENVIRONMENT, failed_record, make_record, quickstart
from tests.reports.test_comparison import unmeasured


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
    assert "3 further patterns are in the table" in which and "80\u00a0%" not in which


def trust_of(*records: Record) -> str:
    return told(list(records)).trust


def test_trust_counts_cells_code_machines_and_settled_differences() -> None:
    said = trust_of(*quickstart(), failed_record("wanda", "4:8"))
    assert said.startswith(
        "13 of 14 cells finished, by one version of the code (prunebench 0.1.0) and on one kind of machine."
    )
    assert "10 of 10 differences to the best are beyond the chance of the text" in said
    assert "All calibration was drawn with one seed: another draw can change the numbers more." in said


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
        ({"source_digest": "0" * 64}, "by 2 versions of the code, so not all records are comparable"),
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
    assert "on 2 kinds of machine, thread counts or placements" in said
    assert "Calibration was drawn with 2 seeds, each with its own row." in said
    broken = make_record("wanda").model_copy(update={"warnings": ("made up",)})
    assert "1 record changed after it was sealed" in trust_of(broken)


def test_without_a_number_there_is_nothing_to_trust() -> None:
    assert trust_of(failed_record()) == "No number was measured."


def test_records_that_cannot_be_read_are_part_of_the_trust() -> None:
    said = answer(compare([make_record("wanda")]), n_problems=2).trust
    assert "2 records could not be read." in said
    assert (
        answer(compare([failed_record()]), 1).trust == "No number was measured. 1 record could not be read."
    )


def test_settings_of_one_model_are_told_apart_by_what_differs() -> None:
    wanda = make_record("wanda")
    assert wanda.model is not None
    other = wanda.model.model_copy(update={"weight_digest": "0123456789abcdef" * 4})
    found = told([make_record("sparsegpt", model=other), wanda])
    assert "smollm2-135m, float32, weights 01234567: 40.30" in found.which
    assert "smollm2-135m, float32, weights b179b179: 49.00" in found.which
    assert "50\u00a0% unstructured on smollm2-135m, float32, weights" in found.cost


def test_the_only_one_with_a_number_is_not_called_the_only_one_measured() -> None:
    lost = unmeasured(make_record("wanda"), "overflow")
    which = told([make_record("magnitude"), lost]).which
    assert "the only one with a perplexity (1 other has none)" in which
    assert "the only method measured" in told([make_record("magnitude")]).which


def test_the_fastest_is_named_only_among_the_same_kind_of_machine() -> None:
    elsewhere = make_record("wanda", environment=ENVIRONMENT.model_copy(update={"threads": 64}))
    best, here = make_record("sparsegpt"), make_record("barber-wanda", phases=())
    assert "fastest" not in told([best, elsewhere, here]).cost
    cost = told([best, elsewhere, make_record("magnitude")]).cost
    assert "magnitude, the fastest there, took 0.4 s" in cost


def test_a_checkpoint_costs_what_its_own_record_of_the_prune_says() -> None:
    record = make_record("wanda", phases=())
    found = told([record.model_copy(update={"checkpoint": record.model})])
    assert found.cost.endswith("wanda took 14.2 s to prune (end to end, one run).")


def test_a_single_ranking_of_a_pattern_is_named_with_its_model_and_rare_leaders_are_counted() -> None:
    methods = ("wanda", "sparsegpt", "magnitude", "barber-wanda")
    records = [make_record(kind, model_name=f"m{i}") for i, kind in enumerate(methods)]
    which = told([*records, make_record("wanda", "0.7", model_name="m9")]).which
    assert "at 70\u00a0% unstructured on m9, float32 with wanda" in which
    assert "others in 1 of 4 rankings" in which
