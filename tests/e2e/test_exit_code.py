"""What libraries do while they are taken down does not change how the command ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent.parent
ABORTS = "import ctypes; libc = ctypes.CDLL(None); libc.__cxa_atexit(libc.abort, None, None)"


def run(tmp_path, *command):
    (tmp_path / "sitecustomize.py").write_text(ABORTS)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="aborts by way of glibc")
def test_an_abort_at_the_end_is_not_seen(tmp_path):
    assert run(tmp_path, "-c", "pass").returncode == -6, "or nothing is shown below"
    listed = run(tmp_path, "-m", "suite.cli", "list", "methods")
    assert listed.returncode == 0 and "llm-barber" in listed.stdout
    wrong = run(tmp_path, "-m", "suite.cli", "report", "nowhere", "--out", "report.html")
    assert wrong.returncode == 2 and "no such folder" in wrong.stderr
