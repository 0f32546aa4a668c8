"""Damage and contradictions: what is found in a record, its side file and a tree, and what is not."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from suite.cell import SpeedSpec, TaskSpec
from suite.results.records.items import AnswerSet
from suite.results.records.reading import parse_record, record_bytes
from suite.results.records.record import Failure, Metric, RecipePart, Record, SideFile, body_digest
from suite.results.records.store import ResultStore
from suite.results.statistics.perplexity import perplexity_from_nll
from suite.results.statistics.single import Estimate, mean_share, mean_stderr
from suite.results.verification import (
    CHECKS,
    CheckedRecord,
    Verification,
    check_bytes,
    verify,
    verify_content,
)
from suite.storage.leftovers import temporary_name
from tests.suite.results.consistent import (
    CODE,
    RIGHT,
    TASK,
    cell,
    cherry_picked,
    dense_cell,
    dense_record,
    metric,
    pruned_record,
    rows,
    with_metric,
)
from tests.suite.results.examples import ENVIRONMENT


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def stored(record: Record, frame: pd.DataFrame | None = None) -> tuple[Path, bytes, bytes]:
    """A record's path, its file and its side file, sealed whatever it says."""
    frame = rows(record) if frame is None else frame
    data = parquet(frame)
    stem = record.cell.stem
    side_file = SideFile(
        name=f"{stem}.0.samples.parquet", sha256=hashlib.sha256(data).hexdigest(), rows=len(frame)
    )
    path = Path("results") / record.cell.folder / f"{stem}.json"
    return path, record_bytes(record.model_copy(update={"side_file": side_file}).sealed()), data


def checked(record: Record, frame: pd.DataFrame | None = None) -> CheckedRecord:
    path, data, side_file = stored(record, frame)
    return verify_content(check_bytes(path, data), side_file, dense=(dense_record(),))


def fired(found: CheckedRecord | Verification, level: str = "problem") -> set[str]:
    findings = found.findings if isinstance(found, CheckedRecord) else found.all_findings
    return {finding.check for finding in findings if finding.level == level}


def put(record: Record, root: Path) -> Path:
    return ResultStore(root).write(record, rows(record))


def test_a_consistent_record_passes_every_check_without_a_remark() -> None:
    for record in (pruned_record(), dense_record()):
        found = checked(record)
        assert found.findings == () and found.is_consistent
    alone = {"twice", "weights", "texts", "leftover", "checkpoint", "mask", "rerun"}
    assert set(checked(pruned_record()).checks) == set(CHECKS) - alone


def bit_flips(data: bytes) -> list[tuple[int, int]]:
    """Every position with each of its bits turned, and at every 41st position every other byte."""
    flips = [(at, byte ^ (1 << bit)) for at, byte in enumerate(data) for bit in range(8)]
    sample = range(random.Random(0).randrange(41), len(data), 41)
    return flips + [(at, value) for at in sample for value in range(256) if value != data[at]]


@pytest.mark.slow
def test_every_changed_byte_of_a_record_is_caught_or_changes_nothing() -> None:
    path, data, side_file = stored(pruned_record())
    whole = parse_record(data)
    harmless = 0
    for at, value in bit_flips(data):
        damaged = bytearray(data)
        damaged[at] = value
        read = check_bytes(path, bytes(damaged))
        if read.findings:
            continue
        assert read.record == whole, f"byte {at} became {value}"
        # The seventeenth digit of a number may change and still spell the same double.
        assert data[at] in b" \n" or value in b"0123456789eE", f"byte {at} became {value}"
        harmless += 1
    assert harmless > 0, "whitespace is harmless"
    assert verify_content(check_bytes(path, data), side_file).is_consistent


def test_every_changed_byte_of_a_side_file_is_caught() -> None:
    path, data, side_file = stored(pruned_record())
    read = check_bytes(path, data)
    for at, value in bit_flips(side_file):
        damaged = bytearray(side_file)
        damaged[at] = value
        assert side_file_is_refused(read, bytes(damaged)), f"byte {at} became {value}"


def test_every_truncation_of_either_file_is_caught() -> None:
    path, data, side_file = stored(pruned_record())
    for length in range(len(data)):
        assert check_bytes(path, data[:length]).findings, f"cut to {length} bytes"
    read = check_bytes(path, data)
    for length in range(len(side_file)):
        assert side_file_is_refused(read, side_file[:length]), f"cut to {length} bytes"


def side_file_is_refused(read: Any, data: bytes) -> bool:
    from suite.results.verification.checked_record import Subject
    from suite.results.verification.side_file import read_side_file

    items, findings = read_side_file(Subject(read.path, read.record), data)
    return items is None and [finding.check for finding in findings] == ["side-file"]


def windows(**changes: Any) -> Callable[[Record], Record]:
    return lambda r: r.model_copy(update={"windows": (r.windows[0].model_copy(update=changes),)})


def of_task(**changes: Any) -> Callable[[Record], Record]:
    return lambda r: r.model_copy(update={"tasks": (r.tasks[0].model_copy(update=changes),)})


def of_right(**changes: Any) -> Callable[[Record], Record]:
    return of_task(right_answers=RIGHT.model_copy(update=changes))


def of_module(**changes: Any) -> Callable[[Record], Record]:
    return lambda r: r.model_copy(
        update={"modules": (r.modules[0].model_copy(update=changes), *r.modules[1:])}
    )


def of_answer(**changes: Any) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        given = record.answers
        assert isinstance(given, AnswerSet)
        answers = (given.answers[0].model_copy(update=changes), *given.answers[1:])
        return record.model_copy(update={"answers": given.model_copy(update={"answers": answers})})

    return change


def of_metric(name: str, **changes: Any) -> Callable[[Record], Record]:
    return lambda r: with_metric(r, name, **changes)


def of(field: str, **changes: Any) -> Callable[[Record], Record]:
    return lambda r: r.model_copy(update={field: getattr(r, field).model_copy(update=changes)})


def other(**changes: Any) -> Callable[[Record], Record]:
    return lambda r: r.model_copy(update=changes)


def without(name: str) -> Callable[[Record], Record]:
    return lambda r: r.model_copy(update={"metrics": tuple(m for m in r.metrics if m.name != name)})


def plus(name: str, protocol: str, *values: float, direction: str = "lower") -> Callable[[Record], Record]:
    """The record with one more metric, the mean of some values with all that belongs to it."""
    more = metric(name, protocol, mean_stderr(values), direction)
    return lambda r: r.model_copy(update={"metrics": (*r.metrics, more)})


def without_divergences(record: Record) -> Record:
    return record.model_copy(update={"divergences": (), "cell": cell(divergence=False)})


def without_answers(record: Record) -> Record:
    return record.model_copy(update={"answers": None, "cell": cell(answers=None)})


MUTATIONS: dict[str, tuple[Callable[[Record], Record], str]] = {
    "perplexity": (of_metric("perplexity", value=29.0), "perplexity"),
    "its error": (of_metric("perplexity", stderr=0.5), "perplexity"),
    "its lower end": (of_metric("perplexity", low=11.0), "perplexity"),
    "its upper end": (of_metric("perplexity", high=400.0), "perplexity"),
    "its missing interval": (of_metric("perplexity", low=None, high=None), "perplexity"),
    "its n": (of_metric("perplexity", n=5), "perplexity"),
    "its direction": (of_metric("perplexity", direction="higher"), "perplexity"),
    "no perplexity": (without("perplexity"), "perplexity"),
    "divergence": (of_metric("kl_divergence", value=0.3), "divergence"),
    "agreement": (of_metric("top1_agreement", value=0.79), "divergence"),
    "accuracy": (of_metric("acc", value=5 / 6), "tasks"),
    "no accuracy": (without("acc"), "tasks"),
    "its error, as lm-eval does not": (of_metric("acc", stderr=0.1), "tasks"),
    "a graded score's end": (of_metric("graded", low=0.1), "tasks"),
    "a task's protocol": (of_task(num_fewshot=1), "tasks"),
    "answers produced": (of_metric("production_accuracy", value=0.5), "production"),
    "no answers produced": (without("production_accuracy"), "production"),
    "a mean rank": (of_metric("answer_rank", value=9.0), "production"),
    "a mean loss": (of_metric("answer_token_loss", low=0.0), "production"),
    "a rank of 0": (of_right(ranks=(0, 12, 7, 1, 300, 2)), "production"),
    "a produced answer that is not the likeliest": (of_right(ranks=(3, 12, 7, 1, 300, 2)), "production"),
    "a loss below 0": (of_right(losses=(-0.1, 2.5, 3.0, 0.25, 7.5, 1.0)), "production"),
    "fewer right answers than questions": (of_right(produced="10010"), "production"),
    "lost answers": (of_metric("flips_right_to_wrong", value=0.3), "flips"),
    "gained answers": (of_metric("flips_wrong_to_right", n=7), "flips"),
    "half the flips": (without("flips_wrong_to_right"), "flips"),
    "answer lengths": (of_metric("answer_tokens", value=3.1), "answers"),
    "answers as dense": (of_metric("answers_as_dense", value=1.0, high=1.0), "answers"),
    "answers that ended": (of_metric("answers_ended", value=0.7), "answers"),
    "no answers that ended": (without("answers_ended"), "answers"),
    "an answer too long": (of_answer(n_tokens=5), "answers"),
    "an answer that parts behind its end": (of_answer(parted_at=3), "answers"),
    "sparsity": (of_metric("sparsity", value=0.51), "sparsity"),
    "a module's size": (of_module(n_weights=33), "sparsity"),
    "more pruned than there is": (of_module(n_pruned=33), "sparsity"),
    "bitmask": (of_metric("bitmask_bytes", value=300), "size"),
    "packed": (of_metric("packed_bytes", value=311), "size"),
    "no packed": (without("packed_bytes"), "size"),
    "prune seconds": (of_metric("prune_seconds", value=1.25), "cost"),
    "peak": (of_metric("peak_host_bytes", value=10**5), "cost"),
    "another model": (of("model", name="org/other"), "cell"),
    "another dtype": (of("model", dtype="bfloat16"), "cell"),
    "another calibration": (of("calibration", n_samples=5), "cell"),
    "another seed": (of("calibration", seed=2), "cell"),
    "a digest that is none": (other(mask_digest="e"), "cell"),
    "no masks": (other(mask_digest=None), "cell"),
    "parts of another method": (other(parts=(RecipePart(role="score", text="ria(group=output)"),)), "cell"),
    "an allocation that the cell has not": (
        other(
            parts=tuple(RecipePart(role=r, text=t) for r, t in (("allocation", "owl"), ("score", "wanda")))
        ),
        "cell",
    ),
    "another limit": (windows(limit=64), "cell"),
    "a local time": (other(created="2025-01-01T00:00:00+01:00"), "created"),
    "no time": (other(created="yesterday"), "created"),
    "a number nobody asked for": (
        lambda r: r.model_copy(
            update={
                "metrics": (
                    *r.metrics,
                    metric("prefill_tokens_per_second", "b1-p8", perplexity_from_nll([1.0, 1.5]), "higher"),
                )
            }
        ),
        "metrics",
    ),
    "the perplexity of no text": (plus("perplexity", "wikitext2-token-s2048", 5.0, 5.2), "metrics"),
    "perplexity of a task": (plus("perplexity", TASK, 5.0, 5.2), "tasks"),
    "a sparsity beside its own": (plus("sparsity", "zeros", 0.9, direction="none"), "metrics"),
    "a sparsity of a task": (plus("sparsity", TASK, 0.9, direction="none"), "metrics"),
    "answers to other prompts": (plus("answers_as_dense", "mine-greedy4", 0.9, 1.0), "metrics"),
    "answers of another length": (plus("answers_as_dense", "built-in-greedy5", 0.9, 1.0), "metrics"),
    "answers to a task": (plus("answer_dense_nll", TASK, 0.1, 0.2), "metrics"),
    "metrics of answers that are not there": (without_answers, "metrics"),
    "divergence that is not there": (without_divergences, "items and metrics"),
    "divergence on a task": (plus("kl_divergence", TASK, 0.1, 0.2), "metrics"),
    "flips of no task": (plus("flips_right_to_wrong", "other-0shot", 0.1, 0.2), "metrics"),
    "prune time of another protocol": (plus("prune_seconds", "x", 0.1), "metrics"),
    "prune time of a checkpoint": (plus("prune_seconds", "pruning.json", 0.1), "metrics"),
    "the cost of a prune without its phase": (other(phases=()), "metrics"),
    "an own prune time without shared work": (plus("own_prune_seconds", "", 0.1), "metrics"),
    "bytes in another dtype": (plus("checkpoint_bytes", "bfloat16", 200), "metrics"),
    "a score of no task": (plus("acc", "boolq-0shot", 0.8, 0.9, direction="higher"), "metrics"),
    "a score that is unknown": (plus("quality", "", 0.8, 0.9, direction="higher"), "metrics"),
    "a score without items": (plus("acc_norm", TASK, 0.8, 0.9, direction="higher"), "tasks"),
    "a graded score": (of_metric("graded", value=0.99), "tasks"),
    "a graded score's error": (of_metric("graded", value=0.99, low=None, high=None), "tasks"),
    "outcomes that are none": (of_task(outcomes="10111x"), "items and tasks"),
    "more questions than there are": (of_task(n=10**12), "items and tasks and production"),
    "flips beyond all bounds": (of_metric("flips_right_to_wrong", value=1e308, high=None), "flips"),
    "a number beyond all bounds": (of_answer(n_tokens=10**400, parted_at=None), "answers"),
    "a module of no shape": (of_module(shape=()), "sparsity"),
    "a module without weights": (of_module(shape=(0, 8), n_weights=0, n_pruned=0), "file"),
    "a number twice": (lambda r: r.model_copy(update={"metrics": (*r.metrics, r.metrics[0])}), "metrics"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_changed_number_under_a_new_seal_fires_its_check_and_no_other(name: str) -> None:
    change, check = MUTATIONS[name]
    record = pruned_record()
    found = checked(change(record), rows(record))
    assert fired(found) == set(check.split(" and ")), [str(finding) for finding in found.findings]
    assert all("\n" not in str(finding) for finding in found.findings)


def of_repetition(shares: tuple[float, ...], estimate: Estimate) -> Record:
    """The record with other repetitions, and what was formed of them."""
    record = pruned_record()
    assert record.answers is not None
    answers = tuple(
        answer.model_copy(update={"repetition": share})
        for answer, share in zip(record.answers.answers, shares, strict=True)
    )
    record = record.model_copy(update={"answers": record.answers.model_copy(update={"answers": answers})})
    numbers = {name: getattr(estimate, name) for name in ("value", "stderr", "low", "high", "n")}
    return with_metric(record, "answer_repetition", **numbers)


def test_intervals_of_shares_that_leave_them_were_formed_by_earlier_versions() -> None:
    (divergence,) = pruned_record().divergences
    reaching, cut = mean_stderr(divergence.agreement), mean_share(divergence.agreement)
    assert reaching.low is not None and reaching.high is not None and reaching.high > 1 == cut.high
    ends = (("low", reaching.low), ("high", reaching.high))
    assert checked(with_metric(pruned_record(), "top1_agreement", **dict(ends))).findings == ()
    for wrong in ({"high": 1.2}, {"high": reaching.high, "value": 0.7}, {"high": None}):
        assert fired(checked(with_metric(pruned_record(), "top1_agreement", **wrong))) == {"divergence"}
    shares = (0.0, 0.0, 0.25)
    reaching, cut = mean_stderr(shares), mean_share(shares)
    assert reaching.low is not None and reaching.low < 0 == cut.low
    for estimate in (reaching, cut):
        assert checked(of_repetition(shares, estimate)).findings == ()
    assert fired(checked(of_repetition(shares, replace(cut, low=-1.0)))) == {"answers"}


def test_shares_that_are_none_are_told_and_nothing_is_formed_of_them() -> None:
    (divergence,) = pruned_record().divergences
    beyond = divergence.model_copy(update={"agreement": (0.75, 0.5, 1.0, 1.875)})
    record = pruned_record().model_copy(update={"divergences": (beyond,)})
    assert fired(checked(record, rows(record))) == {"divergence"}
    assert fired(checked(of_repetition((0.0, -0.5, 0.5), mean_stderr((0.0, -0.5, 0.5))))) == {"answers"}


def of_a_group(*more: Metric) -> Record:
    """The record of a cell that asked `all`, a group whose one task is `mine`, with a group in it."""
    record = pruned_record(cell=cell(tasks=(TaskSpec(name="all", limit=6),)))
    return record.model_copy(update={"metrics": (*record.metrics, *more)})


def score(protocol: str, **changes: Any) -> Metric:
    fields: dict[str, Any] = {"name": "acc", "value": 4 / 6, "stderr": 0.2, "n": 6, "direction": "higher"}
    return Metric(protocol=protocol, **{**fields, **changes})


def test_a_group_has_the_scores_that_its_tasks_allow() -> None:
    found = checked(of_a_group(score("part_of_all-0shot"), score("all-0shot")))
    assert fired(found) == set(), [str(finding) for finding in found.findings]
    assert fired(found, "remark") == {"cell", "metrics"}


@pytest.mark.parametrize(
    "wrong",
    [
        score("all-0shot", value=0.9),
        score("all-0shot", n=7),
        score("all-0shot", low=0.5, high=0.8),
        score("all-5shot"),
        score("all"),
        score("mine-5shot"),
        score("all-0shot", name="acc_norm"),
        score("all-0shot", name="perplexity"),
        score("all-0shot", name="sparsity"),
        score("all-0shot", name="answers_as_dense"),
        score("wikitext2-token-s2048", name="perplexity"),
    ],
    ids=str,
)
def test_a_score_that_no_group_can_have_is_told(wrong: Metric) -> None:
    assert fired(checked(of_a_group(wrong))) == {"metrics"}


def test_tokens_per_second_are_of_what_the_cell_asks_for() -> None:
    asked = cell(speed=SpeedSpec(prompt_tokens=8, new_tokens=4))

    def with_speed(name: str, protocol: str, **changes: Any) -> set[str]:
        rate = Metric(**{"name": name, "protocol": protocol, "value": 9.0, "direction": "higher", **changes})
        record = pruned_record(cell=asked)
        return fired(checked(record.model_copy(update={"metrics": (*record.metrics, rate)})))

    for kernel in ("", "sparse_"):
        assert with_speed(f"{kernel}prefill_tokens_per_second", "b1-p8") == set()
        assert with_speed(f"{kernel}generation_tokens_per_second", "b1-p8-g4") == set()
    assert with_speed("prefill_tokens_per_second", "b1-p8-g4") == {"metrics"}
    assert with_speed("generation_tokens_per_second", "b1-p16-g4") == {"metrics"}
    assert with_speed("prefill_tokens_per_second", "b1-p8", direction="lower") == {"metrics"}


def test_windows_that_were_left_out_are_told(tmp_path: Path) -> None:
    picked = cherry_picked(pruned_record())
    found = checked(picked)
    assert fired(found) == set(), "its digest is only a claim"
    (remark,) = found.findings
    assert remark.check == "cell" and "has 2 windows, and its limit allows 4" in remark.message
    put(dense_record(), tmp_path)
    put(picked, tmp_path)
    assert fired(verify([tmp_path])) == {"texts"}, "all four have the digest, in another record"


def test_a_module_pruned_beyond_its_pattern_is_told_though_all_else_follows() -> None:
    record = pruned_record()
    modules = (record.modules[0].model_copy(update={"n_pruned": 17}), record.modules[1])
    record = record.model_copy(update={"modules": modules})
    record = with_metric(record, "sparsity", value=25 / 48)
    record = with_metric(record, "bitmask_bytes", value=400 - 100 + 6)
    record = with_metric(record, "packed_bytes", value=400 - 100 + 4 + 2)
    assert fired(checked(record)) == {"sparsity"}


@pytest.mark.parametrize(
    ("changes", "n_pruned", "passes"),
    [
        ({"pattern": "0.5"}, 16, True),
        ({"pattern": "0.3"}, 8, True),  # floor(0.3 * 8) = 2 of each of 4 rows
        ({"pattern": "0.3"}, 9, True),  # floor(0.3 * 32)
        ({"pattern": "0.3"}, 10, False),
        ({"pattern": "0.3"}, 1, False),
        ({"pattern": "0.3", "settings": {"initial": "wanda", "granularity": "block"}}, 10, True),
        ({"pattern": "0.9"}, 16, False),
        ({"pattern": "half"}, 16, False),
    ],
)
def test_an_unstructured_pattern_holds_up_to_rounding_in_its_groups(
    changes: dict[str, Any], n_pruned: int, passes: bool
) -> None:
    record = pruned_record()
    share = {"0.5": 8, "0.3": 4, "0.9": 14}.get(changes["pattern"], 8)
    modules = (
        record.modules[0].model_copy(update={"n_pruned": n_pruned}),
        record.modules[1].model_copy(update={"n_pruned": share}),
    )
    gone = n_pruned + share
    record = record.model_copy(update={"cell": cell(**changes), "modules": modules})
    record = with_metric(record, "sparsity", value=gone / 48)
    record = with_metric(record, "bitmask_bytes", value=400 - 4 * gone + 6)
    record = with_metric(record, "packed_bytes", value=None, status="no N:M pattern")
    assert fired(checked(record)) == (set() if passes else {"sparsity"})


def edited(at: int, **changes: Any) -> pd.DataFrame:
    frame = rows(pruned_record())
    for column, value in changes.items():
        frame.loc[at, column] = value
    return frame


FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "a loss": lambda: edited(1, value=3.3),
    "no loss": lambda: edited(1, value=None),
    "tokens": lambda: edited(0, n_tokens=8),
    "a window's digest": lambda: edited(5, item_digest="other"),
    "a question's hash": lambda: edited(12, prompt_hash="other"),
    "an outcome": lambda: edited(12, value=0.0),
    "a protocol": lambda: edited(0, protocol="elsewhere"),
    "a row less": lambda: rows(pruned_record()).iloc[1:],
    "a row twice": lambda: pd.concat([rows(pruned_record()), rows(pruned_record()).iloc[-1:]]),
    "windows swapped": lambda: rows(pruned_record()).iloc[[1, 0, *range(2, 24)]],
}


@pytest.mark.parametrize("name", FRAMES)
def test_rows_that_are_not_the_records_are_told(name: str) -> None:
    found = checked(pruned_record(), FRAMES[name]())
    assert "items" in fired(found), [str(finding) for finding in found.findings]
    assert fired(found) <= {"items", "tasks"}


def test_a_table_of_another_form_is_told() -> None:
    frame = rows(pruned_record())
    for wrong in (frame.drop(columns="value"), frame.astype({"item": "str"}), frame.assign(more=1)):
        assert fired(checked(pruned_record(), wrong)) == {"side-file"}
    path, data, _ = stored(pruned_record())
    for content in (None, b""):
        assert fired(verify_content(check_bytes(path, data), content)) == {"side-file"}
    nothing = hashlib.sha256(b"no parquet").hexdigest()
    record = parse_record(data)
    assert record.side_file is not None
    forged = record.side_file.model_copy(update={"sha256": nothing})
    data = record_bytes(record.model_copy(update={"side_file": forged}).sealed())
    assert fired(verify_content(check_bytes(path, data), b"no parquet")) == {"side-file"}
    bare = record_bytes(pruned_record().sealed())
    assert fired(verify_content(check_bytes(path, bare), None)) == {"side-file"}


def sealed_with(record: Record, content: bytes, root: Path, *, n_rows: int = 24) -> Path:
    """Writes a record with a side file that has its digest, whatever is in it."""
    path = put(record, root)
    named = parse_record(path.read_bytes()).side_file
    assert named is not None
    path.with_name(named.name).write_bytes(content)
    named = named.model_copy(update={"sha256": hashlib.sha256(content).hexdigest(), "rows": n_rows})
    path.write_bytes(record_bytes(record.model_copy(update={"side_file": named}).sealed()))
    return path


def no_utf8() -> bytes:
    """A table whose text is none, as only a program writes it that does not look."""
    frame = rows(pruned_record())
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    broken = pa.array([b"\xff"] * len(frame), pa.binary()).view(pa.string())
    buffer = io.BytesIO()
    pq.write_table(whole.set_column(0, "protocol", broken), buffer)
    return buffer.getvalue()


TABLES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no parquet": lambda: b"no parquet\nat all",
    "cut short": lambda: parquet(rows(pruned_record()))[:-9],
    "other columns": lambda: parquet(rows(pruned_record()).drop(columns="metric")),
    "text that is no UTF-8": no_utf8,
}


@pytest.mark.parametrize("name", TABLES)
def test_an_intact_side_file_that_is_no_table_is_one_line(name: str, tmp_path: Path) -> None:
    content = TABLES[name]()
    for of_dense in (False, True):
        root = tmp_path / str(of_dense)
        put(dense_record(), root)
        put(pruned_record(), root)
        broken = sealed_with(dense_record() if of_dense else pruned_record(), content, root)
        found = verify([root])
        problems = [finding for finding in found.all_findings if finding.level == "problem"]
        assert [(problem.path, problem.check) for problem in problems] == [(broken, "side-file")]
        assert str(problems[0]).isprintable()
        if of_dense:  # flips are counted by what the dense record says, and not by its side file
            (pruned,) = root.rglob("wanda--*.json")
            assert verify([pruned]).all_findings == ()


def test_a_folder_in_place_of_a_side_file_is_one_line(tmp_path: Path) -> None:
    path = put(pruned_record(), tmp_path)
    (side_file,) = path.parent.glob("*.parquet")
    side_file.unlink()
    side_file.mkdir()
    assert fired(verify([tmp_path])) == {"side-file"}


def test_copies_for_mlflow_are_no_records_of_the_tree(tmp_path: Path) -> None:
    path = put(dense_record(), tmp_path)
    copy = tmp_path / "mlflow-artifacts" / "0a1b" / "artifacts" / path.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    assert [record.path for record in verify([tmp_path]).records] == [path]
    assert [record.path for record in verify([copy]).records] == [copy], "unless one is named"


def test_flips_are_counted_against_the_dense_record_beside() -> None:
    record = pruned_record()
    dense = dense_record()
    path, data, side_file = stored(record)
    other_answers = dense.tasks[0].model_copy(update={"outcomes": "011110"})

    def against(*dense: Record) -> CheckedRecord:
        return verify_content(check_bytes(path, data), side_file, dense=dense)

    assert against(dense).findings == ()
    changed = dense.model_copy(update={"tasks": (other_answers,)})
    assert fired(against(changed, dense)) == set(), "one dense record that fits is enough"
    assert fired(against()) == set() and fired(against(), "remark") == {"flips"}
    # 011110 has as many flips of either kind: right in the first question only once less.
    two = dense.model_copy(update={"tasks": (other_answers.model_copy(update={"outcomes": "111111"}),)})
    assert fired(against(two)) == {"flips"}
    elsewhere = two.model_copy(
        update={"environment": ENVIRONMENT.model_copy(update={"processor": "another"})}
    )
    assert fired(against(elsewhere)) == set() and fired(against(elsewhere), "remark") == {"flips"}


def test_a_consistent_fabrication_is_not_found() -> None:
    honest = pruned_record()
    nll = tuple((value or 0) - 0.5 for value in honest.windows[0].nll)
    forged = windows(nll=nll)(honest)
    estimate = perplexity_from_nll(nll)
    numbers = {field: getattr(estimate, field) for field in ("value", "stderr", "low", "high")}
    assert fired(checked(with_metric(forged, "perplexity", **numbers))) == set()
    assert fired(checked(forged)) == {"perplexity"}, "half a fabrication is"


def test_what_a_reader_should_know_is_remarked(tmp_path: Path) -> None:
    unclean = pruned_record(code=CODE.model_copy(update={"git_clean": False}))
    unknown = pruned_record(code=CODE.model_copy(update={"git_commit": None, "git_clean": None}))
    ahead = pruned_record(created="2999-01-01T00:00:00+00:00")
    for record, check in ((unclean, "code"), (unknown, "code"), (ahead, "created")):
        assert fired(checked(record)) == set()
        assert fired(checked(record), "remark") == {check}
    put(dense_record(), tmp_path)
    path = put(pruned_record(), tmp_path)
    for present, said in (
        (CODE, False),
        (CODE.model_copy(update={"source_digest": "0" * 64}), True),
        (None, True),
    ):
        found = verify([path], present=lambda _, present=present: present)  # type: ignore[misc]
        assert fired(found) == set() and fired(found, "remark") == ({"code"} if said else set())


def test_a_failed_record_has_no_numbers(tmp_path: Path) -> None:
    failure = Failure(phase="prune", error="E", message="m", traceback="t")
    nothing: dict[str, Any] = dict.fromkeys(("metrics", "windows", "divergences", "tasks", "modules"), ())
    failed = pruned_record(status="failed", failure=failure, mask_digest=None, answers=None, **nothing)
    ResultStore(tmp_path).write(failed)
    found = verify([tmp_path])
    assert not found.all_findings and len(found.records) == 1
    ResultStore(tmp_path).write(failed.model_copy(update={"metrics": pruned_record().metrics}))
    assert "cell" in fired(verify([tmp_path]))


def test_a_tree_is_verified_whole(tmp_path: Path) -> None:
    root = tmp_path / "results" / "suite"
    dense, pruned = put(dense_record(), root), put(pruned_record(), root)
    found = verify([tmp_path / "results"])
    assert [record.path for record in found.records] == sorted([dense, pruned])
    assert found.all_findings == ()
    assert verify([tmp_path / "results", pruned]).records == found.records, "once, however often it is named"
    assert verify([pruned]).all_findings == (), "a dense record beside it is found"


def test_a_record_out_of_its_place_is_told(tmp_path: Path) -> None:
    path = put(pruned_record(), tmp_path)
    moved = path.with_name("wanda--2of4--00000000.json")
    path.rename(moved)
    assert fired(verify([moved])) == {"name"}
    moved.rename(path)
    folder = path.parent.rename(tmp_path / "elsewhere")
    assert fired(verify([folder])) == {"name"}


def test_what_lies_about_in_a_tree_is_remarked(tmp_path: Path) -> None:
    folder = put(pruned_record(), tmp_path).parent
    for name in ("wanda--2of4--0.1.samples.parquet", temporary_name(), "notes.txt"):
        (folder / name).write_bytes(b"x")
    found = verify([tmp_path])
    assert fired(found) == set()
    assert sum(finding.check == "leftover" for finding in found.findings) == 3


def test_two_records_of_one_cell(tmp_path: Path) -> None:
    put(dense_record(), tmp_path / "a")
    put(dense_record(), tmp_path / "b")
    found = verify([tmp_path])
    assert fired(found) == set() and fired(found, "remark") == {"twice"}
    forged = windows(nll=(2.0, 2.25, 1.5, 2.5))(dense_record())
    estimate = perplexity_from_nll(forged.windows[0].nll)
    numbers = {field: getattr(estimate, field) for field in ("value", "stderr", "low", "high")}
    put(with_metric(forged, "perplexity", **numbers), tmp_path / "b")
    assert fired(verify([tmp_path])) == {"twice"}
    # Another machine may find other numbers.
    elsewhere = ENVIRONMENT.model_copy(update={"threads": 9})
    put(
        with_metric(forged, "perplexity", **numbers).model_copy(update={"environment": elsewhere}),
        tmp_path / "b",
    )
    assert fired(verify([tmp_path])) == set()


def test_records_of_other_weights_or_tokens_in_one_tree(tmp_path: Path) -> None:
    put(dense_record(), tmp_path)
    put(of("model", weight_digest="4" * 64)(pruned_record()), tmp_path)
    assert fired(verify([tmp_path])) == {"weights"}
    put(windows(corpus_digest="5" * 64)(pruned_record()), tmp_path)
    assert fired(verify([tmp_path])) == {"texts"}


def test_unreadable_files_are_told_and_keep_their_side_files(tmp_path: Path) -> None:
    path = put(pruned_record(), tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert fired(verify([tmp_path])) == {"file"}
    path.write_bytes(path.read_bytes()[:-9])
    found = verify([tmp_path])
    assert [str(finding) for finding in found.all_findings if finding.check == "leftover"] == []
    assert fired(found) == {"file"} and found.records[0].record is None


def test_no_text_of_a_record_reaches_the_terminal_as_it_stands() -> None:
    record = with_metric(pruned_record(), "perplexity", status="ok\n\x1b[31mverified")
    for finding in checked(record).findings:
        assert str(finding).isprintable()


def test_a_record_may_lack_what_joined_after_its_schema() -> None:
    """One that schema 5 wrote, before `answers_ended`; the same without another metric is found out."""
    (older,) = (
        path
        for path in Path(__file__).with_name("data").glob("*.json")
        if json.loads(path.read_bytes())["schema_version"] == 5
    )
    body = json.loads(older.read_bytes())
    assert "answers_ended" not in {metric["name"] for metric in body["metrics"]}
    assert fired(verify_content(check_bytes(older, older.read_bytes()), None)) == {"name", "side-file"}
    body["metrics"] = [metric for metric in body["metrics"] if metric["name"] != "answer_tokens"]
    body["body_digest"] = body_digest({key: value for key, value in body.items() if key != "body_digest"})
    found = verify_content(check_bytes(older, f"{json.dumps(body)}\n".encode()), None)
    assert fired(found) == {"name", "side-file", "answers"}


def test_an_older_record_says_so_and_may_lack_intervals() -> None:
    path = Path(__file__).with_name("data") / "llm-barber--2of4--27a94730.json"
    found = verify([path])
    assert fired(found, "remark") == {"file"}
    assert fired(found) == {"name", "side-file"}, "it was put elsewhere, and without its side file"


def test_it_needs_no_torch() -> None:
    probe = "import sys, suite.results.verification; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_documentation_lists_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "trust.md").read_text()
    assert [name for name in CHECKS if f"| `{name}` |" not in page] == []


def test_json_is_what_it_was(tmp_path: Path) -> None:
    """Another layout of the same JSON is no damage."""
    path, data, side_file = stored(dense_record())
    compact = json.dumps(json.loads(data), separators=(",", ":")).encode() + b"\n"
    assert verify_content(check_bytes(path, compact), side_file).findings == ()
    assert path.stem == dense_cell().stem
