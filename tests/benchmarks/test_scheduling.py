"""The benchmark of executors runs whole with few cells, and says what it measured."""

import json

import pytest

from benchmarks.scheduling import main

pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.ray
def test_it_says_what_executors_add(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["--cells", "40", "--long-cells", "20", "--seconds", "0.01", "--workers", "2", "--out", "rows.json"])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["executor"], row["cells"], row["stored"]) for row in rows] == [
        ("ray", 40, False),
        ("ray", 40, True),
        ("local", 40, True),
        ("local", 20, True),
    ]
    assert all(row["cells_per_second"] > 0 for row in rows)
    assert rows[3]["added"] == pytest.approx((rows[3]["seconds"] - 0.2) / 0.2)
    assert "| local | 1 | 20 | 0.010 | written |" in capsys.readouterr().out
    assert not list(tmp_path.glob(".scheduling-*"))


@pytest.mark.slow
@pytest.mark.ray
def test_a_leaderboard_is_scheduled_beside_the_least_it_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--plan", "3", "2", "2", "--hours-per-second", "50", "--workers", "2", "--out", "plan.json"])
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["cells"] == 3 * (1 + 2 * 2)
    assert found["ratio"] >= 1
