"""`pruning.json`, stored beside a pruned checkpoint: the record of the prune, and its zeros per module."""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, model_validator

from methods.errors import InputError
from methods.masks.pattern import parse_pattern
from suite.cell import Spec
from suite.results.records.reading import RecordError, parse_record, validated
from suite.results.records.record import ModelIdentity, ModuleReport, Record

PRUNING = "pruning.json"
VERSION: Literal[2] = 2
"""Schema version of the file; the record inside has its own schema version."""


class Pruning(Spec):
    """The content of `pruning.json`."""

    schema_version: Literal[2] = VERSION
    record: Record
    """Sealed record of the prune: cell, masks, modules and costs, no measurements of the pruned model."""
    n_zeros: dict[str, NonNegativeInt]
    """Number of zeros in the stored weight of each target module. It may exceed the number of pruned weights,
    because a dense weight was 0 already or a reconstruction set one to 0."""

    @property
    def model(self) -> ModelIdentity:
        """The dense model."""
        assert self.record.model is not None
        return self.record.model

    @property
    def sparsity(self) -> float:
        """Share of the target modules' weights that were removed."""
        return self._value("sparsity")

    @property
    def prune_seconds(self) -> float:
        """Wall-clock time of the prune including calibration, without loading the model."""
        return self._value("prune_seconds")

    def _value(self, name: str) -> float:
        metric = self.record.metric(name)
        if metric is None or metric.value is None:
            raise ValueError(f"the record has no {name}")
        return metric.value

    @model_validator(mode="after")
    def _check_record(self) -> Pruning:
        cell = self.record.cell
        if not cell.prunes or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", cell.method):
            raise ValueError(f"method {cell.method!r} prunes nothing")
        parse_pattern(cell.pattern or "")
        if self.record.model is None or not re.fullmatch(r"[0-9a-f]{64}", self.record.mask_digest or ""):
            raise ValueError("the record lacks its model or its mask_digest")
        if self.n_zeros.keys() != {module.module for module in self.record.modules}:
            raise ValueError("modules and n_zeros do not name the same modules")
        if not 0 <= self.sparsity <= 1 or self.prune_seconds < 0:
            raise ValueError(f"sparsity {self.sparsity} or prune_seconds {self.prune_seconds} is impossible")
        return self


def write_pruning(folder: Path, pruning: Pruning) -> None:
    """Writes `pruning.json` into a folder."""
    text = json.dumps(pruning.model_dump(mode="json"), indent=1, allow_nan=False)
    (folder / PRUNING).write_text(f"{text}\n", encoding="utf-8")


def read_pruning(folder: Path) -> Pruning | None:
    """Reads the `pruning.json` beside a checkpoint; None if there is none or another program wrote it.

    Raises:
        InputError: the file is damaged, or was changed after it was written.
    """
    path = folder / PRUNING
    try:
        raw = json.loads(path.read_bytes())
        if not (isinstance(raw, dict) and {"schema_version", "mask_digest"} & raw.keys()):
            return None
        return _parse(raw, str(path))
    except FileNotFoundError:
        return None
    except RecordError as error:
        raise InputError(str(error)) from error
    except (OSError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: Invalid JSON: {error}") from error


def _parse(raw: dict[str, Any], origin: str) -> Pruning:
    version = raw.get("schema_version")
    if version == 1:
        raw = _from_version_1(raw, origin)
    elif version == VERSION:
        record = parse_record(json.dumps(raw.get("record")).encode(), origin=origin)
        raw = {**raw, "record": record.model_dump(mode="json")}
    else:
        raise RecordError(origin, f"has schema version {version}, this prunebench reads up to {VERSION}")
    return validated(Pruning, raw, origin)


def _from_version_1(raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """Converts schema version 1, which was not a record and lacks the date and the total of phase `prune`."""
    try:
        model, used, modules = raw["model"], raw.get("calibration"), raw["modules"]
        cell = {key: raw.get(key) for key in ("method", "settings", "pattern", "allocation")}
        cell |= {key: model[key] for key in ("revision", "dtype")} | {"model": model["name"]}
        if used is not None:
            drawn = {key: used[key] for key in ("source", "n_samples", "seqlen")}
            cell["calibration"] = {**drawn, "seed": used["seed"] or 0}
        metrics = ("sparsity", "target-modules", "none"), ("prune_seconds", "", "lower")
        reports = [
            {key: report[key] for key in ModuleReport.model_fields.keys() & report.keys()}
            | {"module": name, "n_weights": prod(report["shape"])}
            for name, report in modules.items()
        ]
        record: dict[str, Any] = {
            **{key: raw[key] for key in ("code", "environment", "model", "mask_digest")},
            **{key: raw[key] for key in ("placement", "warnings") if key in raw},
            "status": "complete",
            "created": "",
            "cell": cell,
            "calibration": used,
            "phases": [{"name": name, "seconds": seconds} for name, seconds in raw["phases"].items()],
            "metrics": [
                {"name": name, "protocol": protocol, "value": raw[name], "direction": direction}
                for name, protocol, direction in metrics
            ],
            "modules": reports,
        }
        return {"record": record, "n_zeros": {name: report["n_zeros"] for name, report in modules.items()}}
    except KeyError as error:
        raise RecordError(origin, f"{error.args[0]}: Field required") from error
    except (AttributeError, TypeError) as error:
        raise RecordError(origin, f"contains values that prunebench never writes: {error}") from error


__all__ = ["PRUNING", "VERSION", "Pruning", "read_pruning", "write_pruning"]
