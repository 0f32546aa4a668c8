"""The inputs of the cells of one model: calibration sets, texts, tasks and prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from suite.cell import CalibrationSpec, Cell, PerplexitySpec, TaskSpec

if TYPE_CHECKING:
    from methods.base import CalibrationSet
    from suite.data.corpora import EvaluationWindows
    from suite.data.prompts import PromptSet
    from suite.evaluation.first_token import FirstTokenProbe
    from suite.evaluation.lm_eval_tasks.loading import LoadedTask
    from suite.results.records.record import CalibrationIdentity


@dataclass(frozen=True)
class Timed:
    """A calibration set, and its build time, which is counted for every cell that uses it.

    Attributes:
        calibration: the calibration set.
        seconds: the time that it took to build.
        first_token: whether each sequence begins with the tokens that the tokenizer puts first.
    """

    calibration: CalibrationSet
    seconds: float
    first_token: bool = False

    @property
    def identity(self) -> CalibrationIdentity:
        """Identifies the tokens, for a record."""
        from suite.results.records.record import CalibrationIdentity

        return CalibrationIdentity(
            source=self.calibration.source,
            n_samples=self.calibration.n_samples,
            seqlen=self.calibration.seqlen,
            seed=self.calibration.seed,
            digest=self.calibration.digest,
            first_token=self.first_token,
        )


@dataclass(frozen=True)
class Inputs:
    """The inputs of the cells of one model: tokens, tasks, prompts, and the identity of the weights.

    The mappings contain the text of a spec whose `first_token` is `auto` without a first token. If the
    tokenizer has one, they also contain the same spec with `always`, and `decided` chooses between the two.
    `revision` and `folder_digest` are those of `ModelIdentity`.
    """

    calibrations: Mapping[CalibrationSpec, Timed]
    windows: Mapping[PerplexitySpec, EvaluationWindows]
    revision: str | None
    folder_digest: str | None
    tasks: Mapping[TaskSpec, LoadedTask] = field(default_factory=dict)
    prompts: Mapping[str, PromptSet] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    """Remarks on the model's files for the reader (`suite.models.loading.LoadedModel.remarks`)."""
    first_token: FirstTokenProbe | None = None
    """Windows to test whether the model needs its first token; None if nothing depends on it."""

    def decided(self, cell: Cell, *, first_token: bool) -> Cell:
        """Returns `cell` as it is run: specs that leave the first token to the model are decided."""
        if not first_token:
            return cell
        calibration = cell.calibration
        if calibration is not None and with_first_token(calibration) in self.calibrations:
            calibration = with_first_token(calibration)
        perplexity = (with_first_token(spec) for spec in cell.perplexity)
        led = tuple(
            new if new in self.windows else spec
            for new, spec in zip(perplexity, cell.perplexity, strict=True)
        )
        return cell.model_copy(update={"calibration": calibration, "perplexity": led})


Text = TypeVar("Text", CalibrationSpec, PerplexitySpec)


ModelKey = tuple[str, str | None, bool]
"""Name, revision and whether its code may run; these determine the tokenizer."""


def model_key(cell: Cell) -> ModelKey:
    """Returns the key of the cell's model."""
    return cell.model, cell.revision, cell.trust_remote_code


def loaded_key(cell: Cell) -> tuple[object, ...]:
    """Returns a key that is equal for cells that can share one loaded model."""
    return *model_key(cell), cell.dtype, cell.threads


def with_first_token(spec: Text) -> Text:
    """Returns the spec for a model that needs its first token: `auto` becomes `always`."""
    return spec.model_copy(update={"first_token": "always"}) if spec.first_token == "auto" else spec


def both_ways(spec: Text) -> list[Text]:
    """Returns the spec and, if it leaves the first token to the model, the same spec with a first token."""
    return list(dict.fromkeys((spec, with_first_token(spec))))


__all__ = ["Inputs", "ModelKey", "Text", "Timed", "both_ways", "loaded_key", "model_key", "with_first_token"]
