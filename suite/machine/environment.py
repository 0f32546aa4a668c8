"""Describes the machine and the software that a record is made with."""

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
"""Distributions whose versions may change a result; those not installed are left out."""

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
"""Folders of `methods` and `suite` that plan, store, time or show, but do not affect any result.

All other folders, including new ones, enter the source digest: a record wrongly taken for stale costs only a
rerun, but one wrongly taken for current shows false numbers.
"""

EXCEPTIONS: Mapping[str, str] = {
    "suite/planning/method_of_cell.py": "builds the method and the allocation that prune a cell",
    "suite/planning/preflight.py": "draws calibration sets and cuts texts into windows",
    "suite/results/records/items.py": "is the format in which measured items are stored",
    "suite/results/records/pruning_file.py": "fills a checkpoint's record from the record of its prune",
    "suite/results/records/record.py": "is the format in which metrics are stored",
    "suite/results/statistics": "computes metrics and intervals from items",
    "suite/__init__.py": "only lists the public names",
    "suite/checkpoints/verification.py": "checks checkpoints that were written before",
    "suite/cli.py": "parses and prints",
    "suite/pytest_plugin.py": "judges existing records",
    "suite/running/rerun.py": "compares records with those of a rerun",
    "suite/watcher.py": "reports the progress of a run",
}
"""Exceptions to `NOT_NUMERIC` in both directions, with the reason: a path inside one of those folders enters
the source digest, a path outside of them does not."""


def environment(device: torch.device | str = "cpu") -> Environment:
    """Describes the machine and the software of this process.

    Args:
        device: the device on which models are pruned and evaluated.
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
    """Returns the version of the code in use.

    Args:
        method_version: the `version` of the method; None for the dense model. The source digest does not
            cover methods of other packages, so only this number makes their records stale.
        part_versions: the `version` of the initial method and of the allocation, by name.
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


# Cached, because the imported code stays in use even if its files change during a run.
@lru_cache(maxsize=1)
def _source_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(root):
        # Line endings may differ between checkouts of the same code.
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
    """Whether a source file, given by its path relative to the root folder, enters the source digest."""
    in_such_a_folder = any(_is_in(name, folder) for folder in NOT_NUMERIC)
    return in_such_a_folder == any(_is_in(name, place) for place in EXCEPTIONS)


def _is_in(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")


@lru_cache(maxsize=1)
def _working_tree(root: Path) -> tuple[str | None, bool | None]:
    """Returns commit and cleanliness of the working tree at `root`; None if `root` is not its top folder.

    An installed package may be inside the working tree of another project, whose commit is irrelevant here.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return None, None
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", "methods", "suite", "reports", "pyproject.toml")
    return commit, None if commit is None or changes is None else not changes


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a hook, GIT_DIR and similar variables would make git report on another tree.
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
    """Returns the folder that contains the packages `methods` and `suite`."""
    root = Path(__file__).resolve().parents[2]
    assert Path(methods.__path__[0]).resolve().parent == root
    return root


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu_can(feature: str) -> bool:
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)
    if get_capabilities is not None:
        return bool(get_capabilities().get(feature, False))
    return feature in _cpuinfo("flags").split()


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """Returns the first value of `key` in Linux's `/proc/cpuinfo`; empty on other systems."""
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
