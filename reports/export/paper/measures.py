"""The measures of a paper's tables: metrics under one protocol, with the items to compare two models by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reports.chapters.tasks import LEVEL, QuestionSet, question_set
from reports.rankings.comparison import finished_records
from reports.rankings.frame import protocols_of
from reports.rankings.labels import ANSWERS, DIVERGENCES, SPEEDS
from reports.rankings.ranking import Ranking
from reports.wording import visible
from suite.results.records.items import WindowDivergence
from suite.results.records.record import Metric, Record
from suite.results.statistics import metrics
from suite.results.statistics.paired import mcnemar
from suite.results.statistics.single import mean_stderr

Items = Sequence[float | None]


@dataclass(frozen=True)
class Measure:
    """One metric together with everything that makes two values of it comparable.

    Attributes:
        name: name of the metric.
        heading: heading above its columns.
        protocol: its protocol, as it is stored.
        item: what n counts, in the singular.
        factor: multiplies the stored value for printing.
        metric: returns a record's value; None if it was not measured under exactly this protocol.
        items: returns a record's values per item; None if two models cannot be compared by them.
        are_outcomes: whether the items are right (1) or wrong (0).
    """

    name: str
    heading: str
    protocol: str
    item: str
    metric: Callable[[Record], Metric | None]
    factor: float = 1.0
    items: Callable[[Record], Items | None] = lambda record: None
    are_outcomes: bool = False

    def best(self, records: Sequence[Record]) -> frozenset[int]:
        """Returns the indices of the best record and of those that do not differ significantly from it.

        Shares of right answers are compared by McNemar's exact test, everything else by the paired 95 %
        interval of the difference. A single record is never the best, nor is a record without items, because
        ties with it are unknown.
        """
        found = {i: m for i, record in enumerate(records) if (m := self.metric(record)) is not None}
        measured = {i: (m.value, m.direction) for i, m in found.items() if m.value is not None}
        directions = {direction for _, direction in measured.values()}
        if len(measured) < 2 or len(directions) > 1 or directions == {"none"}:
            return frozenset()
        sign = 1.0 if directions == {"lower"} else -1.0
        best = min(measured, key=lambda i: sign * (measured[i][0] or 0.0))
        items = self.items(records[best])
        if items is None:
            return frozenset()
        return frozenset(i for i in measured if i == best or self._ties(self.items(records[i]), items))

    def _ties(self, ours: Items | None, best: Items) -> bool:
        if ours is None or len(ours) != len(best):
            return False
        if self.are_outcomes:
            p_value = mcnemar(best, ours).p_value
            return p_value is not None and p_value >= LEVEL
        differences = [None if a is None or b is None else a - b for a, b in zip(ours, best, strict=True)]
        estimate = mean_stderr(differences)
        return estimate.low is not None and estimate.high is not None and estimate.low <= 0 <= estimate.high


def divergence_measures(rankings: Sequence[Ranking]) -> Iterator[Measure]:
    """Yields KL divergence from dense and top-1 agreement, one text after the other."""
    for protocol in protocols_of(finished_records(rankings), *DIVERGENCES):
        for metric in metrics.DIVERGENCES:
            label = DIVERGENCES[metric.name]
            yield Measure(
                metric.name,
                label.paper or label.title,
                protocol,
                "window",
                _named(metric.name, protocol),
                label.unit.factor,
                _divergence_items(metric, protocol),
            )


def task_measures(rankings: Sequence[Ranking]) -> Iterator[Measure]:
    """Yields the metric that `outcomes` records for each task, one measure per set of questions."""
    asked = dict.fromkeys(
        question_set(task) for record in finished_records(rankings) for task in record.tasks
    )
    for questions in asked:
        share = questions.metric.startswith(("acc", "exact_match"))
        heading = f"{visible(questions.protocol)}, {visible(questions.metric)}" + (", %" if share else "")
        yield Measure(
            questions.metric,
            heading,
            questions.title,
            "question",
            _task_metric(questions),
            100.0 if share else 1.0,
            _outcomes(questions),
            are_outcomes=True,
        )


def answer_measures(rankings: Sequence[Ranking]) -> Iterator[Measure]:
    """Yields how far greedy answers are from the dense model's, for the most common set of prompts."""
    for name, label in ANSWERS.items():
        for protocol in protocols_of(finished_records(rankings), name) if label.paper else ():
            yield Measure(
                name,
                label.paper or "",
                protocol,
                "answer",
                _answers_metric(rankings, name, protocol),
                label.unit.factor,
            )


def speed_measures(rankings: Sequence[Ranking]) -> Iterator[Measure]:
    """Yields tokens per second, if any record has them."""
    for name, label in SPEEDS.items():
        for protocol in protocols_of(finished_records(rankings), name):
            shown = f"{label.paper}, {visible(protocol)}"
            yield Measure(name, shown, protocol, "repeat", _named(name, protocol))


def _named(name: str, protocol: str) -> Callable[[Record], Metric | None]:
    return lambda record: record.metric(name, protocol)


def _divergence_items(
    metric: metrics.ItemMetric[WindowDivergence], protocol: str
) -> Callable[[Record], Items | None]:
    def items(record: Record) -> Items | None:
        found = next((d for d in record.divergences if d.protocol == protocol), None)
        return None if found is None else metric.values(found)

    return items


def _task_metric(questions: QuestionSet) -> Callable[[Record], Metric | None]:
    def metric(record: Record) -> Metric | None:
        if all(question_set(task) != questions for task in record.tasks):
            return None
        return record.metric(questions.metric, questions.protocol)

    return metric


def _outcomes(questions: QuestionSet) -> Callable[[Record], Items | None]:
    def items(record: Record) -> Items | None:
        task = next((t for t in record.tasks if question_set(t) == questions), None)
        if task is None or task.outcomes is None or not set(task.outcomes) <= {"0", "1"}:
            return None
        return tuple(float(outcome) for outcome in task.outcomes)

    return items


def _answers_metric(
    rankings: Sequence[Ranking], name: str, protocol: str
) -> Callable[[Record], Metric | None]:
    def asked(record: Record) -> tuple[object, ...] | None:
        answers = record.answers
        if answers is None:
            return None
        return answers.prompts_digest, answers.chat_template, answers.batch_size, answers.max_new_tokens

    # Other prompts under the same name are another measurement; the most common one is shown.
    prompts = [asked(r) for r in finished_records(rankings) if r.metric(name, protocol) is not None]
    usual = max(prompts, key=prompts.count)
    return lambda record: record.metric(name, protocol) if asked(record) == usual else None


__all__ = ["Measure", "answer_measures", "divergence_measures", "speed_measures", "task_measures"]
