"""`python -m benchmarks.first_result`: how long a new user waits, in forwards of this machine.

The unit is one pass of 16 x 512 tokens through the model's decoder, with transformers' own code and the dtype
of the cells: the median of five passes before the suite and five after it. The time of the suite is that of
`prunebench run quickstart` from start to end, with packages, model and texts already present. With `--setup`,
the setup before that (environment, fetches) is timed separately, in a fresh clone with an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from suite.machine.devices import resolve_dtype
from suite.models.loading import load_model
from suite.planning.suite_cells import load_suite
from suite.results import ResultStore

SHAPE = (16, 512)
REPEATS = 5
REPOSITORY = Path(__file__).parent.parent
FETCHES = (
    "import logging; logging.basicConfig(level=20); from suite.planning.suite_cells import load_suite, plan; "
)
FETCHES += (
    "from suite.planning.preflight import preflight; preflight(plan(load_suite('{suite}'), dtype='float32'))"
)
"""Code that fetches everything that the cells of a suite read."""


@dataclass(frozen=True)
class FirstResult:
    """The measured times in seconds.

    Attributes:
        dtype: dtype of the cells.
        threads: threads of the process.
        unit: one forward as described above, the median.
        units: all measured forwards, those before the suite and those after it.
        suite: the command, from start to end.
        ratio: suite / unit.
        cells: maps the label of a cell to the seconds of each of its phases.
        environment: creating the environment; None if it was not measured.
        fetch: fetching and building what the cells read, with an empty cache; None if it was not measured.
    """

    dtype: str
    threads: int
    unit: float
    units: tuple[float, ...]
    suite: float
    ratio: float
    cells: dict[str, dict[str, float]]
    environment: float | None = None
    fetch: float | None = None


def forward_seconds(model: str, dtype: str, repeats: int = REPEATS) -> list[float]:
    """Returns the seconds of passes of 16 x 512 random tokens through the decoder, after a warm-up pass."""
    loaded = load_model(model, dtype=dtype, device=torch.device("cpu")).model
    tokens = torch.randint(loaded.config.get_text_config().vocab_size, SHAPE)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            loaded.base_model(input_ids=tokens, use_cache=False)
            seconds.append(time.perf_counter() - start)
    return seconds[1:]


def suite_seconds(suite: str, out: Path) -> tuple[float, dict[str, dict[str, float]]]:
    """Returns the seconds of `prunebench run` into an empty folder, and those of each cell's phases.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "suite.cli", "run", suite, "--out", str(out.absolute())]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    records = [stored.record for stored in ResultStore(out).records().records]
    return seconds, {r.cell.label: {p.name: p.seconds for p in r.phases} for r in records}


def setup_seconds(suite: str, folder: Path) -> tuple[float, float]:
    """Returns the seconds of `make .venv/installed` in a clone, and of all fetches into an empty cache.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """
    copy = folder / "copy"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(copy)], check=True)
    start = time.perf_counter()
    subprocess.run(["make", ".venv/installed"], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    made = time.perf_counter()
    environment = {**os.environ, "PRUNEBENCH_CACHE": str(folder / "cache")}
    fetches = [str(copy / ".venv/bin/python"), "-c", FETCHES.format(suite=suite)]
    subprocess.run(fetches, cwd=copy, check=True, env=environment)
    return made - start, time.perf_counter() - made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; `--out` saves the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="quickstart", help="a built-in suite or a file, with one model")
    parser.add_argument("--dtype", default="auto", help="dtype of the cells, instead of the suite's")
    parser.add_argument("--setup", action="store_true", help="time the environment and the fetches too")
    parser.add_argument("--runs", type=Path, help="a new folder for records and report")
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    options = parser.parse_args(arguments)
    if options.runs is not None and options.runs.exists():
        parser.error(f"--runs {options.runs} exists; its records would be reused instead of measured")
    config = load_suite(options.suite)
    dtype = resolve_dtype(options.dtype, torch.device("cpu"))
    folder = Path(tempfile.mkdtemp(prefix="first-result-"))
    try:
        environment, fetch = setup_seconds(options.suite, folder) if options.setup else (None, None)
        source = Path(options.suite) if Path(options.suite).is_file() else _template(options.suite)
        file = folder / "suite.toml"
        file.write_text(source.read_text().replace('dtype = "auto"', f'dtype = "{dtype}"'))
        units = forward_seconds(config.models[0].name, dtype)
        seconds, cells = suite_seconds(str(file), options.runs or folder / "runs")
        units += forward_seconds(config.models[0].name, dtype)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    unit = statistics.median(units)
    result = FirstResult(
        *(dtype, torch.get_num_threads(), unit, tuple(units), seconds, seconds / unit, cells),
        environment=environment,
        fetch=fetch,
    )
    _print(result)
    if options.out is not None:
        options.out.write_text(json.dumps(asdict(result), indent=2))


def _template(name: str) -> Path:
    return REPOSITORY / "suite" / "templates" / f"{name}.toml"


def _print(result: FirstResult) -> None:
    if result.environment is not None:
        print(f"environment {result.environment:.0f} s, fetches {result.fetch:.0f} s")
    print(
        f"{result.dtype}, {result.threads} threads: {len(result.cells)} cells in {result.suite:.1f} s, "
        f"{result.ratio:.1f} x one forward of {SHAPE[0]} x {SHAPE[1]} tokens ({result.unit:.2f} s, "
        f"{min(result.units):.2f} to {max(result.units):.2f})"
    )
    for label, phases in result.cells.items():
        spent = ", ".join(f"{name} {seconds / result.unit:.2f}" for name, seconds in phases.items())
        print(f"  {label}: {spent}")


if __name__ == "__main__":
    main()
