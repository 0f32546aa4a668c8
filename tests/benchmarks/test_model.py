"""`python -m benchmarks.model` on a folder that holds a tiny model."""

from statistics import median

import pytest
import torch

from benchmarks.model import keep_layers, main
from benchmarks.rows import load_rows
from tests.tiny import save_tiny_model, tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


def test_it_prints_a_table_and_keeps_the_rows(folder, tmp_path, capsys):
    out = tmp_path / "rows.json"
    asked = [str(folder), "--methods", "magnitude", "llm-barber", "--calibration", "random"]
    sizes = ["--n-samples", "4", "--seqlen", "16", "--repeats", "3", "--layers", "1"]
    assert main([*asked, *sizes, "--out", str(out)]) == 0
    rows, made_on = load_rows(out)
    assert [(row.method, row.pattern) for row in rows] == [
        ("magnitude", "0.5"),
        ("magnitude", "2:4"),
        ("llm-barber", "0.5"),
        ("llm-barber", "2:4"),
    ]
    for row in rows:
        assert (row.model, row.n_layers, row.n_samples, row.seqlen) == ("llama", 1, 4, 16)
        assert len(row.repeats) == 3 and row.seconds == median(row.repeats)
        assert row.ratio == pytest.approx(row.seconds / row.floor_seconds)
        assert row.strict_ratio == pytest.approx(row.seconds / row.strict_floor)
        assert sum(row.strict_parts.values()) == pytest.approx(row.strict_floor)
        assert row.warnings == []
        assert row.peak_host_bytes >= 0 and row.peak_device_bytes is None
    assert set(rows[-1].phases) == {"propagate", "statistics", "solve"}
    assert rows[0].strict_floor == rows[0].floor_seconds
    assert rows[-1].strict_parts["weight_gradients"] > 0 == rows[-1].floor_parts["weight_gradients"]
    assert made_on.device.startswith("cpu (") and made_on.packages["torch"] == torch.__version__
    said = capsys.readouterr().out
    assert "| seconds | floor | ratio | strict floor | strict ratio |" in said
    assert "| llama | 1 | resident | llm-barber | 2:4 | float32 | 4 x 16 |" in said
    for text in (said, out.read_text()):
        assert str(folder.parent) not in text


def test_an_unknown_model_is_one_line(capsys):
    assert main(["smollm2-135"]) == 2
    assert "did you mean 'smollm2-135m'?" in capsys.readouterr().err


def test_fewer_layers_are_a_model_that_runs():
    model = tiny_model()
    keep_layers(model, 1)
    assert model.config.num_hidden_layers == len(model.model.layers) == 1
    model(input_ids=torch.zeros(1, 4, dtype=torch.int64))
