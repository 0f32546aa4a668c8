"""What cells read, on its way to a worker in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from methods.errors import InputError
from suite.evaluation.inputs import Inputs, Timed

if TYPE_CHECKING:
    from suite.cell import CalibrationSpec, PerplexitySpec, TaskSpec
    from suite.data.corpora import EvaluationWindows
    from suite.data.prompts import PromptSet
    from suite.evaluation.first_token import FirstTokenProbe


@dataclass(frozen=True)
class WorkerInputs:
    """What the cells of one model read, as it goes to another process.

    Questions do not travel: they are loaded there, and have to be the same.
    """

    calibrations: Mapping[CalibrationSpec, Timed]
    windows: Mapping[PerplexitySpec, EvaluationWindows]
    revision: str | None
    folder_digest: str | None
    tasks: Mapping[TaskSpec, Mapping[str, str]] = field(default_factory=dict)
    prompts: Mapping[str, PromptSet] = field(default_factory=dict)
    first_token: FirstTokenProbe | None = None

    @classmethod
    def of(cls, inputs: Inputs) -> WorkerInputs:
        """What is sent of `inputs`."""
        return cls(
            calibrations=inputs.calibrations,
            windows=inputs.windows,
            revision=inputs.revision,
            folder_digest=inputs.folder_digest,
            tasks={spec: dict(task.digests) for spec, task in inputs.tasks.items()},
            prompts=inputs.prompts,
            first_token=inputs.first_token,
        )

    def unpacked(self) -> Inputs:
        """The inputs, its tasks loaded here.

        Raises:
            InputError: a task cannot be loaded, or asks other questions here.
        """
        from suite.evaluation.lm_eval_tasks.loading import load_task

        tasks = {}
        for spec, digests in self.tasks.items():
            tasks[spec] = load_task(spec)
            if dict(tasks[spec].digests) != dict(digests):
                raise InputError(f"task {spec.name!r} asks other questions on this worker's machine")
        return Inputs(
            calibrations=self.calibrations,
            windows=self.windows,
            revision=self.revision,
            folder_digest=self.folder_digest,
            tasks=tasks,
            prompts=self.prompts,
            first_token=self.first_token,
        )


__all__ = ["WorkerInputs"]
