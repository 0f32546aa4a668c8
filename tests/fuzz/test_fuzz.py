"""A short run of each fuzzer; `make fuzz` gives them longer."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import PATIENCE_S

RUNS = {"fuzz_record": 80_000, "fuzz_suite": 40_000}
"""Inputs of each: about fifteen seconds of work. How long that takes is no matter."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None,
        reason="atheris is not installed: it comes for Linux only",
    ),
]


def fuzz(name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name(f"{name}.py")
    return subprocess.run(
        [sys.executable, str(script), f"-artifact_prefix={folder}{os.sep}", *options],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize("name", RUNS)
def test_no_input_makes_a_reader_do_what_it_does_not_say(tmp_path: Path, name: str) -> None:
    done = fuzz(name, tmp_path, f"-runs={RUNS[name]}")
    assert done.returncode == 0, done.stderr[-3000:]
    ended = re.search(r"^#(\d+)\s+DONE", done.stderr, re.MULTILINE)
    assert ended is not None, done.stderr[-3000:]
    assert int(ended[1]) >= RUNS[name]
    assert list(tmp_path.iterdir()) == [], "it tidies up, and found nothing to keep"


READERS = {"fuzz_record": "parse_record", "fuzz_suite": "parse_suite"}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_that_raises_something_else_is_found(tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        f"""import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import tests.fuzz.{name} as fuzzer
from tests.fuzz.campaign import run
right = fuzzer.{READERS[name]}
def wrong(data, **options):
    found = right(data, **options)
    if len(data) % 2:
        raise KeyError("odd")
    return found
fuzzer.{READERS[name]} = wrong
run(fuzzer.one_input, seeds=fuzzer.seeds(), keys=fuzzer.KEYS, max_len=4096)
"""
    )
    done = subprocess.run(
        [sys.executable, str(broken), "-runs=5000", f"-artifact_prefix={tmp_path}{os.sep}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode != 0
    assert "KeyError: 'odd'" in done.stdout
    assert list(tmp_path.glob("crash-*")), "the input is kept"
