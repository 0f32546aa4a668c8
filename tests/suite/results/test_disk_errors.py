"""A disk that is full, read-only or failing: one error that says what and where, and nothing lost."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from suite.results.records.record import Record
from suite.results.records.state import check_side_file
from suite.results.records.store import ResultStore
from suite.storage.files import FileLayer
from suite.storage.leftovers import PREFIX
from tests.suite.results.examples import CODE, OTHER_CODE, make_cell, make_failed, make_items, make_record

CELL = make_cell()


class Failing(FileLayer):
    """A disk on which one operation fails, or it and every one after it.

    Args:
        at: the operation, from 0; None = only count.
        code: the `errno` it fails with.
        part: the share of the data that a write which fails leaves behind.
        for_good: whether the disk takes nothing any more from then on.
        only: names of the operations that can fail; the others are not counted.
    """

    def __init__(
        self,
        at: int | None,
        code: int = errno.ENOSPC,
        *,
        part: float = 0.0,
        for_good: bool = False,
        only: tuple[str, ...] = ("make_folder", "create", "write", "sync", "rename", "sync_folder"),
    ) -> None:
        self.steps: list[str] = []
        self.failed = False
        self._at, self._code, self._part = at, code, part
        self._for_good, self._only = for_good, only

    def _step(self, name: str, path: Path | None = None) -> None:
        if name in self._only:
            self.steps.append(name)
            now = len(self.steps) - 1 == self._at
        else:
            now = False
        if now or (self.failed and self._for_good):
            self.failed = True
            raise OSError(self._code, os.strerror(self._code), *([] if path is None else [str(path)]))

    def make_folder(self, folder: Path) -> None:
        self._step("make_folder", folder)
        super().make_folder(folder)

    def create(self, path: Path) -> BinaryIO:
        self._step("create", path)
        return super().create(path)

    def write(self, file: BinaryIO, data: bytes) -> None:
        try:
            self._step("write")  # as with the real call, the error does not say which file
        except OSError:
            super().write(file, data[: int(self._part * len(data))])
            raise
        super().write(file, data)

    def sync(self, file: BinaryIO) -> None:
        self._step("sync")
        super().sync(file)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", target)
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder", folder)
        super().sync_folder(folder)


CASES: dict[str, tuple[Record | None, Record]] = {
    "a first record": (None, make_record()),
    "a stale record replaced": (make_record(code=OTHER_CODE), make_record()),
    "a failure overcome": (make_failed(), make_record()),
    "a failure after a failure": (make_failed(created="2024-01-01T00:00:00Z"), make_failed()),
    "a failure beside a record": (make_record(created="2024-01-01T00:00:00Z"), make_failed()),
}


def tree(root: Path, before: Record | None) -> Path:
    if before is not None:
        ResultStore(root).write(before, make_items(2))
    return root


def check(root: Path, before: Record | None, after: Record, *, tidy: bool) -> None:
    """Nothing lost, nothing unreadable, and, where it could be had, nothing half-written."""
    store = ResultStore(root)
    contents = store.records()
    assert not contents.unreadable
    found = [held.record for stored in contents.records for held in (stored, stored.failure) if held]
    if before is not None:
        assert [r for r in found if r.status == before.status or r.status == "complete"], "it was lost"
    named = set()
    for record in found:
        path = store.path_of(CELL) if record.status == "complete" else store.failed_path_of(CELL)
        assert check_side_file(path, record) is None
        assert record.created in {after.created, before.created if before else ""}
        named |= {path, path.with_name(record.side_file.name)}
    if tidy:
        left = {path for path in root.rglob("*") if path.is_file()} - named
        # Only where the new record has its name may the old one's items still lie there.
        assert len(left) <= any(record.created == after.created for record in found)
        assert not [path for path in left if path.name.startswith(PREFIX)]
    store.write(after, make_items(4))
    assert store.status_of(CELL, CODE).kind in ("complete", "failed")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_that_takes_no_more_costs_nothing_but_the_new_record(
    tmp_path: Path, case: str, code: int
) -> None:
    before, after = CASES[case]
    layer = Failing(None)
    ResultStore(tree(tmp_path / "counted", before), files=layer).write(after, make_items(4))
    assert {"create", "write", "sync", "rename", "sync_folder"} <= set(layer.steps)
    chance = random.Random(case)
    for at, step in enumerate(layer.steps):
        for part in (0.0, 1.0, chance.random()) if step == "write" else (0.0,):
            root = tree(tmp_path / f"{at}-{part}", before)
            failing = Failing(at, code, part=part)
            with pytest.raises(OSError) as caught:
                ResultStore(root, files=failing).write(after, make_items(4))
            assert failing.failed and caught.value.errno == code
            assert str(tmp_path) in str(caught.value), f"{step}: {caught.value} does not say where"
            check(root, before, after, tidy=True)


@pytest.mark.parametrize("case", CASES)
def test_a_disk_that_turns_read_only_says_what_went_wrong_first(tmp_path: Path, case: str) -> None:
    before, after = CASES[case]
    layer = Failing(None)
    ResultStore(tree(tmp_path / "counted", before), files=layer).write(after, make_items(4))

    class ThenReadOnly(Failing):
        def remove(self, path: Path) -> None:
            if self.failed:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            super().remove(path)

    for at in range(len(layer.steps)):
        root = tree(tmp_path / str(at), before)
        with pytest.raises(OSError) as caught:
            ResultStore(root, files=ThenReadOnly(at, errno.EIO, part=0.5)).write(after, make_items(4))
        assert caught.value.errno == errno.EIO
        check(root, before, after, tidy=False)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, code: int) -> None:
    for at, root in ((0, tmp_path / "new"), (0, tree(tmp_path / "old", CASES["a failure overcome"][0]))):
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        failing = Failing(at, code, for_good=True, only=("make_folder", "create"))
        with pytest.raises(OSError) as caught:
            ResultStore(root, files=failing).write(make_record(), make_items())
        assert caught.value.errno == code and str(root) in str(caught.value)
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_tree_in_a_folder_that_can_be_passed_and_not_read_is_written(tmp_path: Path) -> None:
    class Closed(FileLayer):
        def sync_folder(self, folder: Path) -> None:
            if folder == tmp_path:
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            super().sync_folder(folder)

    store = ResultStore(tmp_path / "results", files=Closed())
    store.write(make_record(), make_items())
    assert store.status_of(CELL, CODE).kind == "complete"


@contextmanager
def somebody() -> Iterator[None]:
    """Not root, who may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have other permissions there")
def test_a_real_read_only_folder_is_named_and_left_alone() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        store = ResultStore(folder / "results")
        path = store.write(make_failed(), make_items())
        before = {path: path.read_bytes() for path in path.parent.iterdir()}
        path.parent.chmod(0o555)
        try:
            with somebody(), pytest.raises(PermissionError) as caught:
                store.write(make_record(), make_items())
            assert str(path.parent) in str(caught.value)
            with somebody():
                assert store.status_of(CELL, CODE).kind == "failed"
                assert store.sweep() == []
            assert {path: path.read_bytes() for path in path.parent.iterdir()} == before
        finally:
            path.parent.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX's")
@pytest.mark.parametrize("limit", [1, 1000, 2000])
def test_a_file_that_the_system_really_cuts_leaves_the_old_record(tmp_path: Path, limit: int) -> None:
    before = tree(tmp_path, make_failed())
    held = {path: path.read_bytes() for path in before.rglob("*") if path.is_file()}
    code = f"""
import resource
from pathlib import Path
from suite.results.records.store import ResultStore
from tests.suite.results.examples import make_record
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
ResultStore(Path({str(tmp_path)!r})).write(make_record())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("OSError: [Errno 27] File too large: ") and str(tmp_path) in last
    assert {path: path.read_bytes() for path in before.rglob("*") if path.is_file()} == held
