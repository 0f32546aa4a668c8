"""What machines have, what cells need, and whether software is the same."""

import pytest
import torch

from methods.errors import InputError
from suite.cell import Cell
from suite.executors.ray.node import NodeReport, Software, difference, present_software, same_bf16
from suite.executors.ray.resources import Needs, Resources, check_resources
from suite.machine.devices import resolve_devices

HERE = Software("0.1.0", "aa" * 32, "2.13.0", "5.23.0")
GIB = 2**30


@pytest.mark.parametrize(
    "change, said",
    [
        ({}, None),
        ({"prunebench": "0.2.0"}, "prunebench 0.2.0, and 0.1.0 here"),
        ({"torch": "2.12.0"}, "torch 2.12.0, and 2.13.0 here"),
        ({"transformers": "5.20.0"}, "transformers 5.20.0, and 5.23.0 here"),
        ({"source": "bb" * 32}, "prunebench from other sources (bbbbbbbb), and aaaaaaaa here"),
    ],
)
def test_other_software_is_named_with_both_versions(change, said):
    there = Software(**{**vars(HERE), **change})
    assert difference(HERE, there) == said


def test_this_machine_runs_what_it_runs():
    assert difference(present_software(), present_software()) is None
    assert "+" not in present_software().torch


def test_auto_is_one_dtype_or_refused():
    yes, no = (NodeReport(HERE, "cpu", native, None) for native in (True, False))
    assert same_bf16([yes, yes]) is True and same_bf16([no]) is False
    with pytest.raises(InputError, match="give a dtype in the suite file"):
        same_bf16([yes, no])
    with pytest.raises(InputError, match="no node of the Ray cluster can use its GPU"):
        same_bf16([])


def test_workers_fit_by_the_scarcest_of_what_they_need():
    resources = Resources("n", cpus=16, gpus=4, host_bytes=64 * GIB)
    assert resources.n_workers(Needs(4, 0, GIB)) == 4
    assert resources.n_workers(Needs(1, 1, GIB)) == 4
    assert resources.n_workers(Needs(1, 1, 30 * GIB)) == 2
    assert resources.n_workers(Needs(17, 0, 0)) == 0


@pytest.mark.parametrize(
    "needs, said",
    [
        (Needs(32, 0, GIB), "needs 32 CPUs, and big has 16; no worker is larger"),
        (Needs(1, 1, GIB), "needs a GPU, and big has none; no worker is larger"),
        (Needs(1, 0, 70 * GIB), "needs 70.0 GiB of memory, and big has 64.0; no worker is larger"),
    ],
)
def test_a_cell_larger_than_any_machine_is_refused(needs, said):
    cell = Cell(model="m", method="wanda", pattern="0.5", dtype="float32")
    machines = [Resources("small", 4, 0, 8 * GIB), Resources("big", 16, 0, 64 * GIB)]
    check_resources([cell], [Needs(16, 0, 64 * GIB)], machines)
    with pytest.raises(InputError, match=r"m wanda 0\.5") as refused:
        check_resources([cell], [needs], machines)
    assert said in str(refused.value)


def test_a_device_for_each_worker(monkeypatch):
    assert resolve_devices("cpu", None) == [torch.device("cpu")]
    assert resolve_devices("cpu", 3) == 3 * [torch.device("cpu")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    every = [torch.device("cuda", n) for n in range(3)]
    assert resolve_devices("auto", None) == resolve_devices("cuda", None) == every
    assert resolve_devices("cuda", 2) == every[:2]
    assert resolve_devices("cuda:2, cuda:0", None) == [every[2], every[0]]
    for wanted, workers, said in [
        ("cuda", 4, "3 GPUs run 3 cells"),
        ("cuda:0,cuda:0", None, "names a device twice"),
        ("cuda:3", None, "has 3 CUDA devices"),
        ("tpu", None, "give auto, cpu, cuda"),
    ]:
        with pytest.raises(InputError, match=said):
            resolve_devices(wanted, workers)
