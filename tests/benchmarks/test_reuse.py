"""The benchmark of shared initial masks runs whole on a tiny model."""

import json

import pytest

from benchmarks.reuse import main
from tests.tiny import save_tiny_model, write_text

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("initial", ["wanda", "sparsegpt"])
def test_it_says_what_sharing_saves(tmp_path, monkeypatch, capsys, initial):
    model, text = save_tiny_model(tmp_path / "model"), write_text(tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    main(
        [
            *(str(model), "--corpus", str(text), "--n-samples", "4", "--seqlen", "32", "--max-tokens", "64"),
            *("--settings", "3", "--repeats", "2", "--initial", initial, "--dtype", "float32"),
            *("--out", "reuse.json"),
        ]
    )
    rows = json.loads((tmp_path / "reuse.json").read_text())
    assert len(rows) == 2
    for row in rows:
        assert row["same_masks"]
        assert 0 < row["initial"] < row["alone"]
        assert row["ratio"] == pytest.approx(row["shared"] / (row["alone"] - row["initial"]))
    assert f"3 rebuilds of one {initial} mask" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob(".reuse-*")] == []
