"""The benchmark of evaluations runs whole on a tiny model, and says what it measured."""

import json

from benchmarks.evaluation import main
from tests.tiny import save_tiny_model, write_text


def test_both_tables_have_their_rows(tmp_path, capsys):
    model, text = save_tiny_model(tmp_path / "model"), write_text(tmp_path / "text.txt")
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "eos_token": "Ā"}))
    main(
        [
            *(str(model), "--corpus", str(text), "--seqlen", "32", "--windows", "4", "--repeats", "1"),
            *("--task", "offline_agreement", "--limit", "6", "--batches", "64"),
            *("--out", str(tmp_path / "rows.json")),
        ]
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["what"] for row in rows["speed"]] == 2 * [
        "forward with all logits",
        "perplexity",
        "perplexity and divergence",
        "the same layer by layer",
        "6 questions of offline_agreement",
        "they layer by layer",
        "they with all layers in every batch",
    ]
    ours = [row for row in rows["batches"] if row["scorer"] == "ours" and row["dtype"] == "float32"]
    assert [(row["largest"] < 1e-4, row["other_answers"], row["n"]) for row in ours] == [(True, 0, 6)]
    assert len(rows["batches"]) == 2 * (1 + 3)
    out = capsys.readouterr().out
    assert "| float32 | perplexity | " in out
    assert "| bfloat16 | lm-eval | 32 | " in out
