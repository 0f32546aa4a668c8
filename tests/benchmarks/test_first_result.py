"""The benchmark of a first result runs whole on a tiny model, and measures what it says."""

import json

import pytest

from benchmarks.first_result import main
from tests.tiny import write_measured_suite


@pytest.mark.slow
def test_it_measures_the_suite_against_a_forward(tmp_path, capsys):
    suite = write_measured_suite(tmp_path, "magnitude wanda")
    out, runs = tmp_path / "first.json", tmp_path / "runs"
    main(["--suite", str(suite), "--dtype", "float32", "--runs", str(runs), "--out", str(out)])
    found = json.loads(out.read_text())
    assert (found["dtype"], len(found["units"]), len(found["cells"])) == ("float32", 10, 3)
    assert found["ratio"] == pytest.approx(found["suite"] / found["unit"])
    assert min(found["units"]) <= found["unit"] <= max(found["units"])
    for phases in found["cells"].values():
        assert sum(phases.values()) < found["suite"]
    assert (runs / "report.html").exists()
    assert "3 cells in" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--suite", str(suite), "--runs", str(runs)])
