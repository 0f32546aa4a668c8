import subprocess
import sys
from pathlib import Path

PATIENCE_S = 1200
"""So long a test waits for a process or a file: it tells what hangs from a machine that is slow or busy."""


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter, in the repository's root."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
