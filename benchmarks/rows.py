"""The result of one measurement as a row: saved as JSON as soon as it exists, printed as a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from methods.errors import InputError

ROW_VERSION = 2
CONTRACT = "contract"
"""The stage whose rows report whether the contract is kept, not times."""

_PACKAGES = ("torch", "transformers", "numpy", "triton")
_TIMED = (
    *("model", "layers", "placement", "method", "pattern", "dtype", "tokens", "seconds", "floor", "ratio"),
    *("strict floor", "strict ratio", "roofline", "seconds by phase", "host peak", "device peak", "status"),
)
_CHECKED = ("on", "checked", "pattern", "outcome", "detail")


@dataclass(frozen=True)
class Row:
    """One measurement of one method on one model.

    Attributes:
        stage: the part of a longer run that the row belongs to.
        model: the model that was pruned.
        method: the method, as a user writes it.
        pattern: the pattern, as a user writes it.
        dtype: dtype of the weights.
        n_samples: number of calibration sequences.
        seqlen: tokens per sequence.
        n_layers: number of decoder layers.
        placement: `resident` or `onload`.
        seconds: end-to-end time once the model is loaded, of the median repeat (the quicker of the two in the
            middle if their number is even); None if no repeat finished.
        repeats: seconds of each repeat.
        phases: seconds by phase. This and the fields up to `rates` come from the same repeat as `seconds`.
        floor_seconds: mean of the floors measured before and after the repeat.
        floor_parts: the floor split by part.
        ratio: seconds / floor; lower is better.
        strict_floor: seconds of the work that cannot be avoided.
        strict_parts: the strict floor split by part.
        strict_ratio: seconds / strict floor; lower is better.
        roofline_seconds: time of all products of the strict floor at the rate of a square product.
        forward_seconds: time of one forward of the calibration set, mean of before and after.
        batch_size: sequences per batch at the start of the prune.
        rates: machine rates measured just before the repeat.
        peak_host_bytes: highest resident memory of the process above its value at the start of the prune,
            over all repeats.
        peak_device_bytes: highest total allocation on the accelerator, over all repeats; None without one.
        status: `ok`, or why there are no numbers.
        detail: explanation in words.
        warnings: warnings of any repeat that memory ran out and how the prune went on, such as with smaller
            batches.
    """

    stage: str
    model: str
    method: str
    pattern: str
    dtype: str = ""
    n_samples: int = 0
    seqlen: int = 0
    n_layers: int = 0
    placement: str = "resident"
    seconds: float | None = None
    repeats: tuple[float, ...] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    floor_seconds: float | None = None
    floor_parts: Mapping[str, float] = field(default_factory=dict)
    ratio: float | None = None
    strict_floor: float | None = None
    strict_parts: Mapping[str, float] = field(default_factory=dict)
    strict_ratio: float | None = None
    roofline_seconds: float | None = None
    forward_seconds: float | None = None
    batch_size: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    peak_host_bytes: int | None = None
    peak_device_bytes: int | None = None
    status: str = "ok"
    detail: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """The hardware and software that rows were measured with.

    Attributes:
        device: `cpu` with the name of its processor, or the name of the accelerator.
        threads: torch threads on the host.
        python: its version.
        packages: versions of the packages that affect times.
        git_commit: commit of the working tree, with `+` if it was not clean; None without one.
    """

    device: str
    threads: int
    python: str
    packages: Mapping[str, str]
    git_commit: str | None


def setting(device: torch.device) -> Setting:
    """Returns the setting of this process."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({_processor()})"
    return Setting(name, torch.get_num_threads(), platform.python_version(), _versions(), _commit())


def save_rows(path: Path, rows: Sequence[Row], made_on: Setting) -> None:
    """Writes all rows so far; replaces the file atomically, so an interrupted run leaves it readable."""
    content = {
        "row_version": ROW_VERSION,
        "setting": asdict(made_on),
        "rows": [asdict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".tmp")
    staging.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    staging.replace(path)


def load_rows(path: Path) -> tuple[list[Row], Setting]:
    """Reads what `save_rows` wrote.

    Raises:
        InputError: the rows are of another version, whose columns have other meanings.
    """
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content["row_version"] != ROW_VERSION:
        raise InputError(
            f"{path.name} holds rows of version {content['row_version']}, expected {ROW_VERSION}: "
            "measure them again in another folder"
        )
    known = {entry.name for entry in fields(Row)}
    rows = [Row(**{key: value for key, value in row.items() if key in known}) for row in content["rows"]]
    return rows, Setting(**content["setting"])


def markdown(rows: Sequence[Row]) -> str:
    """Formats rows with times as one table, and the rows of the contract as a second one below it."""
    timed = [row for row in rows if row.stage != CONTRACT]
    checks = [row for row in rows if row.stage == CONTRACT]
    tables = []
    if timed:
        tables.append(_table(_TIMED, [_cells(row) for row in timed]))
    if checks:
        outcomes = [[row.model, row.method, row.pattern, row.status, row.detail] for row in checks]
        tables.append(_table(_CHECKED, outcomes))
    return "\n\n".join(tables)


def said(row: Row) -> str:
    """Formats a row as one line of console output."""
    if row.seconds is None:
        return f"{title(row)}: {row.status} {row.detail}".rstrip()
    phases = ", ".join(f"{phase} {_seconds(taken)}" for phase, taken in row.phases.items())
    text = f"{title(row)}: {_seconds(row.seconds)} s ({phases})"
    if row.floor_seconds is not None:
        text += f", floor {_seconds(row.floor_seconds)} s, ratio {_number(row.ratio, '{:.2f}')}"
        text += f"; strict floor {_seconds(row.strict_floor)} s, ratio {_number(row.strict_ratio, '{:.2f}')}"
        text += f"; roofline {_seconds(row.roofline_seconds)} s"
    return "; ".join((f"{text} {row.detail}".rstrip(), *row.warnings))


def title(row: Row) -> str:
    """Names what a row measured: model, method, pattern and dtype."""
    return " ".join(part for part in (row.model, row.method, row.pattern, row.dtype) if part)


def described(made_on: Setting) -> str:
    """Formats a setting as one line of Markdown."""
    packages = ", ".join(f"{name} {found}" for name, found in made_on.packages.items())
    commit = made_on.git_commit or "unknown"
    return (
        f"{made_on.device}; {made_on.threads} threads; Python {made_on.python}, {packages}; commit {commit}"
    )


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        str(row.n_layers or ""),
        row.placement,
        row.method,
        row.pattern,
        row.dtype,
        f"{row.n_samples} x {row.seqlen}" if row.n_samples else "",
        _seconds(row.seconds),
        _seconds(row.floor_seconds),
        _number(row.ratio, "{:.2f}x"),
        _seconds(row.strict_floor),
        _number(row.strict_ratio, "{:.2f}x"),
        _seconds(row.roofline_seconds),
        ", ".join(f"{name} {_seconds(seconds)}" for name, seconds in row.phases.items()),
        _number(row.peak_host_bytes, "{:.2f} GiB", 2**30),
        _number(row.peak_device_bytes, "{:.2f} GiB", 2**30),
        "; ".join((f"{row.status} {row.detail}".rstrip(), *row.warnings)),
    ]


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else form.format(value / unit)


def _seconds(value: float | None) -> str:
    """Formats seconds with three significant digits below 1, with two decimals from 1 on."""
    if value is None:
        return ""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join(
        f"| {' | '.join(' '.join(c.split()).replace('|', chr(92) + '|') for c in line)} |" for line in cells
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    variables["GIT_OPTIONAL_LOCKS"] = "0"
    answers = []
    for question in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            done = subprocess.run(
                ["git", *question], cwd=root, env=variables, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")


__all__ = [
    "CONTRACT",
    "Row",
    "Setting",
    "described",
    "load_rows",
    "markdown",
    "said",
    "save_rows",
    "setting",
    "title",
]
