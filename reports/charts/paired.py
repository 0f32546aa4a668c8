"""The answers of pruned models compared with the dense model's, per question set, as panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.chapters.tasks import QuestionSet, against_dense, question_set
from reports.charts.rows import names_over_patterns, row_name
from reports.rankings.ranking import Ranking
from reports.wording import pattern_name, visible
from suite.results.statistics.paired import Flips


@dataclass(frozen=True)
class PairedAnswers:
    """One task of one pruned model compared with the dense model, on the same questions."""

    panel: str
    task: str
    pattern: str
    label: str
    row: str
    """The label, formatted as the name of a row."""
    family: str
    place: int
    """Index in its ranking, from 0."""
    both: int
    """Number of questions that both answer correctly."""
    lost: int
    """Number of questions that only the dense model answers correctly."""
    gained: int
    flips: Flips

    @property
    def named(self) -> dict[str, object]:
        """The columns of a figure's data that identify whose answers these are."""
        return {
            "panel": self.panel,
            "task": self.task,
            "pattern": self.pattern,
            "label": self.label,
            "method": self.row,
            "family": self.family,
            "place": self.place,
        }

    @property
    def n(self) -> int:
        """Number of questions."""
        return self.flips.n


def paired_answers(rankings: Sequence[Ranking]) -> list[PairedAnswers]:
    """Returns all comparable answers, ordered by pattern, task and perplexity (best first)."""
    found: list[tuple[int, QuestionSet, PairedAnswers]] = []
    references = rankings[0].references
    panels, names = _panel_names(rankings), names_over_patterns(rankings)
    for order, ranking in enumerate(rankings):
        for place, entry in enumerate(ranking.entries):
            for task, against in against_dense(entry.record, references).items():
                flips = against.flips
                if flips is None or flips.right_to_wrong is None or flips.wrong_to_right is None:
                    continue
                questions, pattern = question_set(task), pattern_name(ranking.pattern)
                several = f"\n{pattern}" if len(rankings) > 1 else ""
                answers = PairedAnswers(
                    panel=panels[questions] + several,
                    task=visible(task.protocol),
                    pattern=pattern,
                    label=names[entry.cell],
                    row=row_name(names[entry.cell]),
                    family=visible(entry.record.cell.method),
                    place=place,
                    both=(task.outcomes or "").count("1") - flips.wrong_to_right,
                    lost=flips.right_to_wrong,
                    gained=flips.wrong_to_right,
                    flips=flips,
                )
                found.append((order, questions, answers))
    first_seen = list(dict.fromkeys(questions for _, questions, _ in found))
    found.sort(key=lambda one: (one[0], first_seen.index(one[1]), one[2].place))
    return [answers for _, _, answers in found]


def _panel_names(rankings: Sequence[Ranking]) -> dict[QuestionSet, str]:
    """Names a panel by task and number of questions, and by the start of the digest if two would be equal."""
    sets = dict.fromkeys(question_set(task) for r in rankings for e in r.entries for task in e.record.tasks)
    names = {q: f"{visible(q.protocol)}, n = {q.n:,}" for q in sets}
    read = list(names.values())
    return {
        q: name if read.count(name) == 1 else f"{name}, {visible(q.metric)}, {q.items_digest[:8]}"
        for q, name in names.items()
    }


__all__ = ["PairedAnswers", "paired_answers"]
