"""Questions go through onloaded layers together: each layer comes once for all, and no score is another."""

import gc
import weakref

import pytest
import torch
from lm_eval.api.instance import Instance

from methods.base import Placement
from methods.conformance import FAMILIES
from methods.placement.layer_storage import HostStorage
from suite.evaluation.lm_eval_tasks.scoring_model import ScoringModel
from suite.evaluation.scoring import decoder_pass as body_module
from suite.evaluation.scoring.decoder_pass import in_groups, steps_each
from tests.methods.test_layer_loading import prefetching_threads
from tests.methods.tiny_models import make_model
from tests.tiny import byte_tokenizer, short_of_memory, tiny_model

ONLOAD = Placement(weights="onload")
SHARED = [3, 9, 27]
REQUESTS = [
    (None, SHARED, [1]),
    (None, SHARED, [2]),
    (None, SHARED, [1, 7, 5]),
    (None, [5, 4, 3, 2, 1, 6, 8, 10, 12, 14], [11, 13]),
    (None, [60, 2], [33, 44, 55, 20]),
    (None, [7], [8]),
    (None, SHARED, [2, 6, 4]),
    (None, SHARED, [1]),
]
READ_ONE_BY_ONE = {
    *("bloom", "mpt"),  # no positions are given to them: they compute a bias from the order in the row
    # Attention windows shorter than the longest input:
    *("gemma2", "gemma3", "gpt-oss", "mistral-sliding", "qwen2-moe"),
}


@pytest.fixture
def visited(monkeypatch):
    """The layers that were fetched, in order."""
    fetched = []
    fetch = HostStorage.fetch

    def noted(self, layer, **how):
        fetched.append(layer.index)
        return fetch(self, layer, **how)

    monkeypatch.setattr(HostStorage, "fetch", noted)
    return fetched


def scoring(model, placement=ONLOAD, tokens_per_batch=24, shares=False, **told):
    found = ScoringModel(model, byte_tokenizer(), placement=placement, **told)
    found.scorer.shares = shares
    found.scorer.tokens_per_batch = tokens_per_batch
    return found


@pytest.mark.parametrize("shares", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_scores_are_those_of_the_models_own_forward(family, shares, visited):
    model = make_model(family).eval()
    expected = scoring(model, Placement())._loglikelihood_tokens(REQUESTS)
    scored = []
    asked = scoring(model, shares=shares, on_scored=scored.append)
    found = asked._loglikelihood_tokens(REQUESTS)
    assert asked.scorer.shared == (shares and family not in READ_ONE_BY_ONE)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    # The first is looked at once before, and kept for its visit.
    assert visited == [0, 1]
    assert sum(scored) == len(REQUESTS) * steps_each(model, ONLOAD) == len(REQUESTS) * 3
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert prefetching_threads() == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_they_round_alike(dtype):
    model = make_model("opt", dtype).eval()
    found, expected = (scoring(model, p)._loglikelihood_tokens(REQUESTS) for p in (ONLOAD, Placement()))
    assert found == expected


def test_what_the_memory_does_not_hold_together_goes_in_groups(visited, monkeypatch):
    model = make_model("llama").eval()
    expected = scoring(model)._loglikelihood_tokens(REQUESTS)
    del visited[:]
    # Six inputs of 11, 5, 5, 5, 3 and 1 tokens make two batches, of 2 x 11 and 4 x 5 tokens.
    monkeypatch.setattr(body_module, "MAX_CARRIED_BYTES", 22 * (model.config.hidden_size + 11) * 4)
    scored = []
    assert scoring(model, on_scored=scored.append)._loglikelihood_tokens(REQUESTS) == expected
    assert visited == [0, 1, 0, 1]
    assert sum(scored) == 3 * len(REQUESTS)


def test_a_batch_larger_than_a_group_is_one(monkeypatch):
    model = make_model("llama").eval()
    monkeypatch.setattr(body_module, "MAX_CARRIED_BYTES", 1)
    batches = [body_module.TokenBatch(torch.zeros(n, 4, dtype=torch.int64)) for n in (3, 1)]
    assert list(in_groups(batches, model, ONLOAD)) == [batches[:1], batches[1:]]
    assert list(in_groups(batches, model, Placement())) == [batches]
    assert list(in_groups([], model, ONLOAD)) == list(in_groups([], model, Placement())) == []


def test_hidden_states_are_gone_with_their_group(monkeypatch):
    model = make_model("llama").eval()
    held = []
    streams = body_module.LayerStream

    def noted(*given):
        stream = streams(*given)
        held.append(weakref.ref(stream))
        return stream

    monkeypatch.setattr(body_module, "LayerStream", noted)
    gc.disable()
    try:
        scoring(model)._loglikelihood_tokens(REQUESTS)
        assert [stream() for stream in held] == [None]
    finally:
        gc.enable()


def test_what_one_group_learned_of_memory_the_next_ones_know(monkeypatch):
    model = make_model("llama").eval()
    requests = [(None, [n, 3, 2, 1], [1]) for n in range(20)]
    expected = scoring(model)._loglikelihood_tokens(requests)
    monkeypatch.setattr(body_module, "MAX_CARRIED_BYTES", 1)
    remarks, failed = [], []
    with short_of_memory(model.model.layers[0], 2, failed):
        asked = scoring(model, on_remark=remarks.append)
        found = asked._loglikelihood_tokens(requests)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)
    # The second batch was made when the first had not been tried.
    assert failed == [6, 3, 6, 3]
    assert asked.scorer.tokens_per_batch == 8
    assert remarks == [
        "memory ran out with batches of 6 sequences; it went on with 3",
        "memory ran out with batches of 3 sequences; it went on with 2",
    ]


def test_where_a_layer_runs_out_of_memory_the_rest_is_done_in_smaller_batches():
    model = make_model("llama").eval()
    expected = scoring(model)._loglikelihood_tokens(REQUESTS)
    scored, remarks = [], []
    asked = scoring(model, on_scored=scored.append, on_remark=remarks.append)
    with short_of_memory(model.model.layers[1], 1):
        found = asked._loglikelihood_tokens(REQUESTS)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert remarks == [
        "memory ran out with batches of 4 sequences; it went on with 2",
        "memory ran out with batches of 2 sequences; it went on with 1",
    ]
    assert sum(scored) == 3 * len(REQUESTS)


def test_texts_and_generated_answers_too(visited):
    model = tiny_model().eval()
    texts = [Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(["a b " * 90, "c"])]
    until = {"until": ["\n"], "max_gen_toks": 4, "do_sample": False}
    asked = [Instance("generate_until", {}, (text, until), n) for n, text in enumerate(["the cat", "x"])]
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "!"
    resident, onload = (ScoringModel(model, tokenizer, placement=p) for p in (Placement(), ONLOAD))
    # More windows than the eight that lm-eval gives at once.
    resident._max_length = onload._max_length = 16
    assert onload.loglikelihood_rolling(texts) == resident.loglikelihood_rolling(texts)
    layers = list(range(model.config.num_hidden_layers))
    assert visited == layers, "once for all windows of all texts"
    written = onload.generate_until(asked, disable_tqdm=True)
    assert written == resident.generate_until(asked, disable_tqdm=True)
    # Two prompts are one batch, of four tokens each.
    assert visited == layers + 4 * layers
    assert onload.batch_size == 8
