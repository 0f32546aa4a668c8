"""`python -m benchmarks.model` on a folder that holds a tiny model."""

import pytest
import torch

from benchmarks.model import keep_layers, main
from benchmarks.rows import load_rows
from tests.tiny import save_tiny_model, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


def test_it_prints_a_table_and_keeps_the_rows(folder, tmp_path, capsys):
    out = tmp_path / "rows.json"
    asked = [str(folder), "--methods", "magnitude", "llm-barber", "--calibration", "random"]
    sizes = ["--n-samples", "4", "--seqlen", "16", "--repeats", "2", "--layers", "1"]
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
        assert len(row.repeats) == 2 and row.seconds == min(row.repeats)
        assert row.peak_host_bytes >= 0 and row.peak_device_bytes is None
    assert set(rows[-1].phases) == {"propagate", "statistics", "solve"}
    assert rows[0].ratio_to_forwards is None and rows[-1].ratio_to_forwards >= rows[-1].ratio
    assert made_on.device.startswith("cpu (") and made_on.packages["torch"] == torch.__version__
    said = capsys.readouterr().out
    assert "| llama | 1 | resident | llm-barber | 2:4 | float32 | 4 x 16 |" in said
    for text in (said, out.read_text()):
        assert str(folder.parent) not in text


def test_an_unknown_model_is_one_line(capsys):
    assert main(["smollm2-135"]) == 2
    assert "did you mean smollm2-135m?" in capsys.readouterr().err


def test_fewer_layers_are_a_model_that_runs():
    model = tiny_model()
    keep_layers(model, 1)
    assert model.config.num_hidden_layers == len(model.model.layers) == 1
    model(input_ids=torch.zeros(1, 4, dtype=torch.int64))
