"""How reliable the numbers of a report are, in one sentence with counts."""

from __future__ import annotations

from collections.abc import Sequence

from reports.rankings.comparison import Comparison, finished_records
from reports.rankings.ranking import Ranking
from reports.wording import counted, listed, visible
from suite.results.records.comparability import machine_of
from suite.results.records.record import Record


def trust(comparison: Comparison, n_problems: int = 0) -> str:
    """States completeness, code versions, machines and integrity, and how many differences are significant.

    Args:
        comparison: the comparison of the readable records.
        n_problems: number of records that could not be read.
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
        return f"by {len(digests)} versions of the code, so not all records are comparable"
    code = records[0].code
    commits = {record.code.git_commit for record in records}
    # Commits may differ in something that affects no number.
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
    """Counts the differences from the best that exceed the chance of the windows, and calibration seeds."""
    scores = [e.scores[0] for r in rankings for e in r.entries if e.scores]
    # Without an interval nothing was compared, whatever the mark is.
    others = [score for score in scores if score.low is not None and score.mark in ("", "tied")]
    sentences = []
    if others:
        apart = sum(score.mark == "" for score in others)
        sentences.append(
            f"{apart:,} of {counted(len(others), 'difference')} to the best "
            f"{'is' if apart == 1 else 'are'} beyond the chance of the text (paired 95 % intervals)."
        )
    used = [c for r in rankings for e in r.entries if (c := e.record.cell.calibration) is not None]
    n_seeds = len({calibration.seed for calibration in used})
    if n_seeds == 1:
        sentences.append("All calibration was drawn with one seed: another draw can change the numbers more.")
    elif n_seeds:
        sentences.append(f"Calibration was drawn with {n_seeds} seeds, each with its own row.")
    return " ".join(sentences)


__all__ = ["trust"]
