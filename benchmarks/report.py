"""`python -m benchmarks.report`: seconds and memory of `prunebench report` over thousands of records.

The tree is synthetic: models x patterns x variants of the methods, with one dense record per model, sealed
and stored in the layout of the store. To write it fast, most of a record's text is shared with the others;
its identity, windows and perplexities are its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import exp
from pathlib import Path
from typing import Any

import psutil

from suite.results.records.items import WindowLosses
from suite.results.records.reading import parse_record, record_bytes
from suite.results.records.record import Metric, ModuleReport, Record
from tests.reports.synthetic import SETTINGS
from tests.reports.synthetic_measured import measured_record

PATTERNS = ("0.5", "2:4", "0.3", "0.4", "0.6", "0.7", "0.8", "4:8")
METHODS = tuple(kind for kind in SETTINGS if kind != "dense")
N_VARIANTS = 25
A_MODEL = len(PATTERNS) * N_VARIANTS
SHARED = ("environment", "reference_speed", "divergences", "tasks", "answers", "modules")
"""Keys of a record whose text is the same in all records of the method and pattern."""
READ = """
import sys, time
from pathlib import Path
from suite.results.records.{module}
before = time.perf_counter()
found = {call}
print(time.perf_counter() - before)
"""
INDEX = READ.format(
    module="index import read_index, record_files",
    call="read_index(list(record_files([Path(sys.argv[1])])), workers={workers})",
)
WHOLE = READ.format(module="store import ResultStore", call="ResultStore(Path(sys.argv[1])).records()")
COMMAND = "from suite.cli import main; main()"
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Cost:
    """The resources that a program took.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: user and system time, including the processes that it started.
        peak_bytes: highest observed resident memory of all these processes together.
        output: its stdout.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a tree unless it exists, and prints the cost of reading it and of reporting on it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--modules", type=int, default=210, help="per pruned record; SmolLM2-135M has 210")
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--answers", type=int, default=0, help="per record, at most 48")
    parser.add_argument("--tree", type=Path, help="keep the tree in this folder, or use the one in it")
    parser.add_argument("--whole", action="store_true", help="read full records too: needs memory for all")
    parser.add_argument("--no-command", action="store_true", help="only read, without `prunebench report`")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        tree = asked.tree or Path(scratch) / "tree"
        if not tree.exists():
            write_tree(
                tree, asked.records, n_modules=asked.modules, n_tasks=asked.tasks, n_answers=asked.answers
            )
        print(table(tree, Path(scratch), whole=asked.whole, command=not asked.no_command))


def table(tree: Path, scratch: Path, *, whole: bool, command: bool) -> str:
    """Measures each program in a new process, and formats the costs as Markdown."""
    programs = {
        "read_index": ["-c", INDEX.format(workers=None), str(tree)],
        "read_index, one process": ["-c", INDEX.format(workers=1), str(tree)],
    }
    if whole:
        programs["ResultStore.records"] = ["-c", WHOLE, str(tree)]
    if command:
        programs["prunebench report"] = ["-c", COMMAND, "report", str(tree), "--out", str(scratch / "r.html")]
    files = [path.stat().st_size for path in tree.glob("*/*.json")]
    lines = [
        f"{len(files):,} records, {sum(files) / 2**20:,.0f} MiB",
        "",
        "| | seconds | of which in the call | CPU seconds | peak memory, MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, program in programs.items():
        cost = measure([sys.executable, *program])
        # The command prints the path of the report instead of a time.
        within = "" if COMMAND in program else f"{float(cost.output):.1f}"
        peak = f"{cost.peak_bytes / 2**20:,.0f}"
        lines.append(f"| {name} | {cost.seconds:.1f} | {within} | {cost.cpu_seconds:.1f} | {peak} |")
    return "\n".join(lines)


def measure(program: Sequence[str]) -> Cost:
    """Runs a program to its end.

    Raises:
        subprocess.CalledProcessError: the program failed.
    """
    before, begun = _cpu_of_children(), time.perf_counter()
    peak = 0
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
        watched = psutil.Process(running.pid)
        while running.poll() is None:
            peak = max(peak, _resident(watched))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - begun
        assert running.stdout is not None
        output = running.stdout.read()
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, program, output)
    return Cost(seconds, _cpu_of_children() - before, peak, output)


def write_tree(root: Path, n: int, *, n_modules: int, n_tasks: int, n_answers: int) -> None:
    """Writes `n` records in the layout of the store."""
    known: dict[tuple[str, int], tuple[str, str]] = {}
    for place, record in enumerate(islice(records(n_modules, n_tasks, n_answers), n)):
        data = _file_of(record, known)
        if place < 2 and record_bytes(parse_record(data)) != data:
            raise AssertionError("this is not how the store writes a record")
        path = root / record.cell.folder / f"{record.cell.stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def records(n_modules: int, n_tasks: int, n_answers: int) -> Iterator[Record]:
    """Yields records of one model after the other, endlessly and without digests."""
    number = 0
    while True:
        model = f"organisation/model-{number // A_MODEL:03}"
        variant, pattern = divmod(number % A_MODEL, len(PATTERNS))
        if number % A_MODEL == 0:
            yield _of(model, number, _template("dense", None, n_modules, n_tasks, n_answers), 0)
        else:
            kind = METHODS[variant % len(METHODS)]
            template = _template(kind, PATTERNS[pattern], n_modules, n_tasks, n_answers)
            yield _of(model, number, template, variant // len(METHODS))
        number += 1


@cache
def _template(kind: str, pattern: str | None, n_modules: int, n_tasks: int, n_answers: int) -> Record:
    parts = ["divergence", "speed", *["tasks"] * bool(n_tasks), *["answers"] * bool(n_answers)]
    record = measured_record(
        kind, pattern or "0.5", parts=parts, tasks=tuple(f"task-{place}" for place in range(n_tasks))
    )
    answers = record.answers
    if answers is not None:
        answers = answers.model_copy(update={"answers": answers.answers[:n_answers]})
    return record.model_copy(update={"modules": _modules(record.modules, n_modules), "answers": answers})


def _modules(of: Sequence[ModuleReport], n: int) -> tuple[ModuleReport, ...]:
    """Returns the first `n` modules; if there are fewer, repeats the layers."""
    n_layers = of[-1].layer + 1 if of else 0
    repeated = (
        module.model_copy(
            update={
                "layer": module.layer + turn * n_layers,
                "module": module.module.replace(f".{module.layer}.", f".{module.layer + turn * n_layers}."),
            }
        )
        for turn in range(-(-n // max(len(of), 1)))
        for module in of
    )
    return tuple(islice(repeated, n))


def _of(model: str, number: int, template: Record, variant: int) -> Record:
    """Turns the template into a record of that model and variant with its own numbers."""
    key = "rebuild_ratio" if template.cell.method == "llm-barber" else "group"
    settings = {**template.cell.settings, **({key: 0.1 + variant / 100} if variant else {})}
    assert template.model is not None
    worse = number % 997 / 4000
    return template.model_copy(
        update={
            "cell": template.cell.model_copy(update={"model": model, "settings": settings}),
            "model": template.model.model_copy(update={"name": model}),
            "windows": tuple(_shifted(windows, worse) for windows in template.windows),
            "metrics": tuple(_raised(metric, exp(worse)) for metric in template.metrics),
        }
    )


def _shifted(windows: WindowLosses, by: float) -> WindowLosses:
    return windows.model_copy(update={"nll": tuple(None if x is None else x + by for x in windows.nll)})


def _raised(metric: Metric, by: float) -> Metric:
    if metric.name != "perplexity" or metric.value is None:
        return metric
    return metric.model_copy(update={"value": metric.value * by})


def _file_of(record: Record, known: dict[tuple[str, int], tuple[str, str]]) -> bytes:
    """Builds the file of a record from the texts of its keys; the text of a shared key is made only once."""
    own = record.model_dump(mode="json", exclude={*SHARED, "body_digest"})
    texts = {}
    for name in Record.model_fields:
        if name in SHARED:
            key = (name, id(getattr(record, name)))  # belongs to a template, which is never freed
            if key not in known:
                known[key] = _texts(record.model_dump(mode="json", include={name})[name])
            texts[name] = known[key]
        elif name != "body_digest":
            texts[name] = _texts(own[name])
    canonical = ",".join(f'"{name}":{texts[name][0]}' for name in sorted(texts))
    digest = hashlib.sha256(f"{{{canonical}}}".encode()).hexdigest()
    lines = ",\n".join(f' "{name}": {text}' for name, (_, text) in texts.items())
    return f'{{\n{lines},\n "body_digest": "{digest}"\n}}\n'.encode()


def _texts(value: Any) -> tuple[str, str]:
    """Returns the JSON of a part of a record in two forms: for its digest, and for its file."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return canonical, json.dumps(value, indent=1, ensure_ascii=False).replace("\n", "\n ")


def _resident(process: psutil.Process) -> int:
    try:
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _cpu_of_children() -> float:
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)


if __name__ == "__main__":
    main()
