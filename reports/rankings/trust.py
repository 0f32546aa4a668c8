"""How far the numbers of a report can be relied on, in one sentence with counts."""

from __future__ import annotations

from collections.abc import Sequence

from reports.rankings.comparison import Comparison, finished_records
from reports.rankings.ranking import Ranking
from reports.wording import counted, listed, visible
from suite.results.records.comparability import machine_of
from suite.results.records.record import Record


def trust(comparison: Comparison, n_problems: int = 0) -> str:
    """Whole or not, by which code, on which machines, intact or not; and how many differences are settled.

    Args:
        comparison: of the records that could be read.
        n_problems: how many could not.
    """
    done = finished_records(comparison.rankings)
    n_all = len(done) + len(comparison.failed)
    unread = f" {counted(n_problems, 'record')} could not be read." if n_problems else ""
    if not done:
        return f"No number was measured.{unread}"
    if not comparison.failed:
        finished = f"{'All ' if n_all > 1 else ''}{counted(n_all, 'cell')} finished"
    else:
        finished = f"{len(done):,} of {counted(n_all, 'cell')} finished"
    parts = [finished, _code(done), _machines(done), _intact(done)]
    return f"{listed([part for part in parts if part])}.{unread} {_settled(comparison.rankings)}".strip()


def _code(records: Sequence[Record]) -> str:
    digests = {record.code.source_digest for record in records}
    if len(digests) > 1:
        return f"by {len(digests)} versions of the code, so that not all may be compared"
    code = records[0].code
    commits = {record.code.git_commit for record in records}
    # Commits may differ in what decides no number.
    commit = f", commit {visible(code.git_commit[:8])}" if code.git_commit and len(commits) == 1 else ""
    trees = {record.code.git_clean for record in records}
    tree = ", clean tree" if trees == {True} else ", a tree with changes" if False in trees else ""
    return f"by one version of the code (prunebench {visible(code.prunebench)}{commit}{tree})"


def _machines(records: Sequence[Record]) -> str:
    machines = {machine_of(record) for record in records}
    if len(machines) == 1:
        return "on one kind of machine"
    return f"on {len(machines)} kinds of machine, thread counts or placements"


def _intact(records: Sequence[Record]) -> str:
    changed = sum(bool(record.body_digest) and not record.is_intact for record in records)
    if changed:
        return f"{counted(changed, 'record')} changed after it was sealed: do not trust that"
    return ""


def _settled(rankings: Sequence[Ranking]) -> str:
    """How many differences to the best are more than the windows' chance, and over how many draws."""
    held = [e.scores[0] for r in rankings for e in r.entries if e.scores]
    # Without an interval nothing was compared, whatever the mark says.
    others = [score for score in held if score.low is not None and score.mark in ("", "tied")]
    told = []
    if others:
        apart = sum(score.mark == "" for score in others)
        told.append(
            f"{apart:,} of {counted(len(others), 'difference')} to the best "
            f"{'is' if apart == 1 else 'are'} beyond the chance of the text (paired 95 % intervals)."
        )
    used = [c for r in rankings for e in r.entries if (c := e.record.cell.calibration) is not None]
    n_seeds = len({calibration.seed for calibration in used})
    if n_seeds == 1:
        told.append("All calibration was drawn with one seed: another draw can move the numbers further.")
    elif n_seeds:
        told.append(f"Calibration was drawn with {n_seeds} seeds, each a row of its own.")
    return " ".join(told)


__all__ = ["trust"]
