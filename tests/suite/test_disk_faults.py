"""`prunebench run` on a disk that fails half-way: one line, exit code 3, and what is finished stands."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from suite.results import ResultStore
from suite.storage.files import FileLayer
from suite.storage.leftovers import PREFIX
from tests.tiny import write_suite

FINISHED = 3


class FailsAfter(FileLayer):
    """Finishes so many records, and then fails one kind of operation, again and again."""

    finished = 0
    code = errno.ENOSPC
    step = "write"

    def _fail(self, step: str, path: Path | None = None) -> None:
        if step == self.step and FailsAfter.finished >= FINISHED:
            raise OSError(self.code, os.strerror(self.code), *([] if path is None else [str(path)]))

    def create(self, path: Path) -> BinaryIO:
        self._fail("create", path)
        return super().create(path)

    def write(self, file: BinaryIO, data: bytes) -> None:
        if FailsAfter.finished >= FINISHED and self.step == "write":
            super().write(file, data[: len(data) // 3])
        self._fail("write")
        super().write(file, data)

    def sync(self, file: BinaryIO) -> None:
        self._fail("sync")
        super().sync(file)

    def sync_folder(self, folder: Path) -> None:
        self._fail("sync_folder", folder)
        super().sync_folder(folder)

    def rename(self, source: Path, target: Path) -> None:
        self._fail("rename", target)
        super().rename(source, target)
        if target.suffix == ".json":
            FailsAfter.finished += 1


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("write", errno.ENOSPC),
        ("sync", errno.EIO),
        ("sync_folder", errno.EIO),
        ("create", errno.EROFS),
        ("create", errno.EACCES),
        ("rename", errno.EIO),
    ],
    ids=str,
)
def test_a_failing_disk_ends_the_run_in_one_line_and_the_next_run_goes_on(
    prunebench, tmp_path, monkeypatch, step: str, code: int
) -> None:
    suite = write_suite(tmp_path, methods="magnitude wanda")
    layer = FailsAfter()
    layer.step, layer.code = step, code
    FailsAfter.finished = 0
    with monkeypatch.context() as failing:
        failing.setattr("suite.results.records.store.FileLayer", lambda: layer)
        exit_code, out, err = prunebench("run", suite, "--out", "runs")
    assert (exit_code, out) == (3, "")
    (line,) = [line for line in err.splitlines() if line.startswith("prunebench: ")]
    assert line == err.splitlines()[-1]
    assert os.strerror(code) in line and "runs" in line
    assert "Traceback" not in err
    store = ResultStore(tmp_path / "runs")
    contents = store.records()
    assert not contents.unreadable
    kept = {stored.path: stored.path.read_bytes() for stored in contents.records}
    assert len(kept) == FINISHED
    for stored in contents.records:
        assert store.items(stored) is not None
    assert not list((tmp_path / "runs").rglob(f"{PREFIX}*"))
    exit_code, out, _ = prunebench("run", suite, "--out", "runs", "--json")
    assert exit_code == 0
    assert (json.loads(out)["kept"], json.loads(out)["finished"]) == (FINISHED, 5 - FINISHED)
    assert all(path.read_bytes() == data for path, data in kept.items())


def test_a_results_folder_that_cannot_be_made_is_named(prunebench, tmp_path) -> None:
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    (tmp_path / "file").write_text("not a folder")
    exit_code, _, err = prunebench("run", suite, "--out", "file/runs")
    assert exit_code == 2, "it is found before anything runs"
    (line,) = err.splitlines()
    assert line.startswith("prunebench: --out file/runs: ") and "file is a file" in line
    assert (tmp_path / "file").read_text() == "not a folder"
