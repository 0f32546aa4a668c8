"""Stores the dense model's side of comparisons in files: hidden states, task results, answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from suite.cell import AnswersSpec, Cell, PerplexitySpec, TaskSpec
from suite.evaluation.dense_reference import DenseReference, GivenAnswers
from suite.evaluation.lm_eval_tasks.zero_shot import TaskRun
from suite.evaluation.scoring.responses import Answer
from suite.sharing.folder import SharedFolder
from suite.sharing.identity import digest_of

if TYPE_CHECKING:
    from suite.evaluation.inputs import Inputs

ReferenceSpec = PerplexitySpec | TaskSpec | AnswersSpec
HIDDEN, VALUES, COST = "hidden.safetensors", "values.json", "cost.json"
_TASK_RUNS, _ANSWERS = TypeAdapter(list[TaskRun]), TypeAdapter(list[Answer])


class ReferenceFiles:
    """Stores the results of one dense model in parts, one per corpus, task or set of prompts.

    Args:
        folder: the folder in which entries are stored.
        conditions: weights, code and machine.
        inputs: texts, tasks and prompts.
    """

    def __init__(self, folder: SharedFolder, conditions: Mapping[str, object], inputs: Inputs) -> None:
        self._folder = folder
        self._conditions = conditions
        self._inputs = inputs

    def locked(self) -> AbstractContextManager[Path]:
        """Returns a context in which no other process measures this dense model."""
        return self._folder.locked(f"dense-{digest_of(self._conditions)}")

    def digest(self, spec: ReferenceSpec) -> str:
        """Returns the digest of everything that a part depends on."""
        return part_digest(spec, self._conditions, self._inputs)

    def read(self, spec: ReferenceSpec, reference: DenseReference) -> None:
        """Adds a part and its recorded seconds to `reference`, if it is stored completely."""
        entry = self._folder.root / f"dense-{self.digest(spec)}"
        try:
            seconds = float(json.loads((entry / COST).read_text(encoding="utf-8"))["seconds"])
            if isinstance(spec, PerplexitySpec):
                reference.hidden[spec] = load_file(entry / HIDDEN)["hidden"]
            elif isinstance(spec, TaskSpec):
                reference.tasks[spec] = _TASK_RUNS.validate_python(_values(entry))
            else:
                given = _values(entry)
                answers = _ANSWERS.validate_python(given["answers"])
                reference.answers[spec] = GivenAnswers(answers, int(given["batch_size"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return
        reference.seconds[spec] = seconds

    def write(self, spec: ReferenceSpec, reference: DenseReference) -> None:
        """Stores a part of `reference`; the caller holds the lock."""

        def fill(entry: Path) -> None:
            if isinstance(spec, PerplexitySpec):
                save_file({"hidden": reference.hidden[spec]}, entry / HIDDEN)
            elif isinstance(spec, TaskSpec):
                _write_values(entry, [asdict(run) for run in reference.tasks[spec]])
            else:
                _write_values(entry, asdict(reference.answers[spec]))
            cost = {"seconds": reference.seconds[spec]}
            (entry / COST).write_text(json.dumps(cost), encoding="utf-8")

        n_bytes = reference.hidden[spec].nbytes if isinstance(spec, PerplexitySpec) else 0
        self._folder.put(f"dense-{self.digest(spec)}", fill, n_bytes)


def compared_by(cell: Cell) -> Iterator[ReferenceSpec]:
    """Yields the measurements of the dense model with which the cell is compared."""
    if cell.divergence:
        yield from cell.perplexity
    yield from cell.tasks
    if cell.answers is not None:
        yield cell.answers


def part_digest(spec: ReferenceSpec, conditions: Mapping[str, object], inputs: Inputs) -> str:
    """Returns the digest of everything a dense result depends on: `spec`, its content, and `conditions`."""
    if isinstance(spec, PerplexitySpec):
        content: object = (inputs.windows[spec].corpus_digest, len(inputs.windows[spec].input_ids))
    elif isinstance(spec, TaskSpec):
        content = dict(inputs.tasks[spec].digests)
    else:
        content = inputs.prompts[spec.prompts].digest
    asked = {"kind": type(spec).__name__, **spec.model_dump(mode="json")}
    return digest_of({**conditions, "asked": asked, "content": content})


def _values(entry: Path) -> Any:
    return json.loads((entry / VALUES).read_text(encoding="utf-8"))


def _write_values(entry: Path, values: object) -> None:
    (entry / VALUES).write_text(json.dumps(values), encoding="utf-8")


__all__ = ["ReferenceFiles", "ReferenceSpec", "compared_by", "part_digest"]
