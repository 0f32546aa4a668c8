"""The light parts load nothing heavy."""

import ast
from pathlib import Path

import pytest

from tests import run_python

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "transformers", "pandas", "datasets", "lm_eval", "altair", "scipy", "pyarrow", "gguf"]


@pytest.mark.parametrize(
    "module", ["suite.cli", "suite.pytest_plugin", "methods", "methods.registry", "methods.errors"]
)
def test_importing_it_loads_nothing_heavy(module):
    probe = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = run_python(probe)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_triton_is_imported_by_kernels_alone():
    imported = {
        path.relative_to(ROOT).as_posix()
        for package in ("methods", "suite", "reports")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if str(name).partition(".")[0] == "triton"
    }
    assert imported == {"methods/updates/sparsegpt_kernel.py"}


def test_pruning_on_the_cpu_does_not_load_triton():
    probe = (
        "import sys, torch, methods.scores.sparsegpt\n"
        "from methods import parse_pattern\n"
        "from methods.updates.sparsegpt_columns import solve_columns\n"
        "for text in '0.5', '2:4':\n"
        "    solve_columns(torch.ones(4, 8), torch.eye(8), parse_pattern(text), 8)\n"
        "print('triton' in sys.modules)"
    )
    done = run_python(probe)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]


def test_every_public_name_of_methods_can_be_had_from_the_package():
    import methods

    for name in methods.__all__:
        assert getattr(methods, name) is not None
    assert dir(methods) == sorted(methods.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        _ = methods.prune_everything
