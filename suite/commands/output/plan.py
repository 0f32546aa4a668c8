"""A plan as lines of text and as JSON values: each cell, whether it runs, and its estimated costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suite.planning.estimate import Estimate
    from suite.planning.resume import PlannedCell


def as_lines(planned: Sequence[PlannedCell], estimates: Sequence[Estimate | None]) -> Iterator[str]:
    """Yields one line per cell, and a last line with the total of the cells that would run."""
    for entry, estimate in zip(planned, estimates, strict=True):
        action = "run" if entry.runs else "keep"
        reason = f"  ({entry.state.reason})" if entry.state.reason else ""
        time = memory = ""
        if estimate is not None and entry.runs:
            time, memory = _time(estimate.seconds), estimate.memory.short()
        name = f"{entry.cell.digest[:8]}  {entry.cell.label}"
        yield f"{action:<5} {entry.state.kind:<9} {time:>7} {memory:>24}  {name}{reason}"
    running = [e for entry, e in zip(planned, estimates, strict=True) if entry.runs]
    yield f"{len(running)} of {len(planned)} cells would run{_total(running)}"


def as_json_rows(
    planned: Sequence[PlannedCell], estimates: Sequence[Estimate | None]
) -> list[dict[str, Any]]:
    """Returns one row per cell; its estimates are null if the model is not on this machine."""
    return [
        {
            "cell": entry.cell.model_dump(mode="json"),
            "digest": entry.cell.digest,
            "state": entry.state.kind,
            "reason": entry.state.reason,
            "runs": entry.runs,
            "estimated_seconds": estimate.seconds if estimate else None,
            "estimated_host_bytes": estimate.host_bytes if estimate else None,
            "estimated_device_bytes": estimate.device_bytes if estimate else None,
            "estimated_scratch_bytes": estimate.memory.scratch_bytes if estimate else None,
        }
        for entry, estimate in zip(planned, estimates, strict=True)
    ]


def _total(running: Sequence[Estimate | None]) -> str:
    known = [estimate for estimate in running if estimate is not None]
    if not known:
        return "; no estimate, as the model is not on this machine yet" if running else ""
    host = f"{max(e.host_bytes for e in known) / 2**30:.1f} GiB of host memory"
    on_device = [e.device_bytes for e in known if e.device_bytes is not None]
    device = f" and {max(on_device) / 2**30:.1f} GiB of device memory" if on_device else ""
    missing = len(running) - len(known)
    without = f" ({missing} not counted: their models are not on this machine yet)" if missing else ""
    return f", in about {_time(sum(e.seconds for e in known))} with {host}{device}{without}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


__all__ = ["as_json_rows", "as_lines"]
