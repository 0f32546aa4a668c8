from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from suite.machine import environment as module
from suite.machine.environment import code_version, environment, native_bf16


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of our packages, in place of the real ones."""
    for package in ("methods", "suite"):
        shutil.copytree(
            module._root() / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    monkeypatch.setattr(module, "_root", lambda: tmp_path)
    forget()
    return tmp_path


def forget() -> None:
    module._source_digest.cache_clear()
    module._working_tree.cache_clear()


def digest() -> str:
    forget()
    return code_version(1).source_digest


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments], cwd=folder, check=True
    )


def test_what_decides_numbers_changes_the_source_digest_and_nothing_else_does(root: Path) -> None:
    before = digest()
    assert digest() == before
    for name in (
        "suite/planning/suite_cells.py",
        "suite/results/records/store.py",
        "suite/templates/new.toml",
    ):
        with (root / name).open("a") as file:
            file.write("# a change\n")
        assert digest() == before, name
    (root / "methods" / "__pycache__").mkdir()
    (root / "methods" / "__pycache__" / "base.cpython-311.pyc").write_bytes(b"x")
    assert digest() == before
    base = root / "methods" / "base.py"
    base.write_bytes(base.read_bytes().replace(b"\n", b"\r\n"))
    assert digest() == before, "line ends are no change"
    for name in (
        "methods/base.py",
        "methods/new.py",
        "suite/models/loading.py",
        "suite/results/statistics/single.py",
    ):
        with (root / name).open("a") as file:
            file.write("# a change\n")
        after = digest()
        assert after != before, name
        before = after


def test_what_counts_is_said_of_folders_with_few_exceptions(root: Path) -> None:
    assert [name for name in module.NOT_NUMERIC if not (root / name).is_dir()] == []
    assert [name for name in module.EXCEPTIONS if not (root / name).exists()] == []
    assert len(module.EXCEPTIONS) <= 12


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("methods/scores/wanda.py", True),
        ("methods/conformance/checks.py", False),
        ("suite/cell.py", True),
        ("suite/cli.py", False),
        ("suite/evaluation/scoring/windows.py", True),
        ("suite/planning/preflight.py", True),
        ("suite/planning/estimate.py", False),
        ("suite/results/statistics/single.py", True),
        ("suite/results/records/store.py", False),
        ("suite/running/run_cell.py", True),
        ("suite/running/rerun.py", False),
        ("suite/a_new_room/of_mine.py", True),
    ],
)
def test_a_folder_counts_as_a_whole_but_for_exceptions(name: str, expected: bool) -> None:
    assert module.decides_numbers(name) == expected


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_known_only_in_our_own_working_tree(root: Path) -> None:
    assert code_version(1).git_commit is None
    git(root, "init", "-q")
    forget()
    assert code_version(1).git_commit is None, "no commit yet"
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "x")
    forget()
    code = code_version(1)
    assert code.git_commit is not None and len(code.git_commit) == 40
    assert code.git_clean is True
    (root / "results.txt").write_text("not code")
    forget()
    assert code_version(1).git_clean is True
    (root / "methods" / "new.py").write_text("")
    forget()
    assert code_version(1).git_clean is False


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_somebody_elses_working_tree_is_not_ours(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path_factory.mktemp("theirs")
    git(theirs, "init", "-q")
    git(theirs, "commit", "-q", "--allow-empty", "-m", "x")
    installed = theirs / "site-packages"
    shutil.copytree(root, installed)
    monkeypatch.setattr(module, "_root", lambda: installed)
    forget()
    assert (code_version(None).git_commit, code_version(None).git_clean) == (None, None)


def test_without_git_there_is_no_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    forget()
    assert code_version(None).git_commit is None


def test_the_environment_of_this_process() -> None:
    found = environment("cpu")
    assert found.device == "cpu"
    assert found.threads == torch.get_num_threads()
    assert found.packages["torch"] == torch.__version__
    assert found.host_memory_bytes > 2**28


@pytest.mark.parametrize(
    ("feature", "native"), [("amx_bf16", True), ("avx512_bf16", True), ("avx512_f", False)]
)
def test_bf16_is_native_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, feature: str, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True}, raising=False)
    assert native_bf16("cpu") is native
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(module, "_cpuinfo", lambda key: f"sse {feature}" if key == "flags" else "")
    assert native_bf16("cpu") is native
