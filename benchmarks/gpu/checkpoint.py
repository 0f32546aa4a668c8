"""Stage `model`: prunes, evaluates and reports a real model with `prunebench run` on the device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.ledger import Ledger
from benchmarks.rows import Row
from benchmarks.timing import SHORT_OF_MEMORY
from methods.errors import InputError

STAGE = "model"
NEEDED = (
    *("pydantic", "typer", "rich", "pandas", "pyarrow", "scipy", "jinja2", "altair", "vl_convert"),
    *("safetensors", "tokenizers", "filelock", "platformdirs"),
)
"""Packages that `prunebench run` imports in addition to those of the timing stages."""

PHASES = ("calibrate", "propagate", "statistics", "solve")
"""Phases of a record that make up the time of its prune."""

ROOT = Path(__file__).resolve().parents[2]


def run(
    model: Path,
    runs: Sequence[tuple[str, str]],
    device: torch.device,
    ledger: Ledger,
    out: Path,
    *,
    calibration: str | None,
    evaluation: str | None,
    n_samples: int,
    seqlen: int,
    placement: str,
    timeout: float,
) -> None:
    """Runs a suite of this one model and makes one row per record.

    Records and report are stored in `out`; a rerun keeps existing records.

    Args:
        model: a folder written by `save_pretrained`, with the tokenizer.
        runs: method and pattern of each row; each method runs with each of the patterns.
        device: the device of the model.
        ledger: takes the rows.
        out: folder for records and report.
        calibration: a corpus or a file, as for `prunebench run`; by default the pages of `docs`, which are
            always available and suffice to show that everything works.
        evaluation: a corpus or a file; by default the README and the changelog.
        n_samples: number of calibration sequences.
        seqlen: tokens per sequence and per window.
        placement: `resident` or `onload`, for prunes and evaluations; each has its own records.
        timeout: seconds after which the run is stopped; finished records are kept.

    Raises:
        InputError: packages are missing, or the folder contains no model.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(
            f"stage 'model' runs `prunebench run`, which also needs {', '.join(missing)}: copy their wheels "
            "next to the repository and install them with `pip install --no-index --no-deps`"
        )
    if not (model / "config.json").is_file():
        raise InputError(f"--model {model.name}: no config.json in that folder")
    out.mkdir(parents=True, exist_ok=True)
    suite = out / "suite.toml"
    calibration = calibration or _joined((ROOT / "docs").rglob("*.md"), out / "documentation.txt")
    evaluation = evaluation or _joined(ROOT.glob("*.md"), out / "held-out.txt")
    suite.write_text(_suite(model, runs, calibration, evaluation, n_samples, seqlen), encoding="utf-8")
    results = out / "results" / placement
    command = [sys.executable, "-m", "suite.cli", "run", str(suite), "--out", str(results)]
    command += ["--device", str(device), "--placement", placement]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, timeout=timeout, check=False)
        ending = f"`prunebench run` ended with {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        ending = f"`prunebench run` was stopped after {timeout:.0f} s"
    for row in _rows(sorted(results.rglob("*--*.json"))):
        ledger.take(row)
    if ending:
        summary = Row(STAGE, model.name, "all", "all", placement=placement, status="failed", detail=ending)
        ledger.take(summary)


def _rows(records: Iterable[Path]) -> Iterable[Row]:
    for path in records:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        cell, metrics = record["cell"], {metric["name"]: metric for metric in record["metrics"]}
        calibration = record["calibration"] or {}
        failure = record["failure"]
        yield Row(
            STAGE,
            Path(cell["model"]).name,
            cell["method"],
            cell["pattern"] or "",
            placement=record["placement"],
            dtype=cell["dtype"],
            n_samples=calibration.get("n_samples", 0),
            seqlen=calibration.get("seqlen", 0),
            n_layers=len({module["layer"] for module in record["modules"]}),
            seconds=metrics.get("prune_seconds", {}).get("value"),
            phases={p["name"]: p["seconds"] for p in record["phases"] if p["name"] in PHASES},
            peak_device_bytes=metrics.get("peak_device_bytes", {}).get("value"),
            status="ok" if failure is None else "failed",
            detail=_perplexity(metrics) if failure is None else f"{failure['error']}: {failure['message']}",
            warnings=tuple(text for text in record["warnings"] if SHORT_OF_MEMORY in text),
        )


def _perplexity(metrics: Mapping[str, Any]) -> str:
    """Formats perplexity with its protocol, where the corpus is named by its file name only."""
    if "perplexity" not in metrics:
        return ""
    found = metrics["perplexity"]
    value = found["status"] if found["value"] is None else f"{found['value']:.3f}"
    return f"perplexity {value} ({found['protocol'].rpartition('/')[2]}, n {found['n']}, lower is better)"


def _suite(
    model: Path,
    runs: Sequence[tuple[str, str]],
    calibration: str,
    evaluation: str,
    n_samples: int,
    seqlen: int,
) -> str:
    methods = "".join(
        f"[[methods]]\nname = {json.dumps(name)}\n" for name in dict.fromkeys(m for m, _ in runs)
    )
    patterns = json.dumps(list(dict.fromkeys(pattern for _, pattern in runs)))
    return f"""name = "gpu"
description = "One model, pruned, evaluated and reported on this machine."
models = [{json.dumps(str(model.resolve()))}]
patterns = {patterns}
dtype = "bfloat16"
{methods}
[calibration]
source = {json.dumps(calibration)}
n_samples = {n_samples}
seqlen = {seqlen}
[[perplexity]]
corpus = {json.dumps(evaluation)}
seqlen = {seqlen}
"""


def _joined(pages: Iterable[Path], path: Path) -> str:
    """Writes the pages into one file; returns its absolute path."""
    path.write_text("\n\n".join(page.read_text(encoding="utf-8") for page in sorted(pages)), encoding="utf-8")
    return str(path.resolve())


__all__ = ["run"]
