"""Records to test with."""

from __future__ import annotations

from typing import Any

import pandas as pd

from suite.cell import CalibrationSpec, Cell, PerplexitySpec
from suite.results.records.items import WindowLosses
from suite.results.records.record import (
    CodeVersion,
    Environment,
    Failure,
    Metric,
    ModuleReport,
    PhaseCost,
    Record,
)

CODE = CodeVersion(prunebench="0.1.0", method_version=1, source_digest="a" * 64)
OTHER_CODE = CodeVersion(prunebench="0.1.0", method_version=1, source_digest="b" * 64)
ENVIRONMENT = Environment(
    python="3.11.7",
    platform="Linux",
    processor="a processor",
    physical_cores=2,
    host_memory_bytes=2**34,
    device="cpu",
    packages={"torch": "2.13.0"},
    threads=2,
    native_bf16=False,
)


def make_cell(**changes: Any) -> Cell:
    fields: dict[str, Any] = {
        "model": "org/model",
        "method": "wanda",
        "settings": {"granularity": "output", "alpha": 0.1, "initial": None, "nested": {"depth": 2}},
        "pattern": "0.5",
        "calibration": CalibrationSpec(),
        "dtype": "float32",
        "perplexity": (PerplexitySpec(corpus="wiki-sample"),),
    }
    return Cell(**{**fields, **changes})


def make_record(cell: Cell | None = None, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "status": "complete",
        "created": "2025-01-01T00:00:00Z",
        "cell": cell or make_cell(),
        "code": CODE,
        "environment": ENVIRONMENT,
        "phases": (PhaseCost(name="solve", seconds=1.5, peak_host_bytes=10**9),),
        "metrics": (
            Metric(name="perplexity", protocol="wiki-sample-token-s2048", value=25.5, n=2, direction="lower"),
            Metric(name="accuracy", protocol="cloze", value=None, direction="higher", status="not run"),
            Metric(name="sparsity", protocol="", value=0.5, direction="none"),
        ),
        "windows": (
            WindowLosses(
                protocol="wiki-sample-token-s2048",
                corpus_digest="c" * 64,
                corpus_revision="1",
                seqlen=2048,
                limit=None,
                nll=(3.25, None),
            ),
        ),
        "modules": (
            ModuleReport(
                module="layers.0.q",
                layer=0,
                block="attention",
                shape=(4, 8),
                n_weights=32,
                n_pruned=16,
                warnings=("déjà vu",),
            ),
        ),
    }
    return Record(**{**fields, **changes})


def make_failed(cell: Cell | None = None, **changes: Any) -> Record:
    failure = Failure(phase="solve", error="NonFiniteError", message="layers.3.q: NaN", traceback="...")
    fields: dict[str, Any] = {"status": "failed", "failure": failure, "metrics": (), "windows": ()}
    return make_record(cell, **{**fields, **changes})


def make_items(n: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"item": range(n), "nll": [0.5 * i for i in range(n)]})
