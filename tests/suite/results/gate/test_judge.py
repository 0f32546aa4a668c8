from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from methods.errors import InputError
from suite.cell import CalibrationSpec
from suite.results.gate import MetricVerdict, Verdict, judge, load_tolerances
from suite.results.gate.tolerances import parse_tolerances
from suite.results.records.record import Record
from tests.suite.results.examples import CODE, ENVIRONMENT, OTHER_CODE, make_cell, make_failed
from tests.suite.results.gate.contestants import (
    KL,
    MODEL,
    NLL,
    REFERENCE_SPEED,
    answered,
    asked,
    costs,
    divergence,
    losses,
    record,
    shifted,
    side,
)


def verdict_on(baseline: Record, candidate: Record, **options: Any) -> Verdict:
    return judge(side(baseline), side(candidate), **options)


def metrics_of(verdict: Verdict) -> dict[str, MetricVerdict]:
    (cell,) = verdict.cells
    return {metric.name: metric for metric in cell.metrics}


def perplexity(nll: tuple[float | None, ...], baseline: Record | None = None) -> MetricVerdict:
    return metrics_of(verdict_on(baseline or record(), record(windows=(losses(nll),))))["perplexity"]


def test_a_record_is_the_same_as_itself() -> None:
    whole = record(divergences=(divergence(),), tasks=(asked("1101" * 8),))
    verdict = verdict_on(whole, whole)
    assert verdict.exit_code == 0
    assert set(verdict.counts) == {"same"}
    assert verdict.cells[0].same_masks is True


def test_beyond_the_tolerance_and_significant_is_worse() -> None:
    found = perplexity(shifted(NLL, 0.05, spread=0.01))
    assert found.outcome == "worse"
    assert found.change == pytest.approx(np.expm1(0.05))
    assert found.low is not None and found.high is not None and found.low < found.change < found.high
    assert found.p_value is not None and found.p_value < 0.01
    assert perplexity(shifted(NLL, -0.05, spread=0.01)).outcome == "better"


def test_within_the_tolerance_is_the_same_however_significant() -> None:
    found = perplexity(shifted(NLL, 0.009))
    assert (found.outcome, found.reason, found.p_value) == ("same", "", None)


def test_beyond_the_tolerance_but_not_significant_is_the_same_and_says_so() -> None:
    found = perplexity(shifted(NLL, 0.02, spread=0.5))
    assert (found.outcome, found.reason) == ("same", "beyond the tolerance, but not significant")
    assert found.p_value is not None and found.p_value > 0.05


def test_items_too_few_to_tell_anything_make_no_gate_that_cannot_fail() -> None:
    baseline = record(windows=(losses(NLL[:4]),))
    found = perplexity(shifted(NLL[:4], 0.5), baseline)
    assert (found.outcome, found.reason) == (
        "not comparable",
        "4 items are too few to tell a difference from chance",
    )
    assert perplexity(shifted(NLL[:4], 0.001), baseline).outcome == "same"


def test_all_comparisons_of_a_run_are_one_family() -> None:
    # Of 20 questions 6 are lost: p = 2 / 2^6 = 0.03 by itself.
    lost = asked("1" * 14 + "0" * 6), asked("0" * 6 + "1" * 8 + "0" * 6)
    alone = verdict_on(record(windows=(), tasks=lost[:1]), record(windows=(), tasks=lost[1:]))
    assert metrics_of(alone)["acc"].outcome == "worse"
    others = [make_cell(settings={"n": n}) for n in range(5)]
    several = judge(
        side(*(record(cell=cell, windows=(), tasks=lost[:1]) for cell in others)),
        side(*(record(cell=cell, windows=(), tasks=lost[n == 0 :][:1]) for n, cell in enumerate(others))),
    )
    found = [cell.metrics[0] for cell in several.cells]
    assert [metric.outcome for metric in found] == ["same"] * 5
    assert found[0].p_value == pytest.approx(5 * 2 / 2**6)


def test_a_strong_difference_is_found_among_hundreds_of_cells() -> None:
    cells = [make_cell(settings={"n": n}) for n in range(300)]
    worse = losses(shifted(NLL, 0.1, spread=0.01))
    verdict = judge(
        side(*(record(cell=cell) for cell in cells)),
        side(
            *(record(cell=cell, windows=(worse,) if n == 7 else (losses(),)) for n, cell in enumerate(cells))
        ),
    )
    assert [n for n, cell in enumerate(verdict.cells) if cell.outcome == "worse"] == [7]


def test_a_value_that_is_no_longer_finite_is_newly_failing() -> None:
    found = perplexity((None, *NLL[1:]))
    assert (found.outcome, found.reason) == ("newly failing", "not finite: 1 of 16 items")
    assert perplexity((800.0,) * 16).reason == "beyond the range of floats"
    broken = record(windows=(losses((None, *NLL[1:])),))
    assert perplexity(NLL, broken).outcome == "better"
    same = perplexity((None, *NLL[1:]), broken)
    assert (same.outcome, same.reason) == (
        "same",
        "not finite: 1 of 16 items; the baseline has no value either",
    )
    assert perplexity((None,) * 16, broken).outcome == "newly failing", "it was one window, now it is all"
    assert perplexity((), record(windows=(losses(()),))).outcome == "not comparable"


def test_answers_that_the_dense_model_cannot_have_given_are_newly_failing() -> None:
    likely, gone = (2.0,) * 20, (2.0,) * 6 + (None,) * 14
    verdict = verdict_on(record(answers=answered(likely)), record(answers=answered(gone)))
    found = metrics_of(verdict)["answer_dense_nll"]
    assert (found.outcome, found.reason) == ("newly failing", "not finite: 14 of 20 items")


def test_every_metric_is_held_against_its_own_tolerance() -> None:
    whole = record(divergences=(divergence(),), tasks=(asked("1101" * 8),), answers=answered((2.0,) * 20))
    built_in = load_tolerances()
    found = metrics_of(verdict_on(whole, whole))
    assert {"perplexity", "answers_as_dense", "answer_dense_nll", "acc"} <= set(found)
    for name, metric in found.items():
        expected = built_in.of("task" if name == "acc" else name, metric.protocol)
        assert metric.tolerance == expected, name
    without = parse_tolerances(b"[answers_as_dense]\nignore = true\n", file="own.toml")
    assert "answers_as_dense" not in metrics_of(verdict_on(whole, whole, tolerances=without))


def test_a_divergence_near_nothing_is_not_held_against_its_share() -> None:
    tiny = tuple(1e-7 * (1 + n) for n in range(16))
    baseline = record(divergences=(divergence(tiny),))
    candidate = record(divergences=(divergence(tuple(1.2 * kl for kl in tiny)),))
    assert metrics_of(verdict_on(baseline, candidate))["kl_divergence"].outcome == "same"


def test_what_only_the_candidate_measured_keeps_nothing_from_passing() -> None:
    verdict = verdict_on(record(), record(tasks=(asked("1101" * 8),), divergences=(divergence(),)))
    assert verdict.exit_code == 0
    assert "acc" not in metrics_of(verdict)


def test_pruning_less_is_worse_whatever_it_does_for_perplexity() -> None:
    candidate = record(metrics=costs(sparsity=0.48), windows=(losses(shifted(NLL, -0.1)),))
    verdict = verdict_on(record(), candidate)
    found = metrics_of(verdict)
    assert (found["sparsity"].outcome, found["perplexity"].outcome) == ("worse", "better")
    assert verdict.exit_code == 1


def test_a_cell_that_fails_now_is_a_regression_and_one_that_failed_before_is_none() -> None:
    assert verdict_on(record(), make_failed()).exit_code == 1
    (cell,) = verdict_on(record(), make_failed()).cells
    assert (cell.outcome, cell.reason) == (
        "newly failing",
        "failed: NonFiniteError in phase solve: layers.3.q: NaN",
    )
    assert verdict_on(make_failed(), record()).cells[0].outcome == "better"
    assert verdict_on(make_failed(), make_failed()).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        {"model": MODEL.model_copy(update={"weight_digest": "e" * 64})},
        {"environment": ENVIRONMENT.model_copy(update={"threads": 1})},
        {"windows": (losses(corpus_digest="x"),)},
        {"windows": ()},
    ],
)
def test_what_cannot_be_compared_is_neither_fine_nor_a_regression(change: dict[str, Any]) -> None:
    verdict = verdict_on(record(), record(**change))
    assert verdict.exit_code == 3
    assert verdict.cells[0].outcome == "not comparable"


def test_a_regression_is_told_even_where_something_else_could_not_be_compared() -> None:
    candidate = record(windows=(), tasks=(asked("0" * 20),))
    verdict = verdict_on(record(tasks=(asked("1" * 20),)), candidate)
    assert set(verdict.counts) >= {"worse", "not comparable"}
    assert verdict.exit_code == 1


def test_a_cell_that_is_gone_is_not_comparable_and_a_new_one_is_only_named() -> None:
    gone = make_cell(calibration=CalibrationSpec(n_samples=64))
    new = make_cell(method="magnitude", calibration=None)
    verdict = judge(side(record(), record(cell=gone)), side(record(), record(cell=new)))
    assert verdict.exit_code == 3
    assert verdict.cells[1].outcome == "not comparable"
    assert verdict.new == (new,)
    assert judge(side(record()), side(record(), record(cell=new))).exit_code == 0


def test_costs_of_another_machine_keep_nothing_from_being_compared() -> None:
    elsewhere = ENVIRONMENT.model_copy(update={"processor": "another"})
    verdict = verdict_on(record(), record(environment=elsewhere, metrics=costs(seconds=100.0)))
    found = metrics_of(verdict)["prune_seconds"]
    assert (found.outcome, found.reason) == (
        "not comparable",
        "another processor: a processor and another",
    )
    assert verdict.exit_code == 0


def test_costs_of_another_placement_are_not_compared() -> None:
    verdict = verdict_on(record(), record(placement="onload", metrics=costs(seconds=100.0)))
    found = metrics_of(verdict)["prune_seconds"]
    assert (found.outcome, found.reason) == ("not comparable", "another placement: resident and onload")
    assert verdict.exit_code == 0


def seconds(baseline: Record, candidate: Record) -> MetricVerdict:
    return metrics_of(verdict_on(baseline, candidate))["prune_seconds"]


def test_times_are_multiples_of_the_machines_own_speed() -> None:
    slow = REFERENCE_SPEED.model_copy(update={"forward_tokens_per_second": 250.0})
    fair = seconds(record(), record(reference_speed=slow, metrics=costs(seconds=41.0)))
    assert (fair.outcome, fair.candidate) == ("same", pytest.approx(10.25))
    twice = seconds(record(), record(reference_speed=slow, metrics=costs(seconds=80.0)))
    assert (twice.outcome, twice.change) == ("worse", pytest.approx(1.0))
    alone = seconds(record(reference_speed=slow), record(metrics=costs(10.0)))
    assert (alone.outcome, alone.reason) == ("same", "beyond the tolerance only by the reference speed (x 4)")
    short = seconds(record(metrics=costs(0.5)), record(metrics=costs(1.5)))
    assert short.outcome == "same", "a second more is no regression of anything"


def test_memory_is_held_against_a_wide_margin() -> None:
    assert (
        metrics_of(verdict_on(record(), record(metrics=costs(host=1.2e9))))["peak_host_bytes"].outcome
        == "same"
    )
    verdict = verdict_on(record(), record(metrics=costs(host=1.3e9)))
    assert metrics_of(verdict)["peak_host_bytes"].outcome == "worse"
    assert verdict.exit_code == 1


def test_tolerances_may_be_changed_and_metrics_left_out() -> None:
    own = parse_tolerances(b"[perplexity]\nrelative = 0.1\n[sparsity]\nignore = true\n", file="own.toml")
    candidate = record(windows=(losses(shifted(NLL, 0.05)),), metrics=costs(sparsity=0.2))
    verdict = verdict_on(record(), candidate, tolerances=own)
    assert verdict.exit_code == 0
    assert "sparsity" not in metrics_of(verdict)
    assert verdict.tolerances == "own.toml"


def test_divergence_is_judged_by_shares_of_the_baselines() -> None:
    candidate = record(divergences=(divergence(tuple(1.05 * kl for kl in KL)),))
    found = metrics_of(verdict_on(record(divergences=(divergence(),)), candidate))["kl_divergence"]
    assert (found.outcome, found.change, found.relative) == ("worse", pytest.approx(0.05), True)


def test_records_that_were_left_from_other_code_are_remarked_on() -> None:
    other = make_cell(pattern="2:4")
    mixed = side(record(code=CODE), record(cell=other, code=OTHER_CODE))
    verdict = judge(side(record(), record(cell=other)), mixed)
    assert len(verdict.remarks) == 1 and "--existing rerun-stale" in verdict.remarks[0]


def test_what_makes_a_verdict_say_less_is_remarked_on() -> None:
    newer = ENVIRONMENT.model_copy(update={"packages": {"torch": "2.14.0"}})
    tolerances = parse_tolerances(b'[perplexity.protocols."wikitxt"]\nrelative = 1\n', file="own.toml")
    verdict = verdict_on(record(), record(environment=newer), tolerances=tolerances)
    assert verdict.remarks == (
        "torch was another: 2.13.0, now 2.14.0; a change may be its own",
        "the tolerance of perplexity on 'wikitxt' is idle: no record has that protocol",
    )
    versions = [
        record(code=CODE.model_copy(update={"method_version": n}), cell=make_cell(pattern=p))
        for n, p in ((1, "0.5"), (2, "0.6"))
    ]
    assert "several versions of the code" in judge(side(*versions), side(*versions)).remarks[0]


def test_cells_may_be_paired_across_a_key() -> None:
    seeds = [make_cell(calibration=CalibrationSpec(seed=seed)) for seed in (0, 1)]
    with pytest.raises(InputError, match=r"no cell in common: .*differs in calibration\.seed: 0 and 1"):
        judge(side(record(cell=seeds[0])), side(record(cell=seeds[1])))
    paired = judge(side(record(cell=seeds[0])), side(record(cell=seeds[1])), across=["calibration.seed"])
    assert paired.exit_code == 0
    with pytest.raises(InputError, match=r"did you mean 'calibration\.seed'"):
        judge(side(record()), side(record()), across=["calibration.sed"])
    with pytest.raises(InputError, match=r"there twice but for calibration\.seed"):
        judge(side(*(record(cell=cell) for cell in seeds)), side(record()), across=["calibration.seed"])


def test_noise_of_its_own_size_raises_few_alarms() -> None:
    # Windows' losses move by chance alone, by far more than the tolerance.
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        noisy = tuple(float(nll + move) for nll, move in zip(NLL, rng.normal(0, 0.2, len(NLL)), strict=True))
        alarms += perplexity(noisy).outcome == "worse"
    # Of two-sided tests at 0.05 half are worse: 5 of 200; more than 12 has a chance of 0.4 %.
    assert alarms <= 12


def test_the_built_in_tolerances_cover_every_metric_that_is_judged() -> None:
    from suite.results.gate.costs import COSTS, COUNTS

    known = set(load_tolerances().metrics)
    assert known == {
        *COUNTS,
        *COSTS,
        *("perplexity", "kl_divergence", "top1_agreement", "task"),
        *("production_accuracy", "answer_rank", "answer_token_loss"),
        *("answer_dense_nll", "answer_repetition", "answers_as_dense"),
    }
