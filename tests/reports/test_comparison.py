"""What is put in one ranking, in which order, and what is said about the rest."""

from __future__ import annotations

import math

import pytest

from reports import ReportError, compare
from suite.results.records.record import Metric, Record
from tests.reports.synthetic import failed_record, make_record, quickstart

LABELS_BEST_FIRST = [
    "sparsegpt",
    "llm-barber (sparsegpt, layer, 0.1)",
    "llm-barber (wanda, output, 0.1)",
    "wanda",
    "llm-barber (magnitude, block, 0.1)",
    "magnitude",
]


def unmeasured(record: Record, status: str) -> Record:
    """The record with every perplexity lost for the reason `status`."""
    windows = tuple(w.model_copy(update={"nll": (None, *w.nll[1:])}) for w in record.windows)
    lost = [m.model_copy(update={"value": None, "status": status}) for m in record.metrics]
    return record.model_copy(update={"windows": windows, "metrics": tuple(lost)})


def test_a_ranking_a_pattern_with_dense_beside_it() -> None:
    comparison = compare(quickstart())
    assert [r.pattern for r in comparison.rankings] == ["0.5", "2:4"]
    for ranking in comparison.rankings:
        assert [e.label for e in ranking.entries] == LABELS_BEST_FIRST
        assert [e.rank for e in ranking.entries] == [1, 2, 3, 4, 5, 6]
        assert ranking.dense is not None and ranking.dense.rank is None
    assert comparison.notes == ()


def test_scores_carry_interval_n_and_the_paired_ratio_to_dense() -> None:
    best = compare(quickstart()).rankings[0].entries[0].scores[0]
    assert best.value == pytest.approx(40.3)
    assert best.low is not None and best.high is not None and best.low < 40.3 < best.high
    assert best.n == 20
    assert best.to_dense is not None and best.to_dense.value == pytest.approx(40.3 / 25)
    # Pairing takes out what the text decides: the ratio is far surer than the perplexity.
    assert best.to_dense.low is not None and best.to_dense.high is not None
    assert best.to_dense.high / best.to_dense.low < 1.1 < best.high / best.low


def test_marks_the_best_and_what_the_windows_cannot_tell_from_it() -> None:
    close = [make_record("barber-wanda"), make_record("wanda"), make_record("magnitude")]
    entries = compare([make_record("dense"), *close]).rankings[0].entries
    assert [e.scores[0].mark for e in entries] == ["best", "tied", ""]
    alone = compare([make_record("wanda")]).rankings[0].entries[0]
    assert alone.scores[0].mark == "only"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"dtype": "bfloat16"}, "dtype"),
        ({"n_windows": 19}, "token limit of wiki-sample-token-s512"),
        ({"corpora": ("wiki-sample",)}, "protocols"),
    ],
)
def test_what_differs_in_setting_is_never_ranked_together(
    changes: dict[str, object], difference: str
) -> None:
    comparison = compare([make_record("dense"), make_record("wanda"), make_record("sparsegpt", **changes)])
    assert [len(r.entries) for r in comparison.rankings] == [1, 1]
    said = next(note for note in comparison.notes if note.startswith("Not comparable"))
    assert difference in said
    assert any("no dense record" in note for note in comparison.notes)


def test_other_weights_and_another_corpus_are_other_settings() -> None:
    wanda = make_record("wanda")
    assert wanda.model is not None
    other_weights = make_record("sparsegpt", model=wanda.model.model_copy(update={"weight_digest": "f" * 64}))
    other_text = make_record("magnitude")
    windows = tuple(w.model_copy(update={"corpus_digest": "other"}) for w in other_text.windows)
    comparison = compare([wanda, other_weights, other_text.model_copy(update={"windows": windows})])
    assert [len(r.entries) for r in comparison.rankings] == [1, 1, 1]
    note = next(n for n in comparison.notes if n.startswith("Not comparable"))
    assert "model weights" in note and "corpus of wiki-sample-token-s512" in note


def test_a_lost_perplexity_is_unranked_and_keeps_its_reason() -> None:
    lost = unmeasured(make_record("magnitude"), "not finite")
    entries = compare([make_record("dense"), make_record("wanda"), lost]).rankings[0].entries
    assert [e.rank for e in entries] == [1, None]
    assert entries[1].scores[0].value is None
    assert "not finite" in entries[1].scores[0].status


def test_a_single_window_has_a_value_but_no_interval() -> None:
    records = [make_record(kind, n_windows=1) for kind in ("dense", "wanda", "sparsegpt")]
    score = compare(records).rankings[0].entries[0].scores[0]
    assert score.value is not None and score.low is None
    assert score.to_dense is not None and score.to_dense.low is None


def test_a_number_without_windows_is_shown_without_interval() -> None:
    metric = Metric(name="perplexity", protocol="wiki-sample-token-s512", value=30.0, n=20, direction="lower")
    record = make_record("wanda", windows=(), metrics=(metric,))
    score = compare([record]).rankings[0].entries[0].scores[0]
    assert (score.value, score.low, score.to_dense) == (30.0, None, None)


def test_the_newest_record_of_a_cell_is_shown_and_the_older_one_counted() -> None:
    old, new = make_record("wanda", created="2026-01-01T00:00:00Z"), make_record("wanda")
    comparison = compare([new, old])
    assert comparison.rankings[0].entries[0].record is new
    assert comparison.notes[0].startswith("1 record left out")


def test_a_failure_is_shown_unless_the_cell_finished_later() -> None:
    failed, done = failed_record(), make_record("sparsegpt", "2:4")
    later = done.model_copy(update={"created": "2026-02-01T00:00:00Z"})
    assert compare([done, failed.model_copy(update={"created": "2026-02-01T00:00:00Z"})]).failed
    assert not compare([failed, later]).failed


def test_rows_that_read_the_same_are_told_apart_by_what_differs() -> None:
    records = [make_record("sparsegpt", settings={"block_size": size}) for size in (64, 128)]
    labels = {e.label for e in compare(records).rankings[0].entries}
    assert labels == {"sparsegpt [block_size=64]", "sparsegpt [block_size=128]"}


def test_other_code_an_altered_record_and_warnings_are_remarked() -> None:
    old = make_record("wanda", created="2026-01-01T00:00:00Z", warnings=("slow",))
    old = old.model_copy(update={"code": old.code.model_copy(update={"source_digest": "0" * 64})})
    entry = compare([old, make_record("sparsegpt")]).rankings[0].entries[1]
    assert [remark.split(":")[0] for remark in entry.remarks] == [
        "made by other code than the newest row",
        "changed after it was sealed",
        "1 warning",
    ]


def test_several_machines_in_one_ranking_are_said() -> None:
    wanda = make_record("wanda")
    threads = wanda.environment.model_copy(update={"threads": 8})
    notes = compare([make_record("sparsegpt"), make_record("wanda", environment=threads)]).notes
    assert any("2 kinds of machine" in note for note in notes)


def test_no_records_is_an_error_in_one_line() -> None:
    with pytest.raises(ReportError, match="no records to report"):
        compare([])


def test_ranks_follow_perplexity_whatever_the_order_of_records() -> None:
    values = [e.scores[0].value or math.nan for e in compare(quickstart()[::-1]).rankings[0].entries]
    assert values == sorted(values)


def test_dense_records_that_add_nothing_are_counted() -> None:
    older = make_record("dense", created="2025-01-01T00:00:00Z")
    cell = older.cell.model_copy(update={"threads": 2})
    comparison = compare(
        [older.model_copy(update={"cell": cell}), make_record("dense"), make_record("wanda")]
    )
    assert any(note.startswith("1 dense record left out") for note in comparison.notes)
