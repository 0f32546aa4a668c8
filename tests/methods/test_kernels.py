"""The Triton kernels compute what their plain twins do."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from methods.updates import sparsegpt_columns as columns
from tests import PATIENCE_S

CASES = Path(__file__).with_name("kernel_cases.py")
ROOT = CASES.parents[2]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_agree_with_their_twins_where_triton_interprets_them():
    # Triton reads the setting when it is imported, so the cases have a process of their own.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


class OnGpu:
    """As much of a tensor as the choice of a solver looks at."""

    is_cuda = True
    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


@pytest.fixture
def untried():
    """Whether the kernel serves a GPU is tried once in a process."""
    columns.kernel_problem.cache_clear()
    yield
    columns.kernel_problem.cache_clear()


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_fp32_on_a_gpu_is_solved_by_the_kernel_and_all_else_by_its_twin(monkeypatch):
    from methods.updates.sparsegpt_kernel import solve_block

    monkeypatch.setattr(columns, "kernel_problem", lambda device: None)
    assert columns.block_solver(OnGpu(torch.float32)) is solve_block
    assert columns.block_solver(OnGpu(torch.float64)) is columns.solve_block
    assert columns.block_solver(torch.zeros(1)) is columns.solve_block


def test_a_gpu_without_triton_is_served_by_the_twin(monkeypatch, untried):
    monkeypatch.setattr(columns, "find_spec", lambda name: None)
    assert columns.kernel_problem(torch.device("cpu")) == "Triton is not installed"
    assert columns.block_solver(OnGpu(torch.float32)) is columns.solve_block


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_a_gpu_for_which_the_kernel_cannot_be_compiled_is_served_by_the_twin(monkeypatch, untried):
    def no_compiler(*_):
        raise RuntimeError("Failed to find C compiler. Please specify via CC\nand more")

    monkeypatch.setattr("methods.updates.sparsegpt_kernel.solve_block", no_compiler)
    said = "RuntimeError: Failed to find C compiler. Please specify via CC"
    assert columns.kernel_problem(torch.device("cpu")) == said
    assert columns.block_solver(OnGpu(torch.float32)) is columns.solve_block
