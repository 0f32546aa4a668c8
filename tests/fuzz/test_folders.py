"""A short campaign over damaged model folders; `python -m tests.fuzz.folders` runs a long one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import PATIENCE_S
from tests.fuzz.folders import campaign, finished, main

pytestmark = pytest.mark.slow

N_FOLDERS = 40


def test_no_folder_breaks_the_law(tmp_path: Path) -> None:
    outcomes = campaign(range(N_FOLDERS), tmp_path / "out.jsonl")
    assert [outcome["faults"] for outcome in outcomes if outcome["kind"] == "BROKEN"] == []
    assert {outcome["kind"] for outcome in outcomes} == {"refused", "equal", "remarked"}


def no_remarks(*_: Any) -> tuple[str, ...]:
    return ()


def passed_on(weights: Any, _: str) -> Iterator[Any]:
    yield from weights


def failing(*_: Any) -> None:
    raise KeyError("su")


HOLES = {
    "check_tensors": (no_remarks, "tensor dropped", "missing_keys"),
    "check_finite": (passed_on, "values of a tensor", "NonFiniteError"),
    "load_tokenizer": (failing, "extra file", "KeyError"),
}
"""What is replaced in the code that loads models, by what, the damage that it lets through, and the fault."""


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    replacement, kind, fault = HOLES[hole]
    for module in ("suite.models.loading", "suite.models.layered"):
        monkeypatch.setattr(f"{module}.{hole}", replacement)
    outcomes = campaign(range(6), tmp_path / "out.jsonl", [kind])
    assert any(fault in found for outcome in outcomes for found in outcome["faults"])
    assert main(["--n", "6", "--kind", kind, "--out", str(tmp_path / "out.jsonl")]) == 1


def test_a_killed_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ["--n", "5", "--kind", "JSON file", "--out", str(out)]
    command = [sys.executable, "-m", "tests.fuzz.folders", *options]
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (out.exists() and b"\n" in out.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait(PATIENCE_S)
    kept = finished(out)
    assert kept
    with out.open("a") as lines:
        lines.write('{"seed": 4, "ba')  # cut off in the middle of a line
    main(options)
    assert finished(out)[: len(kept)] == kept
    assert [outcome["seed"] for outcome in finished(out)] == [0, 1, 2, 3, 4]
