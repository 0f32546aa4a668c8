"""One walk on the real model: from a suite file to records, a report, a baseline, and through the gate."""

import pytest

from suite.results import ResultStore

SUITE = """
name = "walk"
models = ["smollm2-135m"]
patterns = ["0.5"]
dtype = "float32"
divergence = true

[calibration]
source = "wiki-sample"
n_samples = 4
seqlen = 64

[[methods]]
name = "magnitude"

[[methods]]
name = "wanda"

[[perplexity]]
corpus = "news-sample"
seqlen = 128
max_tokens = 512

[[tasks]]
name = "offline_agreement"
limit = 8
"""


@pytest.mark.model
def test_from_a_suite_file_to_a_report_and_through_the_gate(prunebench, tmp_path):
    (tmp_path / "walk.toml").write_text(SUITE)
    code, out, err = prunebench("run", "walk.toml", "--out", "runs")
    assert code == 0, err
    assert out.strip() == "runs/report.html"
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "perplexity stays lowest with wanda at 50" in page
    records = {s.record.cell.method: s.record for s in ResultStore(tmp_path / "runs").records().records}
    perplexity = {method: record.metric("perplexity").value for method, record in records.items()}
    assert 15 < perplexity["dense"] < perplexity["wanda"] < perplexity["magnitude"]
    assert records["wanda"].metric("sparsity").value == 0.5
    kl = {method: records[method].metric("kl_divergence").value for method in ("wanda", "magnitude")}
    assert 0 < kl["wanda"] < kl["magnitude"]
    assert prunebench("verify", "runs")[0] == 0
    assert prunebench("gate", "baseline", "runs", "--update")[0] == 0
    code, out, err = prunebench("gate", "baseline", "runs")
    assert code == 0, err
