"""The ranking rule: which methods keep most of the dense model's quality, over all models of a board.

A board has one pattern, one perplexity protocol (including corpus revision, window length and limit) and one
dtype. On a model, a method's recovery is the dense perplexity divided by the pruned one, on the same windows
and for the same weights: 1 is as good as dense, and higher is better. Its score is the mean recovery over
*all* models of the board; a model it was not measured on counts as 0. Recovery is never below 0, so leaving
out a hard model cannot raise a score. Seeds of one configuration are averaged (the losses, window by window),
so that nobody can pick a lucky seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from reports.rankings.ranking import distinct_labels, without_seed
from reports.site.boards.board import Board, BoardKey, Boards, Entrant, LeftOut, Mark, Result, Subject
from reports.site.records.site_record import SiteRecord
from suite.results.records.items import WindowLosses
from suite.results.records.record import Record
from suite.results.statistics.perplexity import paired_log_ratio

Losses = tuple[float | None, ...]


@dataclass(frozen=True)
class _Candidate:
    held: SiteRecord
    windows: WindowLosses
    key: BoardKey
    subject: Subject


def boards_of(ranked: Sequence[SiteRecord], panel: Sequence[str] = ()) -> Boards:
    """Ranks records.

    Args:
        ranked: complete and consistent ones, newest first.
        panel: names of the models that count; if empty, all models that are measured on the board.
    """
    dense = _dense(ranked)
    left_out: list[LeftOut] = []
    found: dict[BoardKey, list[_Candidate]] = {}
    for held in ranked:
        if held.record.cell.is_dense:
            continue
        candidate = _candidate(held)
        if isinstance(candidate, str):
            left_out.append(LeftOut(held, candidate))
        elif (candidate.subject, candidate.key.protocol, candidate.key.dtype) not in dense:
            left_out.append(LeftOut(held, "no dense record of the same weights, dtype and windows"))
        elif panel and held.record.cell.model not in panel:
            left_out.append(LeftOut(held, "its model is not among those this site ranks by"))
        else:
            found.setdefault(candidate.key, []).append(candidate)
    boards = [_board(key, candidates, dense, panel) for key, candidates in found.items()]
    common: dict[str, int] = {}
    for board in boards:
        common[board.key.pattern] = common.get(board.key.pattern, 0) + board.n_results
    boards.sort(key=lambda b: (-common[b.key.pattern], b.key.pattern, -b.n_results, b.key))
    return Boards(tuple(boards), tuple(left_out))


_Dense = dict[tuple[Subject, str, str], SiteRecord]


def _dense(ranked: Iterable[SiteRecord]) -> _Dense:
    """Returns the newest dense record of each model, text and dtype."""
    found: _Dense = {}
    for held in ranked:
        model = held.record.model
        if not held.record.cell.is_dense or model is None:
            continue
        for windows in held.record.windows:
            subject = _subject(held.record, windows)
            found.setdefault((subject, windows.protocol, model.dtype), held)
    return found


def _subject(record: Record, windows: WindowLosses) -> Subject:
    weights = record.model.weight_digest if record.model else ""
    return Subject(record.cell.model, weights, windows.corpus_digest, len(windows.nll))


def _candidate(held: SiteRecord) -> _Candidate | str:
    """Returns how a record may be ranked, or the reason why it may not."""
    record, cell = held.record, held.record.cell
    if cell.checkpoint is not None:
        return "a finished checkpoint: it was pruned elsewhere, and its record cannot be run again"
    if record.model is None or cell.pattern is None:
        return "it names no model or no pattern"
    first = cell.perplexity[0].protocol if cell.perplexity else None
    windows = next((w for w in record.windows if w.protocol == first), None)
    if windows is None:
        return "no perplexity by windows to rank it by"
    limit = windows.limit or 0
    dtype = record.model.dtype
    key = BoardKey(cell.pattern, windows.protocol, windows.corpus_revision, windows.seqlen, limit, dtype)
    return _Candidate(held, windows, key, _subject(record, windows))


def _board(key: BoardKey, candidates: Sequence[_Candidate], dense: _Dense, panel: Sequence[str]) -> Board:
    subjects = tuple(sorted({candidate.subject for candidate in candidates}))
    absent = tuple(sorted(set(panel) - {subject.model for subject in subjects}))
    n_models = len(subjects) + len(absent)
    groups: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(_configuration(candidate.held.record), []).append(candidate)
    # Leave out of the labels what may differ within an entrant.
    alike = {"revision": None, "trust_remote_code": False}
    labels = distinct_labels([without_seed(group[0].held.record, **alike) for group in groups.values()])
    entrants = [
        _entrant(label, group, dense, n_models) for label, group in zip(labels, groups.values(), strict=True)
    ]
    entrants.sort(key=lambda e: (-e.score, e.label))
    return Board(key, subjects, absent, tuple(_marked(entrants, subjects, n_models)))


def _configuration(record: Record) -> str:
    """Returns a key that is equal for records of one entrant: everything about the method except its seed."""
    cell = record.cell
    calibration = cell.calibration.model_dump(exclude={"seed"}) if cell.calibration else None
    allocation = cell.allocation.model_dump() if cell.allocation else None
    return json.dumps([cell.method, cell.settings, allocation, calibration], sort_keys=True)


def _entrant(label: str, group: Sequence[_Candidate], dense: _Dense, n_models: int) -> Entrant:
    by_subject: dict[Subject, list[_Candidate]] = {}
    for candidate in group:
        by_subject.setdefault(candidate.subject, []).append(candidate)
    results = {
        subject: _result(_newest_by_seed(found), dense[subject, found[0].key.protocol, found[0].key.dtype])
        for subject, found in sorted(by_subject.items())
    }
    score = math.fsum(result.recovery for result in results.values()) / n_models
    low, high = _ends(score, list(results.values()), n_models)
    ratios = [ratio for result in results.values() for ratio in _accuracy_ratios(result)]
    return Entrant(
        method=group[0].held.record.cell.method,
        label=label,
        results=results,
        score=score,
        low=low,
        high=high,
        accuracy=math.fsum(ratios) / len(ratios) if ratios else None,
        n_tasks=len(ratios),
    )


def _newest_by_seed(found: Sequence[_Candidate]) -> list[_Candidate]:
    newest: dict[int | None, _Candidate] = {}
    for candidate in found:  # newest first
        calibration = candidate.held.record.cell.calibration
        newest.setdefault(calibration.seed if calibration else None, candidate)
    return list(newest.values())


def _result(found: Sequence[_Candidate], dense: SiteRecord) -> Result:
    records = tuple(candidate.held for candidate in found)
    protocol = found[0].key.protocol
    reference = next(w.nll for w in dense.record.windows if w.protocol == protocol)
    ours = _mean_losses([candidate.windows.nll for candidate in found])
    paired = paired_log_ratio(reference, ours)
    if paired.value is None:
        return Result(0.0, None, None, None, paired.status, records, dense)
    logs = [loss for loss in ours if loss is not None]
    try:
        perplexity = math.exp(math.fsum(logs) / len(logs))
    except OverflowError:
        perplexity = None
    return Result(paired.value, paired.low, paired.high, perplexity, "ok", records, dense)


def _mean_losses(seeds: Sequence[Losses]) -> Losses:
    """Mean over seeds per window: its exponential is the geometric mean of their perplexities."""
    means: list[float | None] = []
    for window in zip(*seeds, strict=True):
        finite = [loss for loss in window if loss is not None]
        means.append(math.fsum(finite) / len(finite) if len(finite) == len(window) else None)
    return tuple(means)


def _accuracy_ratios(result: Result) -> list[float]:
    """Accuracy over dense accuracy, one ratio per task, mean over seeds, if the questions were the same."""
    asked = {(t.protocol, t.items_digest, t.metric): t for t in result.dense.record.tasks}
    ratios: dict[str, list[float]] = {}
    for held in result.records:
        for task in held.record.tasks:
            if (task.protocol, task.items_digest, task.metric) not in asked:
                continue
            ours = held.record.metric(task.metric, task.protocol)
            theirs = result.dense.record.metric(task.metric, task.protocol)
            if ours and theirs and ours.value is not None and theirs.value and ours.direction == "higher":
                ratios.setdefault(task.protocol, []).append(ours.value / theirs.value)
    return [math.fsum(seeds) / len(seeds) for seeds in ratios.values()]


def _ends(score: float, results: Sequence[Result], n_models: int) -> tuple[float | None, float | None]:
    """The interval of a score; with one model it is that of the model, which need not be symmetric."""
    if n_models == 1:
        return results[0].low, results[0].high
    reach = _together([(r.low, r.high) for r in results], n_models)
    return (None, None) if reach is None else (max(0.0, score - reach), score + reach)


def _together(ends: Iterable[tuple[float | None, float | None]], n: int) -> float | None:
    """Half the interval of a mean of n independent numbers, from their intervals; None if one has none."""
    squares = []
    for low, high in ends:
        if low is None or high is None:
            return None
        squares.append(((high - low) / 2) ** 2)
    return math.sqrt(math.fsum(squares)) / n if squares else None


def _marked(entrants: Sequence[Entrant], subjects: Sequence[Subject], n_models: int) -> list[Entrant]:
    marked: list[Entrant] = []
    for place, entrant in enumerate(entrants, 1):
        best, last = entrants[0], marked[-1] if marked else None
        rank = last.rank if last is not None and last.score == entrant.score else place
        if entrant is best:
            mark: Mark = "only" if len(entrants) == 1 else "best"
        else:
            mark = "tied" if _tied(entrant, best, subjects, n_models) else ""
        marked.append(replace(entrant, rank=rank, mark=mark))
    return marked


def _tied(entrant: Entrant, best: Entrant, subjects: Sequence[Subject], n_models: int) -> bool:
    """Whether the 95 % interval of the difference of two scores, from paired windows, includes 0.

    To first order, the difference is the mean of recovery times log ratio of the two perplexities.
    """
    differences, ends = [], []
    for subject in subjects:
        ours, theirs = entrant.results.get(subject), best.results.get(subject)
        if ours is None or theirs is None or ours.perplexity is None or theirs.perplexity is None:
            if ours is None and theirs is None:
                continue
            return False
        paired = paired_log_ratio(_losses(ours), _losses(theirs))
        if not paired.value or not paired.low or not paired.high:
            return False
        differences.append(theirs.recovery * math.log(paired.value))
        low, high = (theirs.recovery * math.log(end) for end in (paired.low, paired.high))
        ends.append((low, high))
    reach = _together(ends, n_models)
    return reach is not None and math.fsum(differences) / n_models <= reach


def _losses(result: Result) -> Losses:
    protocol = result.records[0].record.cell.perplexity[0].protocol
    return _mean_losses(
        [next(w.nll for w in held.record.windows if w.protocol == protocol) for held in result.records]
    )
