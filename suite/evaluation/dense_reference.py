"""Results of a dense model that are kept so that pruned models can be compared with it later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from suite.cell import AnswersSpec, Cell, PerplexitySpec, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

    from suite.evaluation.lm_eval_tasks.zero_shot import TaskRun
    from suite.evaluation.scoring.output_head import OutputHead
    from suite.evaluation.scoring.responses import Answer


@dataclass(frozen=True)
class GivenAnswers:
    """A model's answers to prompts.

    Attributes:
        answers: one answer per prompt.
        batch_size: number of prompts that were answered at once.
    """

    answers: Sequence[Answer]
    batch_size: int


@dataclass
class DenseReference:
    """The dense model's side of every comparison.

    Attributes:
        hidden: its final hidden states `[n_windows, seqlen, hidden]` on the CPU, in its dtype: a hundredth of
            the memory of its logits.
        tasks: its results on tasks, question by question.
        answers: its answers to prompts.
        seconds: the time that each of these measurements took.
        keeps_head: whether to keep its head as well, for comparison with models whose head may differ.
        head: its head; None if the compared models have the same one.
    """

    hidden: dict[PerplexitySpec, Tensor] = field(default_factory=dict)
    tasks: dict[TaskSpec, list[TaskRun]] = field(default_factory=dict)
    answers: dict[AnswersSpec, GivenAnswers] = field(default_factory=dict)
    seconds: dict[PerplexitySpec | TaskSpec | AnswersSpec, float] = field(default_factory=dict)
    keeps_head: bool = False
    head: OutputHead | None = None

    def missing(self, cell: Cell) -> Cell | None:
        """Returns `cell` with only those compared measurements that are missing here; None if none are."""
        perplexity = [s for s in cell.perplexity if s not in self.hidden] if cell.divergence else []
        tasks = [spec for spec in cell.tasks if spec not in self.tasks]
        answers = None if cell.answers in self.answers else cell.answers
        if not perplexity and not tasks and answers is None:
            return None
        rest = {"perplexity": tuple(perplexity), "tasks": tuple(tasks), "answers": answers, "speed": None}
        return cell.model_copy(update=rest)


__all__ = ["DenseReference", "GivenAnswers"]
