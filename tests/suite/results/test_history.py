"""Records of months as series: what is joined, what is kept apart, and what is marked."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from methods.errors import InputError
from suite.results import ResultStore
from suite.results.history.series import history_of, read_history
from suite.results.records.record import CalibrationIdentity, Metric, ModelIdentity, ReferenceSpeed
from tests.suite.results.examples import CODE, ENVIRONMENT, make_cell, make_failed, make_record

PROTOCOL = "wiki-sample-token-s2048"
REFERENCE_SPEED = ReferenceSpeed(
    matmul_flops_per_second=1e9, forward_tokens_per_second=1000, batch_size=4, seqlen=128
)


def perplexity(value, **changes):
    fields = {"name": "perplexity", "protocol": PROTOCOL, "n": 20, "direction": "lower"}
    return Metric(**{**fields, "value": value, **changes})


def store(folder: Path, day: int, value=25.5, *, cell=None, commit=None, clean=True, **changes):
    """A record of that day of 2026's first months, in a results tree of its own."""
    fields = {
        "created": f"2026-{day // 28 + 1:02}-{day % 28 + 1:02}T06:00:00+00:00",
        "metrics": (perplexity(value),),
        "code": CODE.model_copy(update={"git_commit": commit or f"{day:040x}", "git_clean": clean}),
    }
    record = make_record(cell, **{**fields, **changes})
    return ResultStore(folder / f"day-{day}").write(record)


def only_series(folder: Path, *names: str, **options):
    (series,) = history_of(read_history([folder]).records, *names, **options)
    return series


def values(segment):
    return [point.value for point in segment.points]


def test_a_step_between_two_commits_is_marked_where_it_happened(tmp_path):
    for day in range(10):
        store(tmp_path, day, 25.5 if day < 6 else 26.5)
    series = only_series(tmp_path)
    assert (series.label, series.metric, series.protocol) == (make_cell().label, "perplexity", PROTOCOL)
    (segment,) = series.segments
    assert segment.reason == ""
    assert values(segment) == [25.5] * 6 + [26.5] * 4
    (change,) = segment.findings.changes
    assert segment.points[change.at].commit == f"{6:040x}"[:8]
    assert segment.points[change.at].created == datetime(2026, 1, 7, 6, tzinfo=UTC)
    assert series.is_better(change.before, change.after) is False


def test_a_drift_over_months_is_seen(tmp_path):
    for month in range(10):
        store(tmp_path, 28 * month, 25.5 * 1.003**month)
    (change,) = only_series(tmp_path).segments[0].findings.changes
    assert change.kind == "drift"


def test_points_are_in_order_of_time_wherever_they_lie(tmp_path):
    later = make_record(created="2026-03-01T00:30:00+02:00", metrics=(perplexity(2.0),))
    earlier = make_record(created="2026-02-28T22:00:00Z", metrics=(perplexity(1.0),))
    ResultStore(tmp_path / "a").write(later)
    ResultStore(tmp_path / "b" / "deeper" / "still").write(earlier)
    (segment,) = only_series(tmp_path).segments
    assert values(segment) == [1.0, 2.0]


def test_copies_of_a_record_count_once(tmp_path):
    path = store(tmp_path, 1)
    store(tmp_path, 2)
    copy = tmp_path / "copies" / "deep" / path.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    archive = read_history([tmp_path, tmp_path / "copies", path])
    assert len(archive.records) == 2


def test_failed_attempts_have_no_place_and_broken_files_are_named(tmp_path):
    store(tmp_path, 1)
    ResultStore(tmp_path / "failed").write(make_failed())
    broken = store(tmp_path, 2)
    broken.write_text(broken.read_text().replace("25.5", "24.5"))
    undated = ResultStore(tmp_path / "undated").write(make_record(created="yesterday"))
    archive = read_history([tmp_path])
    assert len(archive.records) == 1
    reasons = {entry.path: entry.reason for entry in archive.unreadable}
    assert set(reasons) == {broken, undated}
    assert "was changed after it was written" in reasons[broken]
    assert "no date" in reasons[undated]


def test_cells_and_protocols_are_series_of_their_own(tmp_path):
    other = perplexity(30.0, protocol="news-sample-token-s2048")
    for day in range(3):
        store(tmp_path, day, metrics=(perplexity(25.5), other))
        store(tmp_path / "two", day, cell=make_cell(method="magnitude"))
    archive = read_history([tmp_path])
    assert [(s.cell.method, s.protocol) for s in history_of(archive.records)] == [
        ("magnitude", PROTOCOL),
        ("wanda", other.protocol),
        ("wanda", PROTOCOL),
    ]
    assert len(history_of(archive.records, protocol=other.protocol)) == 1


def test_cells_of_one_label_are_told_apart(tmp_path):
    one, two = make_cell(), make_cell(dtype="bfloat16")
    store(tmp_path, 1, cell=one)
    store(tmp_path, 1, cell=two)
    labels = {series.label for series in history_of(read_history([tmp_path]).records)}
    assert labels == {f"{one.label} [{one.digest[:8]}]", f"{two.label} [{two.digest[:8]}]"}


MODEL = ModelIdentity(
    name="org/model",
    revision=None,
    architecture="Llama",
    n_parameters=1,
    weight_digest="d" * 64,
    dtype="float32",
)
WINDOWS = make_record().windows


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (
            {"model": MODEL},
            {"model": MODEL.model_copy(update={"weight_digest": "e" * 64})},
            "other weights",
        ),
        (
            {"model": MODEL},
            {"model": MODEL.model_copy(update={"dtype": "bfloat16"})},
            "another dtype: float32 and bfloat16",
        ),
        (
            {},
            {"windows": (WINDOWS[0].model_copy(update={"corpus_digest": "e" * 64}),)},
            "another corpus",
        ),
        (
            {},
            {"windows": (WINDOWS[0].model_copy(update={"nll": (3.0,)}),)},
            "another extent: 2 windows of 2048 and 1 windows of 2048",
        ),
        (
            {},
            {"environment": ENVIRONMENT.model_copy(update={"threads": 4})},
            "another number of threads: 2 and 4",
        ),
        (
            {"calibration": CalibrationIdentity(source="x", n_samples=1, seqlen=8, seed=0, digest="1" * 64)},
            {"calibration": CalibrationIdentity(source="x", n_samples=1, seqlen=8, seed=0, digest="2" * 64)},
            "other calibration tokens",
        ),
    ],
)
def test_what_cannot_be_compared_is_not_joined_and_says_why(tmp_path, before, after, reason):
    for day in range(8):
        changes = before if day < 4 else after
        store(tmp_path, day, 25.5 if day < 4 else 30.0, **changes)
    first, second = only_series(tmp_path).segments
    assert (first.reason, second.reason) == ("", reason)
    assert values(first) == [25.5] * 4
    assert values(second) == [30.0] * 4
    assert first.findings.changes == second.findings.changes == ()


def test_another_processor_does_not_part_perplexities(tmp_path):
    for day in range(4):
        processor = "a processor" if day < 2 else "another"
        store(tmp_path, day, environment=ENVIRONMENT.model_copy(update={"processor": processor}))
    assert len(only_series(tmp_path).segments) == 1


def seconds(value):
    return (Metric(name="prune_seconds", protocol="", value=value, direction="lower"),)


def test_times_are_multiples_of_what_the_machine_could_do(tmp_path):
    calibration = CalibrationIdentity(source="x", n_samples=10, seqlen=100, seed=0, digest="1" * 64)
    for day in range(6):
        pace = 1 + day % 2  # every other day the machine is half as fast
        speed = REFERENCE_SPEED.model_copy(update={"forward_tokens_per_second": 1000 / pace})
        store(tmp_path, day, metrics=seconds(7.0 * pace), reference_speed=speed, calibration=calibration)
    series = only_series(tmp_path, "prune_seconds")
    assert values(series.segments[0]) == pytest.approx([7.0] * 6)
    assert series.unit == "x the dense forward of 1,000 tokens"
    assert series.tolerance == 0.1


def test_times_without_a_reference_speed_stay_seconds(tmp_path):
    store(tmp_path, 1, metrics=seconds(7.0), reference_speed=REFERENCE_SPEED)
    store(tmp_path, 2, metrics=seconds(8.0))
    series = only_series(tmp_path, "prune_seconds")
    assert series.unit == ""
    assert values(series.segments[0]) == [7.0, 8.0]


def test_rates_are_shares_of_the_dense_forward(tmp_path):
    rate = Metric(name="prefill_tokens_per_second", protocol="b1-p8", value=500, direction="higher")
    store(tmp_path, 1, metrics=(rate,), reference_speed=REFERENCE_SPEED)
    series = only_series(tmp_path, "prefill_tokens_per_second")
    assert values(series.segments[0]) == [0.5]
    assert series.is_better(0.5, 0.6) is True


def test_two_machines_that_take_turns_are_two_whole_segments(tmp_path):
    for day in range(8):
        machine = ENVIRONMENT.model_copy(update={"processor": f"processor {day % 2}"})
        store(tmp_path, day, metrics=seconds(7.0 + day % 2), environment=machine)
    first, second = only_series(tmp_path, "prune_seconds").segments
    assert values(first) == [7.0] * 4
    assert values(second) == [8.0] * 4
    assert second.reason == "another processor: processor 0 and processor 1"


def test_times_of_two_placements_are_two_segments(tmp_path):
    for day in range(4):
        store(tmp_path, day, metrics=seconds(7.0 + day % 2), placement=("resident", "onload")[day % 2])
    first, second = only_series(tmp_path, "prune_seconds").segments
    assert (values(first), values(second)) == ([7.0] * 2, [8.0] * 2)
    assert second.reason == "another placement: resident and onload"


def test_by_commit_the_runs_of_a_commit_are_one_point(tmp_path):
    for day, value in enumerate([25.5, 30.0, 25.6, 26.5, 26.5]):
        store(tmp_path, day, value, commit="a" * 40 if day < 3 else "b" * 40)
    (segment,) = only_series(tmp_path, by="commit").segments
    assert [(p.commit, p.value, p.runs) for p in segment.points] == [
        ("a" * 8, 25.6, 3),
        ("b" * 8, 26.5, 2),
    ]


def test_by_commit_trees_that_were_not_clean_stay_apart(tmp_path):
    for day in range(3):
        store(tmp_path, day, commit="a" * 40, clean=day == 0)
    (segment,) = only_series(tmp_path, by="commit").segments
    assert [point.version for point in segment.points] == ["a" * 8, "a" * 8 + "+", "a" * 8 + "+"]


def test_code_from_a_wheel_is_known_by_version_and_source(tmp_path):
    ResultStore(tmp_path).write(make_record())
    (segment,) = only_series(tmp_path).segments
    assert segment.points[0].version == "0.1.0/aaaaaaaa"


def test_a_value_that_could_not_be_had_is_told(tmp_path):
    for day in range(4):
        store(tmp_path, day)
    store(tmp_path, 5, metrics=(perplexity(None, status="not finite: 3 of 20 items"),))
    series = only_series(tmp_path)
    assert len(series.segments[0].points) == 4
    assert [absence.status for absence in series.absent] == ["not finite: 3 of 20 items"]


def test_a_metric_nobody_measured_is_refused_with_the_nearest(tmp_path):
    store(tmp_path, 1)
    archive = read_history([tmp_path])
    with pytest.raises(InputError, match="'perplexty'; did you mean 'perplexity'"):
        history_of(archive.records, "perplexty")
    with pytest.raises(InputError, match=f"protocol 'wiki-sample-token'; did you mean '{PROTOCOL}'"):
        history_of(archive.records, protocol="wiki-sample-token")
    with pytest.raises(InputError, match="no record has"):
        history_of(())


def test_wrong_places_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_history([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no finished records; "):
        read_history([tmp_path])
    (tmp_path / "a--b--c.json").write_text("{")
    with pytest.raises(InputError, match=r"that can be read \(1 cannot\)"):
        read_history([tmp_path])
