"""Large temporary files go to a folder that somebody named, or to the cache."""

from suite.cache import cache_root
from suite.scratch import scratch_root


def test_the_first_that_is_named_counts(monkeypatch, tmp_path):
    monkeypatch.delenv("PRUNEBENCH_SCRATCH", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert scratch_root() == cache_root() / "scratch"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert scratch_root().parent == tmp_path / "tmp"
    monkeypatch.setenv("PRUNEBENCH_SCRATCH", str(tmp_path / "own"))
    assert scratch_root() == tmp_path / "own"
