"""How much each metric may get worse: the built-in tolerances, and a user's file that overrides them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from methods.errors import InputError, did_you_mean
from suite.cell import Spec, first_fault

Checked = TypeVar("Checked", bound=Spec)

TASK = "task"
"""Name that represents the main metric of every task in tolerance files."""


class Tolerance(Spec, strict=True):
    """How far a metric may change before the change counts."""

    relative: float | None = Field(None, ge=0)
    """Tolerance as a multiple of the baseline's value."""
    absolute: float | None = Field(None, ge=0)
    """Tolerance in the unit of the metric."""
    ignore: bool = False
    """Whether the gate ignores the metric."""

    def reach(self, baseline: float) -> float:
        """Returns the largest difference from the baseline's value that is tolerated."""
        return max((self.relative or 0.0) * abs(baseline), self.absolute or 0.0)


class MetricTolerance(Tolerance):
    """The tolerance of a metric, with overrides for single protocols."""

    protocols: dict[str, Tolerance] = Field(default_factory=dict)
    """Tolerances by protocol, which replace the tolerance of the metric."""

    @model_validator(mode="after")
    def _says_something(self) -> MetricTolerance:
        for tolerance in (self, *self.protocols.values()):
            if tolerance.relative is None and tolerance.absolute is None and not tolerance.ignore:
                if tolerance is self and self.protocols:
                    continue
                raise ValueError("give relative, absolute, or ignore = true")
        return self


@dataclass(frozen=True)
class Tolerances:
    """The tolerances of all metrics.

    Attributes:
        significance: probability that the item tests of a run without any real change raise an alarm.
        metrics: tolerances by metric; `task` applies to every task.
        origin: the file that they come from, for messages.
    """

    significance: float
    metrics: Mapping[str, MetricTolerance]
    origin: str

    def of(self, metric: str, protocol: str) -> Tolerance:
        """Returns the tolerance of a metric on a protocol.

        Args:
            metric: name of the metric; `task` for the main metric of a task.
            protocol: the protocol as stored in the record.

        Raises:
            KeyError: the gate knows no such metric.
        """
        found = self.metrics[metric]
        return found.protocols.get(protocol, found)


def load_tolerances(path: Path | None = None) -> Tolerances:
    """Returns the built-in tolerances, overridden by those in a file.

    Args:
        path: a TOML file; None = only the built-in tolerances.

    Raises:
        InputError: the file cannot be read, is not TOML, or contains an unknown metric or key. The message
            is one line.
    """
    built_in = _built_in()
    if path is None:
        return built_in
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"tolerances {path} cannot be read: {error.strerror or error}") from error
    return parse_tolerances(data, file=str(path))


def parse_tolerances(data: bytes, *, file: str) -> Tolerances:
    """Parses a tolerance file; metrics that it does not name keep their built-in tolerances.

    Raises:
        InputError: for the same reasons as in `load_tolerances`.
    """
    built_in = _built_in()
    changed = _parse(data, file, list(built_in.metrics))
    metrics = {
        name: _over(tolerance, changed.metrics[name]) if name in changed.metrics else tolerance
        for name, tolerance in built_in.metrics.items()
    }
    significance = built_in.significance if changed.significance is None else changed.significance
    return Tolerances(significance, metrics, file)


@dataclass(frozen=True)
class _File:
    significance: float | None
    metrics: Mapping[str, MetricTolerance]


class _Significance(Spec, strict=True):
    significance: float = Field(gt=0, lt=1)


@lru_cache(maxsize=1)
def _built_in() -> Tolerances:
    data = files("suite").joinpath("results", "gate", "tolerances.toml").read_bytes()
    found = _parse(data, "tolerances.toml", None)
    assert found.significance is not None
    return Tolerances(found.significance, found.metrics, "built-in")


def _parse(data: bytes, file: str, known: list[str] | None) -> _File:
    try:
        raw = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not TOML in UTF-8: {' '.join(str(error).split())}") from error
    significance = None
    if "significance" in raw:
        significance = _checked(_Significance, {"significance": raw.pop("significance")}, file).significance
    metrics = {}
    for name, table in raw.items():
        if known is not None and name not in known:
            raise InputError(f"{file}: {name!r} is no metric of the gate{did_you_mean(name, known)}")
        if not isinstance(table, dict):
            raise InputError(f"{file}: {name}: must be a table, such as [{name}]")
        metrics[name] = _checked(MetricTolerance, table, file, name)
    return _File(significance, metrics)


def _over(built_in: MetricTolerance, changed: MetricTolerance) -> MetricTolerance:
    """Overrides a built-in tolerance with a user's table, which replaces the whole tolerance."""
    is_empty = changed.relative is None and changed.absolute is None and not changed.ignore
    base = built_in if is_empty else changed
    return base.model_copy(update={"protocols": {**built_in.protocols, **changed.protocols}})


def _checked(model: type[Checked], value: Any, file: str, *path: str) -> Checked:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        place, message = first_fault(error, model)
        raise InputError(f"{file}: {'.'.join([*path, *map(str, place)])}: {message}") from error


__all__ = ["TASK", "MetricTolerance", "Tolerance", "Tolerances", "load_tolerances", "parse_tolerances"]
