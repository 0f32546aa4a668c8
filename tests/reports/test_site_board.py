"""The ranking rule, the levels of trust, and the history, as a reader of the site relies on them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reports.site.boards.board import Board
from reports.site.boards.scoring import boards_of
from reports.site.records.site_record import SiteRecord, read_holdings
from reports.site.records.trust import Judgement
from suite.results.records.items import TaskOutcomes
from suite.results.records.record import CodeVersion, Environment, Metric, Record
from tests.reports.synthetic_site import dense_record, digest_of, failed, site_record, write


def only_board(root: Path, *records: Record, panel: tuple[str, ...] = ()) -> Board:
    write(root, *records)
    (board,) = boards_of(read_holdings([root]).ranked, panel).boards
    return board


def scores(board: Board) -> dict[str, float]:
    return {entrant.label: round(entrant.score, 6) for entrant in board.entrants}


def test_leaving_out_a_hard_model_never_raises_a_score(tmp_path: Path) -> None:
    easy = [dense_record("easy"), site_record("wanda", "easy"), site_record("magnitude", "easy")]
    hard = [dense_record("hard"), site_record("magnitude", "hard", nll=(9.0, 9.1, 8.9, 9.0))]
    shown = site_record("wanda", "hard", nll=(8.0, 8.1, 7.9, 8.0))
    without = only_board(tmp_path / "without", *easy, *hard)
    handed_in = only_board(tmp_path / "with", *easy, *hard, shown)
    assert scores(without)["wanda"] < scores(handed_in)["wanda"]
    assert without.n_models == handed_in.n_models == 2


def test_the_models_that_count_can_be_fixed(tmp_path: Path) -> None:
    records = [
        dense_record("easy"),
        site_record("wanda", "easy"),
        dense_record("own"),
        site_record("mine", "own"),
    ]
    board = only_board(tmp_path, *records, panel=("easy", "never-measured"))
    assert [entrant.method for entrant in board.entrants] == ["wanda"]
    assert board.absent == ("never-measured",)
    assert scores(board) == {"wanda": round(math.exp(-0.5) / 2, 6)}


def test_seeds_are_averaged_and_the_newest_record_of_a_seed_counts(tmp_path: Path) -> None:
    write(tmp_path / "new", dense_record(), site_record("wanda", nll=(3.4,) * 4, seed=0, day=2))
    write(tmp_path / "new", site_record("wanda", nll=(3.8,) * 4, seed=1))
    write(tmp_path / "old", site_record("wanda", nll=(3.1,) * 4, seed=0, day=1, environment=other_machine()))
    (board,) = boards_of(read_holdings([tmp_path]).ranked).boards
    assert scores(board) == {"wanda": round(math.exp(3.0 - 3.6), 6)}
    assert len(board.entrants[0].records) == 2


def with_task(record: Record, accuracy: float, questions: str) -> SiteRecord:
    task = TaskOutcomes(
        task="cloze",
        protocol="cloze-0shot",
        version="1",
        num_fewshot=0,
        limit=None,
        n=10,
        docs_digest="d" * 64,
        items_digest=questions,
        metric="acc",
        outcomes=None,
    )
    metric = Metric(name="acc", protocol="cloze-0shot", value=accuracy, n=10, direction="higher")
    changed = record.model_copy(update={"tasks": (task,), "metrics": (*record.metrics, metric)})
    judgement = Judgement("verified", ())
    digest = changed.sealed().body_digest
    return SiteRecord(Path("r.json"), changed, digest, schema_version=3, checks=(), judgement=judgement)


def test_accuracy_is_held_against_the_dense_one_where_the_same_was_asked() -> None:
    held = [
        with_task(dense_record(), 0.8, "a"),
        with_task(site_record("wanda"), 0.6, "a"),
        with_task(site_record("magnitude"), 0.7, "b"),
    ]
    (board,) = boards_of(held).boards
    found = {entrant.method: (entrant.accuracy, entrant.n_tasks) for entrant in board.entrants}
    assert found == {"wanda": (pytest.approx(0.75), 1), "magnitude": (None, 0)}


def test_settings_make_an_entrant_of_their_own(tmp_path: Path) -> None:
    records = [site_record("mine", settings={"alpha": alpha}, nll=(3 + alpha,) * 4) for alpha in (0.5, 0.75)]
    board = only_board(tmp_path, dense_record(), *records)
    assert [entrant.label for entrant in board.entrants] == ["mine [alpha=0.5]", "mine [alpha=0.75]"]


def test_a_tie_is_what_paired_windows_cannot_tell_apart(tmp_path: Path) -> None:
    board = only_board(
        tmp_path,
        dense_record(nll=(2.0, 3.0, 4.0, 3.0)),
        site_record("best", nll=(2.5, 3.5, 4.5, 3.5)),
        site_record("level", nll=(2.4, 3.7, 4.4, 3.7)),
        site_record("worse", nll=(2.601, 3.6, 4.6, 3.6)),
    )
    assert [(e.method, e.mark) for e in board.entrants] == [
        ("best", "best"),
        ("level", "tied"),
        ("worse", ""),
    ]


def test_the_commonest_pattern_comes_first_and_seeds_make_none_common(tmp_path: Path) -> None:
    seeds = [site_record("wanda", pattern="2:4", seed=seed) for seed in range(5)]
    methods = [site_record(method, pattern="0.5") for method in ("wanda", "magnitude")]
    write(tmp_path, dense_record(), *seeds, *methods)
    boards = boards_of(read_holdings([tmp_path]).ranked).boards
    assert [board.key.pattern for board in boards] == ["0.5", "2:4"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "rerun"),
        ({"nll": (3.5, 3.6, 3.4, 3.6)}, "different"),
        ({"mask_digest": digest_of("other")}, "different"),
    ],
)
def test_a_rerun_that_agrees_says_so_and_one_that_does_not_sets_apart(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    results = write(tmp_path / "results", dense_record(), site_record("wanda"))
    reruns = write(tmp_path / "reruns", site_record("wanda", day=9, **change))  # type: ignore[arg-type]
    trust = {h.record.cell.method: h.trust for h in read_holdings([results], [reruns]).records}
    assert trust == {"dense": "verified", "wanda": expected}


def test_a_rerun_on_another_machine_with_other_masks_proves_nothing(tmp_path: Path) -> None:
    results = write(tmp_path / "results", site_record("wanda"))
    again = site_record("wanda", day=9, environment=other_machine(), mask_digest=digest_of("other"))
    (held,) = read_holdings([results], [write(tmp_path / "reruns", again)]).records
    assert held.trust == "verified"
    assert any("on another device" in finding.message for finding in held.judgement.findings)


def test_neither_a_copy_nor_a_failed_rerun_proves_anything(tmp_path: Path) -> None:
    results = write(tmp_path / "results", site_record("wanda"))
    (copied,) = read_holdings([results], [results]).records
    reruns = write(tmp_path / "reruns", failed("wanda", "out of memory"))
    (tried,) = read_holdings([results], [reruns]).records
    assert (copied.trust, tried.trust) == ("verified", "verified")
    assert any("a rerun failed" in finding.message for finding in tried.judgement.findings)


def test_an_older_record_is_not_refuted_by_newer_code_and_keeps_its_place_in_the_history(
    tmp_path: Path,
) -> None:
    old = site_record("wanda", day=1, nll=(3.0, 3.2, 2.9, 3.1), code=code_of(1))
    new = site_record("wanda", day=2, code=code_of(2))
    write(tmp_path / "results" / "1", old)
    write(tmp_path / "results" / "2", new)
    reruns = write(tmp_path / "reruns", site_record("wanda", day=9, code=code_of(2)))
    found = read_holdings([tmp_path / "results"], [reruns]).records
    assert [held.trust for held in found] == ["rerun", "verified"]


def other_machine() -> Environment:
    return site_record().environment.model_copy(update={"processor": "another"})


def code_of(day: int) -> CodeVersion:
    return site_record().code.model_copy(update={"source_digest": digest_of(day)})
