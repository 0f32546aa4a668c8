"""Inputs that begin alike are read together, and have the scores of inputs read one by one."""

import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from methods.base import Placement
from methods.engine.hidden_states import at_rest
from methods.engine.layer_inputs import TokenBatch
from suite.evaluation.scoring import continuations, shared_prefixes
from suite.evaluation.scoring.continuations import ContinuationScorer, GroupedRequests
from suite.evaluation.scoring.shared_prefixes import shared_rows, token_batch
from tests import every_family
from tests.tiny import tiny_model

VOCABULARY = 250
SHARING = {
    *("llama", "opt", "gpt2", "gpt_neox", "gptj", "falcon", "phi", "phi3", "olmo2", "stablelm", "starcoder2"),
    *("mistral", "mixtral", "ministral3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2"),
    *("gemma3_text", "cohere2", "glm4", "granite", "smollm3", "gpt_oss", "deepseek_v2", "deepseek_v3"),
}
"""Families that have to read common beginnings once; for others it is enough that their scores are right."""


def questions(n=6, n_options=4, n_context=(10, 20), first=(), seed=0):
    """Requests: the options of questions, whose contexts begin with `first`."""
    draw = random.Random(seed)

    def tokens(low, high):
        return [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(low, high))]

    contexts = [[*first, *tokens(*n_context)] for _ in range(n)]
    return [(context, tokens(1, 5)) for context in contexts for _ in range(n_options)]


def grouped(requests, n_positions=60):
    return GroupedRequests.of(requests, n_positions)


def scored(model, requests, *, shares=True, placement=Placement()):
    scorer = ContinuationScorer(model, placement)
    scorer.shares = shares
    return scorer, scorer.score(requests)


def differences(found, expected):
    """Per scored token, in nats."""
    return [
        abs(a.log_likelihood - b.log_likelihood) / a.n_tokens for a, b in zip(found, expected, strict=True)
    ]


@pytest.mark.parametrize(
    "requests",
    [
        questions(),
        questions(first=range(10, 40)),
        questions(n=1),
        questions(n_context=(1, 1)),
        # One input is the beginning of another; one token has several continuations.
        [([5, 6], [7]), ([5, 6], [7, 8]), ([5, 6], [9]), ([5, 6], [7, 8, 9, 10]), ([5], [6]), ([5, 6], [7])],
    ],
)
def test_each_path_of_a_row_is_an_input(requests):
    of_task = grouped(requests)
    seen = {}
    for row in shared_rows(of_task.inputs, of_task.n_last):
        for member, places in zip(row.members, row.places, strict=True):
            path = [places[-1]]
            while row.parents[path[-1]] != path[-1]:
                path.append(row.parents[path[-1]])
            path.reverse()
            assert row.tokens[path].tolist() == of_task.inputs[member].tolist()
            assert path[len(path) - of_task.n_last[member] :] == places.tolist()
            apart = path != list(range(path[0], path[0] + len(path)))
            assert apart == (member in row.branches)
            seen[member] = row
    assert seen.keys() == set(range(len(of_task.inputs)))


def test_no_beginning_is_there_twice():
    prefix, context, options = list(range(30)), [40, 41, 42], [[n, n] for n in range(60, 70)]
    of_task = grouped([([*prefix, *context], option) for option in options])
    (row,) = shared_rows(of_task.inputs, of_task.n_last)
    assert len(row.tokens) == len(prefix) + len(context) + len(options)


def test_a_row_holds_what_fits(monkeypatch):
    monkeypatch.setattr(shared_prefixes, "ROW_TOKENS", 40)
    of_task = grouped([*questions(n=20), *questions(n=3, n_context=(50, 55), seed=1)])
    rows = shared_rows(of_task.inputs, of_task.n_last)
    longest = [max(len(of_task.inputs[member]) for member in row.members) for row in rows]
    assert all(len(row.tokens) <= max(40, 2 * n) for row, n in zip(rows, longest, strict=True))
    assert [len(row.tokens) for row in rows] == sorted((len(row.tokens) for row in rows), reverse=True)
    options = len(of_task.inputs) / 23
    assert sum(map(len, of_task.inputs)) / sum(len(row.tokens) for row in rows) > options / 2


def test_a_row_of_long_inputs_is_not_twice_as_long(monkeypatch):
    monkeypatch.setattr(shared_prefixes, "ROW_TOKENS", 40)
    monkeypatch.setattr(shared_prefixes, "MORE_TOKENS", 30)
    of_task = grouped(questions(n=4, n_context=(100, 110)), 200)
    rows = shared_rows(of_task.inputs, of_task.n_last)
    assert len(rows) == 4, "options share their question, questions share no row"
    assert all(len(row.tokens) < 145 for row in rows)


def test_a_token_sees_its_own_path_and_stands_where_its_input_has_it():
    # 7 8 9 | 7 8 5 | 6, and padding
    parents = np.array([0, 0, 1, 1, 4], dtype=np.int32)
    tokens = np.array([7, 8, 9, 5, 6], dtype=np.int32)
    given = TokenBatch.of_trees([(tokens, parents), (tokens[:2], parents[:2])]).arguments(
        torch.device("cpu"), torch.bfloat16
    )
    assert given["position_ids"].tolist() == [[0, 1, 2, 2, 0], [0, 1, 0, 0, 0]]
    seen = given["attention_mask"][:, 0] == 0
    assert given["attention_mask"].dtype == torch.bfloat16
    assert seen[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    padding = torch.eye(5, dtype=torch.bool)
    padding[1, 0] = True
    assert seen[1].equal(padding)


@pytest.mark.parametrize("weights", ["resident", "onload"])
@pytest.mark.parametrize("first", [(), range(10, 40)], ids=["alone", "after examples"])
def test_scores_are_those_of_inputs_read_one_by_one(first, weights):
    model, of_task = tiny_model().eval(), grouped(questions(first=first))
    placement = Placement(weights=weights)
    scorer, found = scored(model, of_task, placement=placement)
    _, expected = scored(model, of_task, shares=False)
    assert scorer.shared
    assert max(differences(found, expected)) < 1e-5
    assert [(s.greedy, s.rank, s.n_tokens) for s in found] == [
        (s.greedy, s.rank, s.n_tokens) for s in expected
    ]


def test_a_rank_is_one_where_and_only_where_greedy_decoding_takes_every_token():
    model, requests = tiny_model().eval(), questions(n=4)
    with torch.inference_mode():
        for context in {tuple(context) for context, _ in requests}:
            likeliest = int(model(torch.tensor([context])).logits[0, -1].argmax())
            requests += [([*context], [likeliest]), ([*context], [(likeliest + 1) % VOCABULARY])]
    _, found = scored(model, grouped(requests))
    assert {score.greedy for score in found} == {True, False}
    assert all((score.rank == 1) == score.greedy for score in found)


def test_the_rank_is_the_worst_of_the_tokens():
    model, context, answer = tiny_model().eval(), [5, 9, 4], [17, 30, 8]
    _, (score,) = scored(model, grouped([(context, answer)]))
    with torch.inference_mode():
        logits = model(torch.tensor([[*context, *answer[:-1]]])).logits[0, len(context) - 1 :]
    ranks = [int((row > row[token]).sum()) + 1 for row, token in zip(logits, answer, strict=True)]
    assert score.rank == max(ranks)


def test_a_model_whose_attention_sees_neighbours_is_read_one_by_one():
    """The mask is ignored, which no argument tells: the trial finds out, once, and all scores are right."""
    model, of_task = tiny_model().eval(), grouped(questions())
    _, expected = scored(model, of_task, shares=False)
    forward = model.model.forward

    def ignoring(input_ids, attention_mask=None, position_ids=None, **kwargs):
        rows.append(len(input_ids))
        return forward(input_ids=input_ids, position_ids=position_ids, **kwargs)

    model.model.forward = ignoring
    model.model.forward.__signature__ = None
    rows = []
    scorer, found = scored(model, of_task)
    assert not scorer.shared
    assert max(differences(found, expected)) < 1e-5
    first, rows[:] = len(rows), []
    scored(model, of_task)
    assert len(rows) < first, "the second time, nothing is tried"


def test_a_window_shorter_than_an_input_is_left_to_the_model(monkeypatch):
    model, of_task = tiny_model().eval(), grouped(questions(n_context=(20, 20)))
    model.config.sliding_window = 20
    scorer, _ = scored(model, of_task)
    assert not scorer.shared
    model.config.sliding_window = 30
    assert scored(model, of_task)[0].shared


def test_a_longer_row_than_tried_is_tried_again():
    model = tiny_model().eval()
    scored(model, grouped(questions(n=1)))
    tried = continuations._TREES_READ[model]
    scored(model, grouped(questions(n=5)))
    assert continuations._TREES_READ[model] > tried


def test_little_to_share_is_not_shared():
    model = tiny_model().eval()
    scorer, _ = scored(model, grouped(questions(n_options=1)))
    assert not scorer.shared
    assert scored(model, grouped([]))[1] == []


def test_padding_changes_nothing():
    of_task = grouped(questions())
    rows = shared_rows(of_task.inputs, of_task.n_last)
    both = token_batch([rows[0], shared_rows(of_task.inputs[:3], of_task.n_last[:3])[0]])
    model = tiny_model().eval()
    with torch.inference_mode():
        together = model(**both.arguments(model.device, model.dtype)).logits[0]
        alone = model(**both[:1].arguments(model.device, model.dtype)).logits[0]
    torch.testing.assert_close(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(every_family.stored()))
def test_every_family_gives_the_same_scores_either_way(name):
    config = every_family.tiny_config(name)
    text = config.get_text_config()
    # Windows and choices of tokens as wide as in real models, where a question fits into them.
    for wide in ("sliding_window", "attention_chunk_size", "index_topk"):
        if isinstance(getattr(text, wide, None), int):
            setattr(text, wide, 512)
    model = AutoModelForCausalLM.from_config(config).eval()
    every_family.fill(model)
    of_task = grouped(questions(n=4))
    try:
        with at_rest(model):
            _, expected = scored(model, of_task, shares=False)
    except Exception as error:  # how such a family is refused is tested elsewhere
        pytest.skip(f"cannot be scored: {error}")
    with at_rest(model):
        scorer, found = scored(model, of_task)
    assert max(differences(found, expected)) < 1e-4
    assert scorer.shared or name not in SHARING
