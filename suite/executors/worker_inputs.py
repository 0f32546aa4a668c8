"""The inputs of cells in the form in which they are sent to a worker in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from methods.errors import InputError

if TYPE_CHECKING:
    from suite.cell import TaskSpec
    from suite.evaluation.inputs import Inputs


@dataclass(frozen=True)
class WorkerInputs:
    """The inputs of the cells of one model, for another process.

    Task questions are not sent: the other process loads them and checks that they are the same.

    Attributes:
        inputs: all inputs except the tasks.
        task_digests: digests of each task's questions.
    """

    inputs: Inputs
    task_digests: Mapping[TaskSpec, Mapping[str, str]]

    @classmethod
    def of(cls, inputs: Inputs) -> WorkerInputs:
        """Returns the parts of `inputs` that are sent."""
        digests = {spec: dict(task.digests) for spec, task in inputs.tasks.items()}
        return cls(replace(inputs, tasks={}), digests)

    def unpacked(self) -> Inputs:
        """Returns the inputs with the tasks loaded in this process.

        Raises:
            InputError: a task cannot be loaded, or has different questions here.
        """
        from suite.evaluation.lm_eval_tasks.loading import load_task

        tasks = {}
        for spec, digests in self.task_digests.items():
            tasks[spec] = load_task(spec)
            if dict(tasks[spec].digests) != digests:
                raise InputError(f"task {spec.name!r} has different questions on this worker's machine")
        return replace(self.inputs, tasks=tasks)


__all__ = ["WorkerInputs"]
