"""What stands on the page of everything that was measured besides perplexity and cost."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reports import compare, render_report
from suite.results.records.record import Metric, Record
from suite.results.statistics.paired import holm, mcnemar
from suite.results.statistics.single import seed_spread
from tests.reports.page_tables import PageTables
from tests.reports.synthetic import failed_record, make_record, quickstart
from tests.reports.synthetic_measured import (
    N_QUESTIONS,
    NO_KERNEL,
    TASKS,
    finished_checkpoint,
    measured_quickstart,
    measured_record,
)
from tests.reports.test_html import HOSTILE, Page

CHAPTERS = ("Divergence from dense", "Tasks", "Answers", "Size and speed", "Seeds", "Published")
CLOZE = "cloze-0shot, version 1.0, the first 200 questions"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return measured_quickstart()


@pytest.fixture(scope="module")
def source(records: list[Record]) -> str:
    return render_report(records, title="All of it")


@pytest.fixture(scope="module")
def tables(source: str) -> PageTables:
    return PageTables(source)


def titles(source: str) -> list[str]:
    return re.findall(r'<h3 id="setting-1-[a-z]+">([^<]*)</h3>', source)


def with_metrics(record: Record, *metrics: Metric) -> Record:
    """The record with these in place of those of the same name and protocol."""
    replaced = {(m.name, m.protocol) for m in metrics}
    kept = [m for m in record.metrics if (m.name, m.protocol) not in replaced]
    return record.model_copy(update={"metrics": (*kept, *metrics)})


def of(records: list[Record], method: str, pattern: str | None) -> Record:
    return next(r for r in records if (r.cell.method, r.cell.pattern) == (method, pattern))


def test_chapters_come_in_order_after_the_rankings_and_only_where_there_is_data(source: str) -> None:
    assert titles(source) == [
        *("Quality against cost", "Quality against sparsity", "Tasks", "Divergence from dense"),
        *("Layer by layer", "Answers", "Cost by phase", "Size and speed", "Seeds"),
    ]
    assert source.index('class="board"') < source.index('id="setting-1-pareto"')
    for anchor in re.findall(r'href="#(setting-1-[a-z]+)"', source):
        assert f'id="{anchor}"' in source


def test_what_was_not_measured_has_no_topic() -> None:
    page = render_report([*quickstart(), failed_record("wanda", "4:8")], title="Four ways")
    figures = ["Quality against cost", "Quality against sparsity", "Layer by layer", "Cost by phase"]
    assert titles(page) == figures
    assert not [c for c in CHAPTERS if f">{c}<" in page]
    assert '<details class="said"' not in page and "checkpoint</dt>" not in page


def test_divergence_has_value_interval_n_protocol_and_direction(
    records: list[Record], tables: PageTables
) -> None:
    headings = tables.headings("divergence from dense")
    assert headings[2] == (
        "KL(dense ‖ pruned) ↓|wiki-sample-token-s512\nnats a token\nn = 20 windows\n95 % interval\n"
        "lower is better"
    )
    assert headings[5].startswith("Top-1 agreement ↑|news-sample-token-s512")
    wanda = of(records, "wanda", "2:4")
    kl = wanda.metric("kl_divergence", "wiki-sample-token-s512")
    top1 = wanda.metric("top1_agreement", "news-sample-token-s512")
    assert kl and top1 and kl.value and top1.value and top1.low and top1.high
    row = tables.row("divergence from dense", "wanda", "2:4")
    assert row[2] == f"{kl.value:.4f}|{kl.low:.4f} to {kl.high:.4f}"
    assert row[5] == f"{100 * top1.value:.2f} %|{100 * top1.low:.2f} to {100 * top1.high:.2f}"
    # Two seeds of wanda were not held against dense, and the dense model is no row of its own.
    assert len(tables.rows("divergence from dense")) == 12


def test_a_lost_divergence_says_why() -> None:
    record = measured_record("wanda")
    lost = Metric(
        name="kl_divergence",
        protocol="wiki-sample-token-s512",
        value=None,
        n=20,
        direction="lower",
        status="not finite: 2 of 20 items",
    )
    found = PageTables(render_report([with_metrics(record, lost)], title="t"))
    assert found.row("divergence from dense", "wanda")[2] == "–|not finite: 2 of 20 items"


def test_task_scores_stand_beside_flips_and_an_adjusted_test(
    records: list[Record], tables: PageTables
) -> None:
    dense, wanda = of(records, "dense", None), of(records, "wanda", "0.5")
    acc, lost = wanda.metric("acc", "cloze-0shot"), wanda.metric("flips_right_to_wrong", "cloze-0shot")
    assert acc and lost and acc.value and acc.low and acc.high and lost.value
    assert tables.headings(CLOZE)[2].startswith("acc ↑|n = 200 questions\n95 % interval\nhigher is better")
    rows = tables.rows(CLOZE)
    assert rows[0][0] == "dense" and rows[0][6] == "the reference"
    row = tables.row(CLOZE, "wanda", "50 %")
    assert row[2] == f"{100 * acc.value:.2f} %|{100 * acc.low:.2f} to {100 * acc.high:.2f}"
    assert row[3] == "50.00 %|standard error 3.00 %"
    pairs = [(d.outcomes or "", p.outcomes or "") for d, p in zip(dense.tasks, wanda.tasks, strict=True)]
    flips = [mcnemar([int(c) for c in a], [int(c) for c in b]) for a, b in pairs]
    assert row[4].startswith(f"{flips[0].right_to_wrong}|{100 * lost.value:.2f} % (")
    assert row[5].startswith(f"{flips[0].wrong_to_right}|")
    adjusted = holm([f.p_value for f in flips])
    assert [a for a, f in zip(adjusted, flips, strict=True) if a != f.p_value]
    p = adjusted[0]
    assert p is not None
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    assert row[6] == f"{'lower' if p < 0.05 else 'no difference shown'}|{said}, {len(TASKS)} tasks"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "2.0"}, "the dense model's has version 1.0"),
        ({"limit": None}, "the dense model's has limit 200"),
        ({"tasks": ("other",)}, "the dense model was not asked this"),
    ],
)
def test_scores_of_other_questions_are_said_to_be_not_comparable(changes: dict[str, Any], why: str) -> None:
    records = [measured_record("dense"), measured_record("wanda"), measured_record("sparsegpt", **changes)]
    found = PageTables(render_report(records, title="t"))
    asked = [rows for caption, rows in found.found.items() if "Tasks, " in caption]
    assert len(asked) == 2 + len(changes.get("tasks", TASKS))
    for table in asked:
        methods = [row[0] for row in table[1:]]
        assert methods in (["dense", "wanda"], ["sparsegpt"])
        if methods == ["sparsegpt"]:
            assert table[1][6] == f"not comparable|{why}"


def test_other_items_of_one_task_have_a_table_of_their_own_and_keep_their_flips() -> None:
    record = measured_record("wanda")
    tasks = tuple(t.model_copy(update={"items_digest": "0ther" * 8}) for t in record.tasks)
    other = record.model_copy(update={"tasks": tasks})
    found = PageTables(render_report([measured_record("dense"), other], title="t"))
    row = found.row(f"{CLOZE}, acc, questions 0ther0th", "wanda")
    assert row[6] == "not comparable|the dense model's has other questions"
    lost = record.metric("flips_right_to_wrong", "cloze-0shot")
    assert lost and lost.value
    assert row[4].startswith(f"{round(lost.value * N_QUESTIONS)}|{100 * lost.value:.2f} %")


@pytest.mark.parametrize("outcomes", [None, "01", "x" * N_QUESTIONS])
def test_outcomes_that_are_none_or_damaged_are_not_tested(outcomes: str | None) -> None:
    record = measured_record("wanda")
    tasks = tuple(t.model_copy(update={"outcomes": outcomes}) for t in record.tasks)
    page = render_report([measured_record("dense"), record.model_copy(update={"tasks": tasks})], title="t")
    assert PageTables(page).row(CLOZE, "wanda")[6].startswith("not comparable|")


def test_tasks_and_answers_are_found_in_an_older_dense_record() -> None:
    older = measured_record("dense", created="2026-01-01T00:00:00Z")
    page = render_report([older, make_record("dense"), measured_record("wanda")], title="t")
    assert PageTables(page).rows(CLOZE)[0][0] == "dense"
    assert f'id="cell-{older.cell.digest[:8]}"' in page
    assert "of 1 as dense" in page


def test_what_else_was_measured_parts_no_ranking() -> None:
    plain, asked = make_record("wanda"), measured_record("wanda")
    of_task = Metric(name="perplexity", protocol="lambada_openai-0shot", value=31.0, n=100, direction="lower")
    records = [make_record("dense"), plain, with_metrics(asked, of_task), make_record("sparsegpt")]
    comparison = compare(records)
    assert [len(r.entries) for r in comparison.rankings] == [3]
    assert not [note for note in comparison.notes if note.startswith("Not comparable")]
    labels = sorted(e.label for e in comparison.rankings[0].entries)
    assert labels[1].startswith("wanda [measured=divergence and task cloze")
    assert labels[2] == "wanda [measured=perplexity alone]"


def test_sizes_have_their_ratio_to_dense(records: list[Record], tables: PageTables) -> None:
    assert tables.headings("Size and speed, size")[3].startswith("With a bitmask ↓|MiB")
    stored = of(records, "dense", None).metric("checkpoint_bytes")
    assert stored and stored.value
    mib = stored.value / 2**20
    assert tables.rows("Size and speed, size")[0][:3] == ["dense", "dense", f"{mib:.1f}|1.000 × dense"]
    assert tables.row("Size and speed, size", "wanda", "2:4")[3:] == [
        f"{0.65 * mib:.1f}|0.650 × dense",
        f"{0.66 * mib:.1f}|0.660 × dense",
    ]


def test_why_no_speed_was_measured_stands_beneath_the_sizes() -> None:
    why = "layers visited the device one by one"
    records = []
    for record in (measured_record("dense"), measured_record("wanda")):
        speeds = [m for m in record.metrics if m.name.endswith("_per_second")]
        without = [m.model_copy(update={"value": None, "status": why}) for m in speeds]
        records.append(with_metrics(record, *without).sealed())
    source = render_report(records, title="Onloaded")
    assert "Size and speed, size" in source
    assert "Size and speed, speed" not in source
    assert f"Tokens per second, dense and 50\u00a0% unstructured: {why}." in source


def test_speeds_have_protocols_and_the_reason_for_no_kernel_stands_once(
    records: list[Record], source: str, tables: PageTables
) -> None:
    headings = tables.headings("Size and speed, speed")
    assert headings[2].startswith("Prefill ↑|tokens/s, b1-p512\nn = 3 repeats")
    prefill = of(records, "wanda", "2:4").metric("prefill_tokens_per_second")
    assert prefill and prefill.value and prefill.low and prefill.high
    row = tables.row("Size and speed, speed", "wanda", "2:4")
    assert row[2] == f"{prefill.value:.1f}|{prefill.low:.1f} to {prefill.high:.1f}"
    assert tables.row("Size and speed, speed", "wanda", "50 %")[4:] == ["–", "–"]
    assert source.count(NO_KERNEL) == 1
    assert f"Sparse kernels, 50\u00a0% unstructured: {NO_KERNEL}." in source
    assert "Prune energy" not in source


def test_energy_is_a_column_where_a_machine_counted_it() -> None:
    record = measured_record("wanda")
    spent = Metric(name="prune_energy_joules", protocol="", value=1234.4, direction="lower")
    metered = record.environment.model_copy(update={"energy_meters": ("gpu", "package-0")})
    counted = with_metrics(record, spent).model_copy(update={"environment": metered})
    source = render_report([measured_record("dense"), counted, measured_record("sparsegpt")], title="t")
    found = PageTables(source)
    assert found.row("Size and speed, speed", "wanda")[-1] == "1,234|gpu + package-0"
    assert found.row("Size and speed, speed", "sparsegpt")[-1] == "–"
    assert "this machine does not count energy" in source


def test_seeds_show_their_spread_apart_from_the_error_over_items(source: str, tables: PageTables) -> None:
    spread = seed_spread([49.0, 49.0 * 1.02, 49.0 * 1.04])
    rows = tables.rows("perplexity over calibration seeds")
    assert [row[2] for row in rows] == [
        f"{c}-token-s512|n = 20 windows" for c in ("wiki-sample", "news-sample")
    ]
    numbers = [
        f"{spread.mean:.2f}",
        f"{spread.deviation:.3f}",
        f"{spread.minimum:.2f}",
        f"{spread.maximum:.2f}",
    ]
    assert rows[0][:2] == ["wanda", "50 % unstructured"]
    assert rows[0][3:] == ["3|0, 1, 2", *numbers]
    assert "Spread over calibration seeds, apart from the error over items" in source


def test_seeds_of_other_code_settings_or_samples_are_no_family() -> None:
    first = make_record("wanda")
    code = first.code.model_copy(update={"source_digest": "1" * 64})
    samples = make_record("wanda", seed=2)
    assert samples.cell.calibration is not None
    calibration = samples.cell.calibration.model_copy(update={"n_samples": 64})
    records = [
        first,
        make_record("wanda", seed=1, code=code),
        samples.model_copy(update={"cell": samples.cell.model_copy(update={"calibration": calibration})}),
    ]
    assert "Seeds" not in titles(render_report(records, title="t"))


def test_a_seed_without_perplexity_leaves_no_mean() -> None:
    records = [make_record("wanda", seed=seed) for seed in (0, 1)]
    metrics = (
        Metric(
            name="perplexity",
            protocol="wiki-sample-token-s512",
            value=None,
            direction="lower",
            status="overflow",
        ),
    )
    found = PageTables(render_report([records[0], with_metrics(records[1], *metrics)], title="t"))
    row = found.rows("perplexity over calibration seeds")[0]
    assert row[4] == "–|not finite: 1 of 2 items"


def published(**changes: Any) -> list[Record]:
    shared: dict[str, Any] = {
        "model_name": "meta-llama/Llama-2-7b-hf",
        "corpora": ("wikitext2",),
        "seqlen": 4096,
        "max_tokens": None,
    }
    shared |= changes
    return [make_record("dense", **shared), make_record("wanda", **shared)]


def test_a_published_number_stands_beside_ours_with_paper_and_evidence() -> None:
    source = render_report(published(), title="t")
    found = PageTables(source)
    row = found.row("published numbers beside ours", "wanda", "50 %")
    assert row[2] == "wikitext2-token-s4096|n = 20 windows, whole text"
    assert row[3].startswith("49.00|") and row[4] == "6.42"
    assert row[5].startswith("arXiv 2306.11695|A Simple and Effective")
    assert "ours: wiki-sample, 32 sequences of 512 tokens, seed 0" in row[6]
    assert row[7].startswith("the authors' own text")
    assert found.row("published numbers beside ours", "dense")[4] == "5.12"
    assert Page(source).scripts  # no link leads off the page: `Page` asserts it


@pytest.mark.parametrize(
    "changes", [{"seqlen": 1024}, {"max_tokens": 81_920}, {"model_name": "llama"}, {"windows": ()}]
)
def test_no_published_number_stands_beside_another_protocol_text_or_model(changes: dict[str, Any]) -> None:
    assert "Published" not in titles(render_report(published(**changes), title="t"))


@pytest.mark.parametrize("counted", [True, False])
def test_a_finished_checkpoint_is_ranked_with_a_remark(counted: bool) -> None:
    records = [
        measured_record("dense"),
        measured_record("wanda"),
        finished_checkpoint("theirs/w", counted=counted),
    ]
    comparison = compare(records)
    assert len(comparison.rankings) == 1
    entry = next(e for e in comparison.rankings[0].entries if e.record.checkpoint)
    told = "sparsity counted from zeros" if counted else "prune time as pruning.json has it"
    assert entry.remarks == ("finished checkpoint theirs/w", told)
    assert entry.label == ("checkpoint" if counted else "wanda [checkpoint=theirs/w]")
    page = Page(render_report(records, title="t")).text
    assert "finished checkpoint theirs/w" in page and "5afe" * 16 in page


def test_two_checkpoints_that_nobody_described_are_told_apart() -> None:
    records = [finished_checkpoint("a"), finished_checkpoint("b")]
    labels = [e.label for e in compare(records).rankings[0].entries]
    assert labels == ["checkpoint [checkpoint=a]", "checkpoint [checkpoint=b]"]


@pytest.mark.parametrize("kind", ["dense", "wanda"])
@pytest.mark.parametrize("lacks", ["metrics", "tasks", "answers", "divergences", "windows"])
def test_a_record_that_lacks_something_breaks_no_page(kind: str, lacks: str) -> None:
    empty: dict[str, Any] = {lacks: None if lacks == "answers" else ()}
    records = [measured_record(k) for k in ("dense", "wanda", "sparsegpt")]
    records = [r.model_copy(update=empty) if r.cell.method == kind else r for r in records]
    text = Page(render_report(records, title="t")).text
    assert "nan" not in re.sub(r"\w+nan|nan\w+", "", text.lower())
    assert "None" not in text


def test_hostile_names_of_tasks_metrics_and_checkpoints_stay_text() -> None:
    record = finished_checkpoint(HOSTILE)
    tasks = tuple(
        t.model_copy(
            update={"protocol": HOSTILE, "version": HOSTILE, "metric": HOSTILE, "items_digest": "<i>"}
        )
        for t in record.tasks[:1]
    )
    score = Metric(name=HOSTILE, protocol=HOSTILE, value=0.5, n=200, direction="higher")
    lost = Metric(
        name="sparse_prefill_tokens_per_second",
        protocol=HOSTILE,
        value=None,
        direction="higher",
        status=HOSTILE,
    )
    speed = Metric(name="prefill_tokens_per_second", protocol=HOSTILE, value=9.0, direction="higher")
    hostile = with_metrics(record, score, lost, speed).model_copy(update={"tasks": tasks})
    page = Page(render_report([measured_record("dense"), hostile], title="t"))
    assert '<script>alert("x")</script><!--{{ 7 * 7 }}\\u2028\\u2029\\u202e&"\'<b>' in page.text
    assert not [script for script in page.scripts if "alert(" in script]
    assert not {"b", "i"} & set(page.tags)
