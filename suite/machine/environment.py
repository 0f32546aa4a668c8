"""The machine and the software a record was made with."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

import methods
from suite.machine.energy import meters
from suite.results.records.record import CodeVersion, Environment

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "datasets",
    "safetensors",
    "gguf",
    "lm-eval",
    "triton",
)
"""Distributions whose versions may change a number; absent ones are left out."""

NOT_NUMERIC = (
    "methods/conformance",
    "suite/api",
    "suite/checkpoints/writing",
    "suite/commands",
    "suite/executors",
    "suite/inspection",
    "suite/machine",
    "suite/planning",
    "suite/results",
    "suite/storage",
    "suite/templates",
    "suite/tracking",
)
"""Folders of `methods` and `suite` that plan, store, time or show, but decide no number.

All others count for the source digest, new ones too: a record taken for stale costs a rerun, one wrongly
taken for current costs the truth.
"""

EXCEPTIONS: Mapping[str, str] = {
    "suite/planning/method_of_cell.py": "builds the method and the allocation that prune a cell",
    "suite/planning/preflight.py": "draws calibration sets and cuts texts into windows",
    "suite/results/records/items.py": "is the form in which measured items are kept",
    "suite/results/records/pruning_file.py": "gives a checkpoint's record what its prune said",
    "suite/results/records/record.py": "is the form in which metrics are kept",
    "suite/results/statistics": "forms metrics and intervals from items",
    "suite/__init__.py": "only names what can be imported",
    "suite/checkpoints/verification.py": "looks at checkpoints that were written before",
    "suite/cli.py": "parses and prints",
    "suite/pytest_plugin.py": "judges records that are there",
    "suite/running/rerun.py": "compares records with those of a rerun",
    "suite/watcher.py": "tells how far a run has come",
}
"""What counts although its folder does not, or the other way round, and why."""


def environment(device: torch.device | str = "cpu") -> Environment:
    """What this process runs on and with.

    Args:
        device: where models are pruned and evaluated.
    """
    device = torch.device(device)
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=_processor(),
        physical_cores=psutil.cpu_count(logical=False),
        host_memory_bytes=psutil.virtual_memory().total,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
        threads=torch.get_num_threads(),
        native_bf16=native_bf16(device),
        energy_meters=meters(device),
    )


def native_bf16(device: torch.device | str = "cpu") -> bool:
    """Whether the hardware multiplies bf16 natively: AMX or AVX512-bf16 on CPUs, tensor cores on GPUs."""
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(_cpu_can(feature) for feature in ("amx_bf16", "avx512_bf16"))


def code_version(method_version: int | None, part_versions: Mapping[str, int] | None = None) -> CodeVersion:
    """The version of the code in use.

    Args:
        method_version: the method's own `version`; None for the dense model. Methods of other packages
            have no part in the source digest, so this number is all that makes their records stale.
        part_versions: likewise of the initial method and the allocation, by name.
    """
    commit, clean = _working_tree(_root())
    return CodeVersion(
        prunebench=_version("prunebench") or "unknown",
        method_version=method_version,
        part_versions=dict(part_versions or {}),
        source_digest=_source_digest(_root()),
        git_commit=commit,
        git_clean=clean,
    )


# Cached, as the code in use is what was imported, whatever happens to its files during a run.
@lru_cache(maxsize=1)
def _source_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(root):
        # A checkout with other line ends is the same code.
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    for package in ("methods", "suite"):
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and path.suffix != ".pyc" and decides_numbers(name):
                yield path


def decides_numbers(name: str) -> bool:
    """Whether a source file, by its path below the packages' folder, counts for the source digest."""
    in_such_a_folder = any(_is_in(name, folder) for folder in NOT_NUMERIC)
    return in_such_a_folder == any(_is_in(name, place) for place in EXCEPTIONS)


def _is_in(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")


@lru_cache(maxsize=1)
def _working_tree(root: Path) -> tuple[str | None, bool | None]:
    """Commit and cleanliness of the working tree at `root`; None where `root` is not one's top folder.

    An installed package may lie inside somebody else's working tree; that says nothing about our code.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return None, None
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", "methods", "suite", "reports", "pyproject.toml")
    return commit, None if commit is None or changes is None else not changes


def _git(folder: Path, *arguments: str) -> str | None:
    # GIT_DIR and its like, set inside a hook, would make git speak of another tree.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    variables["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _root() -> Path:
    """The folder our packages lie in."""
    root = Path(__file__).resolve().parents[2]
    assert Path(methods.__path__[0]).resolve().parent == root
    return root


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu_can(feature: str) -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return bool(ask().get(feature, False))
    return feature in _cpuinfo("flags").split()


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """The first value of `key` in Linux's `/proc/cpuinfo`; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == key), "")


__all__ = [
    "EXCEPTIONS",
    "NOT_NUMERIC",
    "PACKAGES",
    "code_version",
    "decides_numbers",
    "environment",
    "native_bf16",
]
