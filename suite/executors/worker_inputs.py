"""What cells read, on its way to a worker in another process."""

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
    """What the cells of one model read, as it goes to another process.

    Questions do not travel: they are loaded there, and have to be the same.

    Attributes:
        inputs: all but the tasks.
        task_digests: of each task's questions.
    """

    inputs: Inputs
    task_digests: Mapping[TaskSpec, Mapping[str, str]]

    @classmethod
    def of(cls, inputs: Inputs) -> WorkerInputs:
        """What is sent of `inputs`."""
        digests = {spec: dict(task.digests) for spec, task in inputs.tasks.items()}
        return cls(replace(inputs, tasks={}), digests)

    def unpacked(self) -> Inputs:
        """The inputs, its tasks loaded here.

        Raises:
            InputError: a task cannot be loaded, or asks other questions here.
        """
        from suite.evaluation.lm_eval_tasks.loading import load_task

        tasks = {}
        for spec, digests in self.task_digests.items():
            tasks[spec] = load_task(spec)
            if dict(tasks[spec].digests) != digests:
                raise InputError(f"task {spec.name!r} asks other questions on this worker's machine")
        return replace(self.inputs, tasks=tasks)


__all__ = ["WorkerInputs"]
