from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from suite.machine import peak_memory as memory
from suite.machine.peak_memory import MemoryWatch
from tests import PATIENCE_S

MIB = 2**20


def spike(mib: int) -> None:
    held = np.ones(mib * MIB, dtype=np.uint8)
    resident = psutil.Process().memory_info().rss
    deadline = time.monotonic() + PATIENCE_S
    # Those that look now and then are given the time to look.
    while any(w._sampler is not None and w.host_bytes < resident - MIB for w in MemoryWatch._open):
        assert time.monotonic() < deadline
        time.sleep(memory.SAMPLE_EVERY_S)
    del held


@pytest.fixture(params=["exact", "sampled", "refused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sampled":
        monkeypatch.setattr(memory, "_reset_high_water", lambda: False)
    elif request.param == "refused":
        monkeypatch.setattr(memory, "_CLEAR_REFS", memory._CLEAR_REFS.parent / "no such folder" / "x")
    elif not memory._reset_high_water():
        pytest.skip("needs Linux")
    return str(request.param)


def test_a_phase_is_charged_with_its_own_peak(way: str) -> None:
    with MemoryWatch() as large:
        spike(256)
    with MemoryWatch() as small:
        spike(16)
    assert 200 * MIB < large.host_bytes - small.host_bytes < 280 * MIB
    assert large.device_bytes is None


def test_a_phase_inside_another_counts_for_both_and_hides_nothing(way: str) -> None:
    with MemoryWatch() as outer:
        spike(256)
        with MemoryWatch() as inner:
            spike(64)
        with MemoryWatch() as last:
            spike(128)
    assert 150 * MIB < outer.host_bytes - inner.host_bytes < 230 * MIB
    assert 40 * MIB < last.host_bytes - inner.host_bytes < 90 * MIB
    with MemoryWatch() as outer, MemoryWatch() as inner:
        spike(256)
    assert abs(outer.host_bytes - inner.host_bytes) < 16 * MIB


def test_a_watch_closes_when_its_phase_fails(way: str) -> None:
    with pytest.raises(ZeroDivisionError), MemoryWatch() as watch:
        raise ZeroDivisionError
    assert watch.host_bytes > 0
    assert MemoryWatch._open == []


def test_the_accelerators_peak_is_shared_by_nested_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = SimpleNamespace(peak=0, held=0)

    def allocate(count: int) -> None:
        mark.held += count
        mark.peak = max(mark.peak, mark.held)

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: mark.peak)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: setattr(mark, "peak", mark.held)
    )
    device = torch.device("cuda", 0)
    with MemoryWatch(device) as outer:
        allocate(100)
        allocate(-90)
        with MemoryWatch(device) as inner:
            allocate(20)
            allocate(-20)
        allocate(40)
    assert (outer.device_bytes, inner.device_bytes) == (100, 30)
    with MemoryWatch(torch.device("cpu")) as host_only:
        pass
    assert host_only.device_bytes is None
