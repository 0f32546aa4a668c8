"""`python -m benchmarks.round_trip [MODEL]`: the cost of reading a written checkpoint again.

Runs `prunebench prune --method sparsegpt` in this process, and measures the time from its start to its end
and the share in which the checkpoint is read again and compared with the model in memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from suite.checkpoints.writing import checkpoint
from suite.cli import main as prunebench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--n-samples", default="64")
    parser.add_argument("--seqlen", default="128")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--placement", default="resident")
    asked = parser.parse_args()
    seconds: list[float] = []
    checkpoint.check_round_trip = timed(checkpoint.check_round_trip, seconds)
    checkpoint.probe_logits = timed(checkpoint.probe_logits, seconds)
    checkpoint.check_layered_round_trip = timed(checkpoint.check_layered_round_trip, seconds)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--n-samples", asked.n_samples, "--seqlen", asked.seqlen, "--dtype", asked.dtype]
        sys.argv = [
            *("prunebench", "prune", asked.model, "--method", "sparsegpt", "--sparsity", "0.5", *options),
            *("--placement", asked.placement, "--out", str(Path(folder) / "pruned")),
        ]
        try:
            prunebench()
        except SystemExit as ended:
            if ended.code:
                raise
    whole = time.time() - psutil.Process().create_time()
    print(f"whole command {whole:.1f} s, read again {sum(seconds):.2f} s: {sum(seconds) / whole:.1%}")


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """Wraps `call` so that its time is appended to `seconds`."""

    def timing(*given: Any, **more: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*given, **more)
        finally:
            seconds.append(time.perf_counter() - start)

    return timing


if __name__ == "__main__":
    main()
