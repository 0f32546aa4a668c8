"""Records that pass verification, as files: every number follows from the losses of their windows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.cell import CalibrationSpec, Cell, PerplexitySpec
from suite.results import ResultStore
from suite.results.records.items import WindowLosses
from suite.results.records.record import (
    CalibrationIdentity,
    Failure,
    Metric,
    ModelIdentity,
    ModuleReport,
    PhaseCost,
    Record,
)
from suite.results.statistics.perplexity import perplexity_from_nll
from suite.results.verification import ItemRow
from tests.suite.results import consistent
from tests.suite.results.consistent import CODE
from tests.suite.results.examples import ENVIRONMENT

DENSE_NLL = (3.0, 3.2, 2.8, 3.0)
PEAK = 2**29


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
    seconds: float = 0.0,
    **changes: Any,
) -> Record:
    """A complete record; `settings`, and any field of `Record`, may be changed besides.

    With `seconds`, it says what the prune took: this long, and half a GiB.
    """
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
    phases = (PhaseCost(name="prune", seconds=seconds, peak_host_bytes=PEAK),) if seconds else ()
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
        and CalibrationIdentity(
            **cell.calibration.model_dump(exclude={"first_token"}), digest=digest_of("tokens", seed, model)
        ),
        "mask_digest": None if dense else digest_of("mask", model, method, pattern, seed),
        "windows": (windows,),
        "modules": modules,
        "phases": phases,
        "metrics": (*_metrics(windows, modules), *_costs(phases)),
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


def measured(model: str = "org/model", *, prompt: str = "p", text: str = "t") -> tuple[Record, Record]:
    """A dense record and a pruned one with divergence, a task, and answers that say `text` to `prompt`."""
    pair = []
    for record in (consistent.dense_record(), consistent.pruned_record()):
        assert record.answers is not None and record.model is not None
        said = [one.model_copy(update={"prompt": prompt, "text": text}) for one in record.answers.answers]
        changes = {
            "cell": record.cell.model_copy(update={"model": model}),
            "model": record.model.model_copy(update={"name": model}),
            "answers": record.answers.model_copy(update={"answers": tuple(said)}),
        }
        pair.append(record.model_copy(update=changes).sealed())
    return pair[0], pair[1]


def steps(root: Path, model: str, *, slower: float = 1.0) -> Path:
    """A cell that was measured on ten days, by other code every day, and from the sixth on was worse.

    By so much slower, too.
    """
    for day in range(1, 11):
        level = 3.5 if day < 6 else 3.6
        nll = (level, level + 0.1, level - 0.1, level)
        code = CODE.model_copy(update={"source_digest": digest_of(day)})
        took = (2.0 + 0.01 * (day % 3)) * (1.0 if day < 6 else slower)
        write(root / f"{day:02}", site_record("wanda", model, nll=nll, day=day, code=code, seconds=took))
    return root


def full_tree(root: Path, *models: str) -> tuple[Path, Path]:
    """Records that make every kind of page and show every word of trust, and the folder of their reruns.

    On each of `models` stand three methods, one with two seeds. A history, a measured model, a failure, a
    record that contradicts itself, one that came out otherwise and a file that is no record come besides.
    """
    results, reruns = root / "results", root / "reruns"
    for place, model in enumerate(models):
        tree = results / f"model-{place}"
        write(tree, dense_record(model), site_record("magnitude", model, nll=(4.5, 4.7, 4.3, 4.5)))
        for seed in (0, 1):
            write(
                tree, site_record("sparsegpt", model, nll=(3.2, 3.4, 3.0, 3.2), seed=seed, seconds=9 + seed)
            )
        write(tree, site_record("wanda", model, pattern="2:4", nll=(3.9, 4.1, 3.7, 3.9), seconds=3.0))
    first = models[0]
    steps(results / "steps", first)
    write(results / "measured", *measured())
    write(results / "failed", failed("sparsegpt", model=first, pattern="0.7"))
    made_up = site_record("wanda", first, pattern="0.6")
    metrics = (made_up.metrics[0].model_copy(update={"value": 1.0}), *made_up.metrics[1:])
    write(results / "made-up", made_up.model_copy(update={"metrics": metrics}))
    write(results / "other", site_record("magnitude", first, pattern="0.3"))
    (results / "cut--0.5--00000001.json").write_text('{"schema_version": 3,', encoding="utf-8")
    write(reruns, site_record("magnitude", first, nll=(4.5, 4.7, 4.3, 4.5), day=20))
    write(reruns, site_record("magnitude", first, pattern="0.3", nll=(3.9,) * 4, day=20))
    return results, reruns


def write(root: Path, *records: Record) -> Path:
    """Stores records with their side files, as a suite does."""
    store = ResultStore(root)
    for record in records:
        items = consistent.rows(record) if record.tasks else items_of(record)
        store.write(record, items if record.windows else None)
    return root


def items_of(record: Record) -> pd.DataFrame:
    """What the side file of a record holds."""
    rows = [
        ItemRow(w.protocol, "nll", item, f"w{item}", None, None, value, w.seqlen - 1)
        for w in record.windows
        for item, value in enumerate(w.nll)
    ]
    frame = pd.DataFrame(rows, columns=list(ItemRow._fields))
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


def _costs(phases: Sequence[PhaseCost]) -> tuple[Metric, ...]:
    if not phases:
        return ()
    spent = sum(phase.seconds for phase in phases)
    none = "no accelerator in use"
    return (
        Metric(name="prune_seconds", protocol="", value=spent, direction="lower"),
        Metric(name="peak_host_bytes", protocol="", value=PEAK, direction="lower"),
        Metric(name="peak_device_bytes", protocol="", value=None, direction="lower", status=none),
    )
