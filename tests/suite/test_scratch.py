"""Large temporary files go to a folder that somebody named, or to the cache."""

import re
import shutil

import pytest

from suite.machine.cache import cache_root
from suite.machine.scratch import free_scratch, scratch_folder, scratch_root
from suite.storage.leftovers import temporary_name


def test_the_first_that_is_named_counts(monkeypatch, tmp_path):
    monkeypatch.delenv("PRUNEBENCH_SCRATCH", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert scratch_root() == cache_root() / "scratch"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert scratch_root().parent == tmp_path / "tmp"
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(tmp_path / "own"))
    assert scratch_root() == tmp_path / "own"


def test_a_scratch_folder_goes_whatever_happens_in_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(tmp_path / "own"))
    with pytest.raises(KeyboardInterrupt), scratch_folder() as folder:
        (folder / "layer").write_text("weights")
        raise KeyboardInterrupt
    assert list((tmp_path / "own").iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_lives_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(tmp_path))
    killed = re.sub(r"-\d+-", "-999999999-", temporary_name())
    for name in (killed, "shared-1234", "somebody-elses"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "layer").write_text("weights")
    with scratch_folder() as other, scratch_folder() as folder:
        assert other.exists()
        assert sorted(tmp_path.iterdir()) == sorted(
            [other, folder, tmp_path / "shared-1234", tmp_path / "somebody-elses"]
        )


def test_what_a_killed_process_left_counts_as_free(monkeypatch, tmp_path):
    root = tmp_path / "not" / "there" / "yet"
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(root))
    usage = shutil.disk_usage(tmp_path)
    asked = []

    def disk_usage(path):
        asked.append(path)
        return usage

    monkeypatch.setattr("suite.machine.scratch.shutil.disk_usage", disk_usage)
    assert free_scratch() == usage.free
    assert asked == [tmp_path]
    for name in (re.sub(r"-\d+-", "-999999999-", temporary_name()), temporary_name()):
        (root / name).mkdir(parents=True)
        (root / name / "layer").write_text("weights")
    assert free_scratch() == usage.free + len("weights")


def test_a_disk_that_does_not_answer_is_not_known(monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(tmp_path))

    def broken(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("suite.machine.scratch.shutil.disk_usage", broken)
    assert free_scratch() is None
