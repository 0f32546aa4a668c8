"""Models that need the token their tokenizer puts first: a protocol of its own, taken where they need it.

The model of these tests has perplexity 257 without that token and 2 with it, by the way it is made. By the
papers' protocol the text as a whole begins with it, and so does the first of all windows.
"""

import json
import random

import pytest
import torch

from suite.cell import CalibrationSpec, Cell, PerplexitySpec
from suite.checkpoints.record import recorded_first_token
from suite.data.corpora import calibration_set, evaluation_windows
from suite.data.tokenized_text import first_tokens
from suite.results import ResultStore
from suite.results.records.pruning_file import read_pruning
from tests.suite.conftest import refusal
from tests.tiny import (
    byte_tokenizer,
    leading_tokenizer,
    model_that_needs_its_first_token,
    save_tiny_model,
    tiny_model,
)

FIRST = 256


@pytest.fixture
def needy(tmp_path):
    folder = tmp_path / "needy"
    model_that_needs_its_first_token().save_pretrained(folder)
    leading_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def letters(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_text("".join(random.Random(3).choices("ab", k=2000)))
    return path


@pytest.fixture
def run(prunebench, tmp_path, letters):
    """Runs Wanda at 0.5 on a model; gives the records, the dense one first."""

    def call(model, more="", calibration=""):
        suite = tmp_path / "first.toml"
        suite.write_text(
            f"""name = "first"
models = ["{model}"]
patterns = ["0.5"]
dtype = "float32"
divergence = true
[[methods]]
name = "wanda"
[calibration]
source = "{letters}"
n_samples = 4
seqlen = 32
{calibration}
[[perplexity]]
corpus = "{letters}"
seqlen = 32
max_tokens = 640
{more}
"""
        )
        code, _, err = prunebench("run", suite, "--out", "runs", "--existing", "rerun")
        assert code == 0, err
        records = [stored.record for stored in ResultStore(tmp_path / "runs").records().records]
        return sorted(records, key=lambda record: not record.cell.is_dense)

    return call


def test_the_tokens_a_tokenizer_puts_first():
    assert first_tokens(byte_tokenizer()) == ()
    assert first_tokens(leading_tokenizer()) == (FIRST,)
    assert first_tokens(leading_tokenizer(2)) == (FIRST, FIRST)


def test_every_window_and_every_sequence_begins_with_it(letters):
    text = byte_tokenizer()(letters.read_text())["input_ids"]
    spec = PerplexitySpec(corpus=str(letters), seqlen=32, max_tokens=128, first_token="always")
    windows = evaluation_windows(spec, leading_tokenizer())
    assert windows.input_ids.tolist() == [[FIRST, *text[31 * n : 31 * (n + 1)]] for n in range(4)]
    assert windows.protocol == f"{letters}-bos-s32"
    drawn = calibration_set(
        CalibrationSpec(source=str(letters), n_samples=4, seqlen=32, first_token="always"),
        leading_tokenizer(),
    )
    assert drawn.input_ids[:, 0].tolist() == [FIRST] * 4
    assert FIRST not in drawn.input_ids[:, 1:]


def test_the_papers_protocol_is_as_it_was(letters):
    spec = PerplexitySpec(corpus=str(letters), seqlen=32, max_tokens=128, first_token="never")
    windows = evaluation_windows(spec, leading_tokenizer())
    text = leading_tokenizer()(letters.read_text())["input_ids"]
    assert windows.input_ids.reshape(-1).tolist() == text[:128]
    assert windows.protocol == f"{letters}-token-s32"


def test_a_model_that_needs_it_gets_it(run, needy, letters):
    for record in run(needy):
        (losses,) = record.windows
        assert losses.protocol == f"{letters}-bos-s32"
        (remark,) = [warning for warning in record.warnings if "first token" in warning]
        assert "begin with" in remark
        assert f"on 10 x 32 tokens of {letters} the dense model's perplexity is 2 with it and 257" in remark
    dense, wanda = run(needy)
    assert dense.metric("perplexity").value == pytest.approx(2.0, rel=1e-3)
    assert wanda.calibration.first_token
    assert wanda.divergences[0].protocol == f"{letters}-bos-s32"


def test_never_measures_without_it_and_says_nothing(run, needy, letters):
    never = 'first_token = "never"'
    dense, wanda = run(needy, never, never)
    assert dense.windows[0].protocol == f"{letters}-token-s32"
    assert dense.metric("perplexity").value == pytest.approx(257 ** (19 / 20) * 2 ** (1 / 20), rel=1e-3)
    assert not wanda.calibration.first_token
    assert not [warning for warning in (*dense.warnings, *wanda.warnings) if "first token" in warning]


def test_both_protocols_stand_in_one_record_and_are_not_compared(run, needy, letters):
    other = f'''first_token = "never"
[[perplexity]]
corpus = "{letters}"
seqlen = 32
first_token = "always"'''
    dense, _ = run(needy, other)
    found = {losses.protocol: losses for losses in dense.windows}
    assert found.keys() == {f"{letters}-token-s32", f"{letters}-bos-s32"}


def test_a_model_that_does_not_need_it_keeps_the_papers_protocol(run, tmp_path, letters):
    folder = tmp_path / "other"
    model = tiny_model()
    model.resize_token_embeddings(257)
    model.save_pretrained(folder)
    leading_tokenizer().save_pretrained(folder)
    dense, wanda = run(folder)
    assert dense.windows[0].protocol == f"{letters}-token-s32"
    assert not wanda.calibration.first_token
    assert any("do not begin with the tokenizer's first token" in warning for warning in dense.warnings)


def test_a_tokenizer_that_puts_nothing_first_changes_nothing(run, tmp_path, letters, prunebench):
    folder = save_tiny_model(tmp_path / "plain")
    dense, _ = run(folder)
    assert dense.windows[0].protocol == f"{letters}-token-s32"
    assert dense.warnings == ()
    asked = ("evaluate", folder, "--perplexity", letters, "--seqlen", 32, "--first-token", "always")
    assert "puts no token first" in refusal(
        prunebench(*asked, "--task", "none", "--prompts", "none", "--no-speed")
    )


def test_old_cells_keep_their_names():
    cell = Cell(
        model="m",
        method="wanda",
        pattern="0.5",
        dtype="float32",
        calibration=CalibrationSpec(),
        perplexity=(PerplexitySpec(corpus="wikitext2"),),
    )
    # Computed before there was a first token to ask for.
    assert cell.digest == "4f824ab4fa6dae54998a0babec7f21c0d9915e5f9781d77c99ccded3c73f3120"
    never = cell.model_copy(update={"perplexity": (PerplexitySpec(corpus="wikitext2", first_token="never"),)})
    assert never.digest != cell.digest


@pytest.mark.parametrize("placement", ["resident", "onload"])
def test_a_checkpoint_is_calibrated_and_measured_as_its_model_needs(
    prunebench, needy, letters, tmp_path, placement
):
    calibration = ("--calibration", letters, "--n-samples", 4, "--seqlen", 32, "--dtype", "float32")
    code, _, err = prunebench(
        *("prune", needy, "--method", "wanda", "--sparsity", "0.5", "--out", "pruned", *calibration),
        *("--placement", placement),
    )
    assert code == 0, err
    assert "perplexity is 2 with it and 257 without it" in err
    told = read_pruning(tmp_path / "pruned").record
    assert told.calibration.first_token is True
    assert any("257 without" in warning for warning in told.warnings)
    measured = ("--perplexity", letters, "--seqlen", 32, "--max-tokens", 320, "--task", "none", "--json")
    rest = ("--prompts", "none", "--no-speed", "--dtype", "float32", "--placement", placement)
    for dense in ((), ("--dense", needy)):  # alone, as pruning.json says
        code, out, err = prunebench("evaluate", "pruned", *measured, *rest, *dense)
        assert code == 0, err
        record = json.loads(out)
        assert [losses["protocol"] for losses in record["windows"]] == [f"{letters}-bos-s32"]
        assert any("first token" in warning for warning in record["warnings"])


def test_several_first_tokens_are_not_predicted(run, tmp_path, letters):
    folder = tmp_path / "two"
    model_that_needs_its_first_token().save_pretrained(folder)
    leading_tokenizer(2).save_pretrained(folder)
    dense, _ = run(folder)
    (losses,) = dense.windows
    assert (losses.n_first, losses.n_predicted) == (2, 30)
    # Token 256 itself is as unlikely as any other: a prediction of it would be seen.
    assert dense.metric("perplexity").value == pytest.approx(2.0, rel=1e-3)


def test_verify_finds_nothing_wrong(run, needy, prunebench):
    run(needy)
    code, out, err = prunebench("verify", "runs", "--rerun")
    assert code == 0, out + err


def test_it_is_measured_once_for_all_cells_of_a_model(run, needy, monkeypatch):
    from suite.running import model_session as session

    calls = []
    choose = session.choose_first_token
    monkeypatch.setattr(session, "choose_first_token", lambda *given: calls.append(1) or choose(*given))
    assert len(run(needy)) == 2
    assert len(calls) == 1


def test_a_finished_run_is_kept(run, needy, prunebench):
    run(needy)
    code, out, _ = prunebench("run", "first.toml", "--out", "runs", "--json")
    assert (code, json.loads(out)["kept"]) == (0, 2)


def test_of_one_window_it_is_seen_as_of_many(prunebench, needy, letters):
    asked = ("evaluate", needy, "--perplexity", letters, "--seqlen", 32, "--max-tokens", 32, "--task", "none")
    code, out, err = prunebench(*asked, "--prompts", "none", "--no-speed", "--json")
    assert code == 0, err
    assert json.loads(out)["windows"][0]["protocol"] == f"{letters}-bos-s32"


@pytest.mark.parametrize(("asked", "kind"), [("never", "token"), ("always", "bos")])
def test_a_checkpoint_alone_is_measured_as_it_was_calibrated(prunebench, needy, letters, asked, kind):
    calibration = ("--calibration", letters, "--n-samples", 4, "--seqlen", 32, "--first-token", asked)
    prune = ("prune", needy, "--method", "wanda", "--sparsity", "0.5", "--out", "pruned", *calibration)
    assert prunebench(*prune)[0] == 0
    measured = ("--perplexity", letters, "--seqlen", 32, "--max-tokens", 320, "--task", "none", "--json")
    code, out, err = prunebench("evaluate", "pruned", *measured, "--prompts", "none", "--no-speed")
    assert code == 0, err
    record = json.loads(out)
    assert record["windows"][0]["protocol"] == f"{letters}-{kind}-s32"
    assert any("as in its pruning.json" in warning for warning in record["warnings"])


@pytest.mark.parametrize("seqlen", [1, 2, 3, 4])
def test_sequences_too_short_for_it_and_text_stay_without(prunebench, needy, letters, tmp_path, seqlen):
    leading_tokenizer(2).save_pretrained(needy)
    prune = ("prune", needy, "--method", "wanda", "--sparsity", "0.5", "--calibration", letters)
    sizes = ("--n-samples", 4, "--seqlen", seqlen, "--out", "pruned")
    code, _, err = prunebench(*prune, *sizes)
    assert code == 0, err
    told = read_pruning(tmp_path / "pruned").record
    assert told.calibration.first_token is (seqlen >= 4)
    assert any("first token" in warning for warning in told.warnings) is (seqlen >= 4)


def test_stored_tokens_are_used_as_they_stand(prunebench, needy, tmp_path):
    from safetensors.torch import save_file

    save_file({"input_ids": torch.randint(0, 256, (4, 32))}, tmp_path / "ids.safetensors")
    calibration = ("--calibration", "ids.safetensors", "--n-samples", 4, "--seqlen", 32)
    prune = ("prune", needy, "--method", "wanda", "--sparsity", "0.5", "--out", "pruned", *calibration)
    assert "get no first token" in refusal(prunebench(*prune, "--first-token", "always"))
    code, _, err = prunebench(*prune)
    assert code == 0, err
    told = read_pruning(tmp_path / "pruned")
    assert recorded_first_token(told) is None
    assert told.record.calibration.first_token is False
    assert not any("first token" in warning for warning in told.record.warnings)
