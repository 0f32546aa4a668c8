"""`python -m benchmarks.gpu`: see benchmarks/README.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu import checkpoint, contract, onload, resident
from benchmarks.gpu.ledger import Ledger
from benchmarks.gpu.profiled import save_profile
from benchmarks.gpu.shapes import SHAPES, tiny
from benchmarks.rows import Row, described, load_rows, markdown, setting
from methods.errors import InputError

METHODS = ("wanda", "sparsegpt", "llm-barber", "magnitude")
PATTERNS = ("0.5", "2:4")
RESIDENT = ("7b", "13b", "opt")
ONLOAD = ("30b", "70b")
ALL = ("7b", "contract", "13b", "opt", "30b")
"""Stages in their order: the most requested ones come before the slow ones."""
TINY_CASES = 12
"""Number of contract cases in a tiny run, which only shows that the command works."""
PROFILED_LAYERS = 2
REPEATED_LAYERS = 2
"""Layers of LLaMA-7B that are pruned twice: large matrices use kernels that small ones might not."""
FAILED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    asked = _parser().parse_args(arguments)
    try:
        return _run(asked)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _run(asked: argparse.Namespace) -> int:
    if asked.table is not None:
        print(_table(asked.table))
        return 0
    if not asked.tiny and not torch.cuda.is_available():
        print("no CUDA device here; --tiny runs the same on small shapes on any machine", file=sys.stderr)
        return 2
    device = torch.device(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.profile is not None:
        shape = tiny(SHAPES["7b"]) if asked.tiny else SHAPES["7b"].with_layers(PROFILED_LAYERS)
        print(save_profile(asked.profile, asked.patterns[0], shape, device, asked.out))
        return 0
    deadline = time.monotonic() + asked.budget_seconds
    made_on = setting(device)
    failed = 0
    for stage in _stages(asked):
        ledger = Ledger(asked.out / f"{stage}.json", made_on, deadline)
        _run_stage(stage, asked, device, ledger, deadline)
        failed += ledger.n_failed
    print(_table(asked.out))
    return FAILED if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--stage", nargs="+", default=["all"], choices=["all", "model", *ALL, "70b"])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the JSON rows")
    parser.add_argument(
        "--budget-seconds",
        type=float,
        default=540,
        help="start no row that is not expected to end within this time; a rerun continues from there",
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--model", type=Path, help="folder of a model, for stage `model`")
    parser.add_argument(
        "--calibration", help="stage `model`: a corpus or a file; by default the project's docs"
    )
    parser.add_argument("--evaluation", help="like --calibration; by default README and changelog")
    parser.add_argument(
        "--placement",
        choices=("resident", "onload"),
        default="resident",
        help="stage `model`: placement of the model's layers, for pruning and evaluation",
    )
    parser.add_argument("--device", help="by default the GPU; with --tiny the CPU if there is no GPU")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on any machine")
    parser.add_argument("--profile", metavar="METHOD", help="save a profile of one method and stop")
    parser.add_argument("--table", type=Path, metavar="DIR", help="print the saved rows and stop")
    return parser


def _stages(asked: argparse.Namespace) -> list[str]:
    stages = list(ALL) if "all" in asked.stage else list(dict.fromkeys(asked.stage))
    if asked.model is not None or (asked.tiny and "all" in asked.stage):
        stages = [*(stage for stage in stages if stage != "model"), "model"]
    return stages


def _run_stage(
    stage: str, asked: argparse.Namespace, device: torch.device, ledger: Ledger, deadline: float
) -> None:
    """Runs one stage; if it cannot start at all, records that as a row."""
    try:
        if stage == "contract":
            repeated = tiny(SHAPES["7b"]) if asked.tiny else SHAPES["7b"].with_layers(REPEATED_LAYERS)
            limit = TINY_CASES if asked.tiny else None
            contract.run(device, ledger, asked.out, repeated=repeated, limit=limit)
        elif stage == "model":
            _run_model(asked, device, ledger, deadline)
        else:
            shape = tiny(SHAPES[stage]) if asked.tiny else SHAPES[stage]
            timed = onload if stage in ONLOAD else resident
            # Run every method at the first pattern first, so that an interrupted run has one row of each
            # method.
            patterns = asked.patterns[:1] if stage in ONLOAD and not asked.tiny else asked.patterns
            runs = [(method, pattern) for pattern in patterns for method in asked.methods]
            wanted = [run for run in runs if ledger.wants(_named(stage, shape.name, *run))]
            if wanted:
                timed.run(stage, shape, wanted, device, ledger, repeats=asked.repeats)
    except Exception as error:  # no memory for the model, or no such package: the other stages go on
        message = " ".join(str(error).split())[:300]
        ledger.take(
            Row(stage, "", "all", "all", status="failed", detail=f"{type(error).__name__}: {message}")
        )


def _named(stage: str, model: str, method: str, pattern: str) -> Row:
    placement = "onload" if stage in ONLOAD else "resident"
    return Row(stage, model, method, pattern, placement=placement)


def _run_model(asked: argparse.Namespace, device: torch.device, ledger: Ledger, deadline: float) -> None:
    runs = [(method, pattern) for method in asked.methods for pattern in asked.patterns]
    seconds = max(1.0, deadline - time.monotonic())
    given = {
        "calibration": asked.calibration,
        "evaluation": asked.evaluation,
        "placement": asked.placement,
        "timeout": seconds,
    }
    if asked.model is not None:
        checkpoint.run(
            asked.model, runs, device, ledger, asked.out / "model", **given, n_samples=128, seqlen=2048
        )
    elif asked.tiny:
        from tests.tiny import save_tiny_model

        with tempfile.TemporaryDirectory() as folder:
            model = save_tiny_model(Path(folder) / "tiny")
            checkpoint.run(model, runs, device, ledger, asked.out / "model", **given, n_samples=4, seqlen=32)
    else:
        raise InputError("stage 'model' needs --model FOLDER")


def _table(folder: Path) -> str:
    """Formats the saved rows of all stages as Markdown, as used in RESULTS.md."""
    found = [folder / f"{stage}.json" for stage in ("7b", "13b", "opt", *ONLOAD, "model", "contract")]
    stored = [load_rows(path) for path in found if path.is_file()]
    if not stored:
        return "no rows yet"
    sections = []
    for made_on in dict.fromkeys(described(made_on) for _, made_on in stored):
        rows = [row for rows, row_setting in stored if described(row_setting) == made_on for row in rows]
        sections += [made_on, "", markdown(rows), ""]
    return "\n".join(sections).rstrip()


if __name__ == "__main__":
    sys.exit(main())
