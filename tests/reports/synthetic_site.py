"""Records that pass verification, as files: every number follows from the losses of their windows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.cell import CalibrationSpec, Cell, PerplexitySpec
from suite.results import ResultStore
from suite.results.items import WindowLosses
from suite.results.record import CalibrationIdentity, Failure, Metric, ModelIdentity, ModuleReport, Record
from suite.results.statistics import perplexity_from_nll
from suite.results.verification import StoredItem
from tests.suite.results.consistent import CODE
from tests.suite.results.examples import ENVIRONMENT

DENSE_NLL = (3.0, 3.2, 2.8, 3.0)


def digest_of(*parts: object) -> str:
    """A SHA-256 that is the same for the same parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def site_record(
    method: str = "wanda",
    model: str = "org/alpha",
    *,
    pattern: str = "0.5",
    nll: Sequence[float | None] = (3.5, 3.6, 3.4, 3.5),
    seed: int = 0,
    day: int = 1,
    limit: int = 32,
    n_modules: int = 2,
    **changes: Any,
) -> Record:
    """A complete record; `settings`, and any field of `Record`, may be changed besides."""
    dense = method == "dense"
    calibrated = method not in ("dense", "magnitude")
    spec = PerplexitySpec(corpus="news-sample", seqlen=8, max_tokens=limit)
    cell = Cell(
        model=model,
        method=method,
        settings=changes.pop("settings", {}),
        pattern=None if dense else pattern,
        calibration=CalibrationSpec(n_samples=4, seqlen=8, seed=seed) if calibrated else None,
        dtype="float32",
        perplexity=(spec,),
    )
    windows = WindowLosses(
        protocol=spec.protocol,
        corpus_digest=digest_of("corpus", model, limit),
        corpus_revision="1",
        seqlen=8,
        limit=limit,
        nll=tuple(nll),
    )
    modules = () if dense else tuple(_module(n, pattern) for n in range(n_modules))
    fields: dict[str, Any] = {
        "status": "complete",
        "created": f"2026-01-{day:02}T10:00:00+00:00",
        "cell": cell,
        "code": CODE.model_copy(update={"method_version": None}) if dense else CODE,
        "environment": ENVIRONMENT,
        "model": ModelIdentity(
            name=model,
            revision=None,
            architecture="Llama",
            n_parameters=1000,
            weight_digest=digest_of("weights", model),
            dtype="float32",
        ),
        "calibration": cell.calibration
        and CalibrationIdentity(**cell.calibration.model_dump(), digest=digest_of("tokens", seed, model)),
        "mask_digest": None if dense else digest_of("mask", model, method, pattern, seed),
        "windows": (windows,),
        "modules": modules,
        "metrics": _metrics(windows, modules),
    }
    return Record(**{**fields, **changes}).sealed()


def dense_record(model: str = "org/alpha", **changes: Any) -> Record:
    """The dense model of `site_record`."""
    return site_record("dense", model, nll=changes.pop("nll", DENSE_NLL), **changes)


def failed(method: str = "sparsegpt", message: str = "the Hessian is singular", **changes: Any) -> Record:
    """A cell that failed."""
    built = site_record(method, **changes)
    empty = {"metrics": (), "windows": (), "modules": (), "mask_digest": None}
    failure = Failure(phase="solve", error="SingularHessianError", message=message, traceback="Traceback\n")
    return built.model_copy(update={"status": "failed", "failure": failure, **empty}).sealed()


def write(root: Path, *records: Record) -> Path:
    """Stores records with their side files, as a suite does."""
    store = ResultStore(root)
    for record in records:
        store.write(record, items_of(record) if record.windows else None)
    return root


def items_of(record: Record) -> pd.DataFrame:
    """What the side file of a record holds."""
    rows = [
        StoredItem(w.protocol, "nll", item, f"w{item}", None, None, value, w.seqlen - 1)
        for w in record.windows
        for item, value in enumerate(w.nll)
    ]
    frame = pd.DataFrame(rows, columns=list(StoredItem._fields))
    return frame.astype({"value": "float64", "n_tokens": "Int64"})


def _module(number: int, pattern: str) -> ModuleReport:
    shape = (8, 8)
    kept, _, of = pattern.partition(":")
    share = 1 - int(kept) / int(of) if of else float(pattern)
    return ModuleReport(
        module=f"layers.{number}.q",
        layer=number,
        block="attention",
        shape=shape,
        n_weights=64,
        n_pruned=8 * int(8 * share),
    )


def _metrics(windows: WindowLosses, modules: Sequence[ModuleReport]) -> tuple[Metric, ...]:
    found = perplexity_from_nll(windows.nll)
    numbers = {field: getattr(found, field) for field in ("value", "stderr", "low", "high", "n", "status")}
    perplexity = Metric(name="perplexity", protocol=windows.protocol, direction="lower", **numbers)
    if not modules:
        return (perplexity,)
    share = sum(m.n_pruned for m in modules) / sum(m.n_weights for m in modules)
    return perplexity, Metric(name="sparsity", protocol="target-modules", value=share, direction="none")
