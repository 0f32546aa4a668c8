"""Imports point one way, and the light parts load nothing heavy."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import run_python

ROOT = Path(__file__).parents[2]
OURS = {"methods", "suite", "reports", "tests", "benchmarks"}
HEAVY = ["torch", "transformers", "pandas", "datasets", "lm_eval", "altair", "scipy", "pyarrow", "gguf"]


def modules_imported_by(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import of our packages in a file, those for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            # `from suite import results` imports the module suite.results.
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            imported = [name if is_module(name) else str(node.module) for name in members]
        else:
            continue
        for name in imported:
            if name.partition(".")[0] in OURS:
                yield node.lineno, name


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def forbidden(package: str, module: str, file: str) -> bool:
    """Whether `file` of `package` may not import `module`."""
    home = module.partition(".")[0]
    if home == package:
        return False
    if package == "suite":
        return not (home == "methods" or (home == "reports" and file.startswith("suite/commands/")))
    if package == "reports":
        return not (module == "suite.results" or module.startswith("suite.results."))
    return True


@pytest.mark.parametrize("package", ["methods", "suite", "reports"])
def test_imports_point_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    crossed = [
        f"{file}:{line} imports {module}"
        for path in files
        for file in [path.relative_to(ROOT).as_posix()]
        for line, module in modules_imported_by(path)
        if forbidden(package, module, file)
    ]
    assert crossed == []


@pytest.mark.parametrize(
    ("package", "module", "file", "expected"),
    [
        ("methods", "methods.base", "methods/wanda.py", False),
        ("methods", "suite.cell", "methods/wanda.py", True),
        ("suite", "methods.registry", "suite/plan.py", False),
        ("suite", "reports", "suite/commands/report.py", False),
        ("suite", "reports.page.html", "suite/harness.py", True),
        ("suite", "tests.methods", "suite/harness.py", True),
        ("reports", "suite.results.record", "reports/frame.py", False),
        ("reports", "suite.results", "reports/frame.py", False),
        ("reports", "suite.results_of_mine", "reports/frame.py", True),
        ("reports", "suite", "reports/frame.py", True),
        ("reports", "suite.models", "reports/frame.py", True),
        ("reports", "methods.base", "reports/frame.py", True),
    ],
)
def test_the_walls_stand_where_the_design_puts_them(package, module, file, expected):
    assert forbidden(package, module, file) == expected


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
    assert imported
    assert all(name.startswith("methods/kernels/") for name in imported)


def test_pruning_on_the_cpu_does_not_load_triton():
    probe = (
        "import sys, torch, methods.sparsegpt, methods.columns, methods.pattern as p\n"
        "for text in '0.5', '2:4':\n"
        "    methods.columns.solve_columns(torch.ones(4, 8), torch.eye(8), p.parse_pattern(text), 8)\n"
        "print('triton' in sys.modules)"
    )
    done = run_python(probe)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]


def test_every_public_name_of_methods_can_be_had_from_the_package():
    import methods

    for name in methods.__all__:
        assert getattr(methods, name) is not None
    assert set(methods._HOME) == set(methods.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        _ = methods.prune_everything
