"""One suite through every executor: the same masks and numbers, each cell once."""

import pytest

from benchmarks.executors import SUITE, main, numbers, prunebench, run_way
from suite.planning.suite_cells import load_suite, plan
from tests.tiny import write_suite


@pytest.fixture
def suite(tmp_path):
    path = write_suite(tmp_path, "magnitude wanda sparsegpt llm-barber", patterns=["0.5"])
    path.write_text("divergence = true\nthreads = 1\n" + path.read_text())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("way", ["processes", pytest.param("ray", marks=pytest.mark.ray), "shards"])
def test_executors_give_the_same_masks_and_numbers(suite, tmp_path, way):
    if way == "ray":
        pytest.importorskip("ray")
    expected, found = run_way(suite, "local", tmp_path), run_way(suite, way, tmp_path)
    assert len(expected) == 5
    assert found == expected, "to the bit: threads, batches and code are the same"
    assert {entry[3] for entry in found.values()} == {1}
    assert not list((tmp_path / "scratch").glob("shared-*")), "a finished plan leaves nothing"


@pytest.mark.slow
def test_the_comparison_finds_a_difference(suite, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.toml"
    other.write_text(suite.read_text().replace("n_samples = 4", "n_samples = 3"))
    prunebench(tmp_path, "run", str(other), "--out", "other")
    monkeypatch.setattr("benchmarks.executors.run_way", lambda *_: next(trees))
    trees = iter([numbers(tmp_path / "other"), {}])
    with pytest.raises(SystemExit) as ended:
        main([str(suite), "--ways", "local", "shards"])
    assert ended.value.code == 1
    assert "| shards | 0 | 0 | OTHERS |" in capsys.readouterr().out


def test_the_suite_of_the_benchmark_is_a_valid_one():
    config = load_suite(str(SUITE))
    assert config.threads == 1, "another count of threads may sum in another order"
    assert config.dtype == "float32", "the number format that every CPU is quick in"
    assert len(plan(config, dtype=config.dtype)) == 6
