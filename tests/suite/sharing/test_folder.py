"""Entries of a shared folder are whole or absent, and made by one process at a time."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from suite.sharing.folder import SharedFolder
from tests import PATIENCE_S

SPAWN = multiprocessing.get_context("spawn")


def hold(root: Path, reached, finish) -> None:
    """Makes an entry, waiting half-way."""
    folder = SharedFolder(root)

    def write(entry: Path) -> None:
        (entry / "first").write_text("1")
        reached.set()
        finish.wait()
        (entry / "second").write_text("2")

    with folder.locked("entry"):
        folder.put("entry", write, 0)


def wait_for_it(root: Path, answer) -> None:
    """Says what stands there once the lock is free."""
    answer.put("started")
    with SharedFolder(root).locked("entry") as entry:
        answer.put(sorted(path.name for path in entry.iterdir()) if entry.is_dir() else None)


@pytest.mark.parametrize("killed", [False, True])
def test_others_wait_for_an_entry_and_take_over_from_a_process_that_died(tmp_path, killed):
    reached, finish, answer = SPAWN.Event(), SPAWN.Event(), SPAWN.Queue()
    maker = SPAWN.Process(target=hold, args=(tmp_path, reached, finish))
    maker.start()
    assert reached.wait(PATIENCE_S)
    waiter = SPAWN.Process(target=wait_for_it, args=(tmp_path, answer))
    waiter.start()
    assert answer.get(timeout=PATIENCE_S) == "started"
    waiter.join(0.5)
    assert waiter.is_alive() and answer.empty(), "the entry is being made"
    if killed:
        os.kill(maker.pid, signal.SIGKILL)
    else:
        finish.set()
    assert answer.get(timeout=PATIENCE_S) == (None if killed else ["first", "second"])
    for process in (maker, waiter):
        process.join(PATIENCE_S)


def test_what_fails_half_way_leaves_the_old_entry(tmp_path):
    folder = SharedFolder(tmp_path / "new" / "root")

    def fail(entry: Path) -> None:
        (entry / "half").write_text("")
        raise OSError(28, "No space left on device")

    with folder.locked("entry") as entry:
        assert folder.put("entry", lambda new: (new / "old").write_text("kept") and None, 4)
        assert not folder.put("entry", fail, 4)
        assert not folder.put("entry", lambda new: None, 2**60), "more than the disk has"
        assert [path.name for path in entry.iterdir()] == ["old"]
    assert {path.name for path in folder.root.iterdir()} == {"entry", "entry.lock"}
    folder.remove()
    assert not folder.root.exists()
