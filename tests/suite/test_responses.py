"""Greedy answers are the model's own likeliest tokens, in whatever batches they are computed."""

import logging
import math
import warnings

import pytest
import torch
from torch import nn

from methods.base import Placement
from methods.errors import InputError
from methods.structure.forward_override import replaced_forward
from suite.data.prompts import Prompt
from suite.evaluation.scoring import answer_likelihood
from suite.evaluation.scoring.answer_likelihood import answer_nll
from suite.evaluation.scoring.decoder_pass import steps_each
from suite.evaluation.scoring.responses import (
    Answer,
    encode_prompts,
    first_parted_token,
    greedy_answers,
    repetition,
    uses_chat_template,
)
from tests.methods.tiny_models import FAMILIES, make_model
from tests.tiny import byte_tokenizer, short_of_memory, tiny_model

N_TOKENS = 12
PROMPTS = [
    Prompt(str(number), "other", text)
    for number, text in enumerate(["A tree in the rain", "Book", "What fish?", "moon, again and again", "b"])
]
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def model():
    """Its answers differ from prompt to prompt and from token to token; weights as they start repeat one."""
    model = tiny_model().eval()
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(30)
    return model


def likeliest(model, prompt_ids, n_tokens=N_TOKENS):
    """Greedy decoding by its definition: the whole sequence anew for every token, no batch, no cache."""
    sequence = list(prompt_ids)
    for _ in range(n_tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sequence]), use_cache=False).logits
        sequence.append(int(logits[0, -1].argmax()))
    return tuple(sequence[len(prompt_ids) :])


def tokens(answers):
    return [answer.token_ids for answer in answers]


def answers_of(model, tokenizer, **settings):
    return greedy_answers(model, tokenizer, PROMPTS, max_new_tokens=N_TOKENS, **settings)


def test_a_batch_of_prompts_gets_the_likeliest_tokens_of_each(model, tokenizer):
    done = []
    expected = [likeliest(model, input_ids) for input_ids in encode_prompts(tokenizer, PROMPTS)]
    answers = answers_of(model, tokenizer, on_answers=done.append)
    assert tokens(answers) == expected
    assert len(set(expected)) == len(PROMPTS)
    assert [answer.prompt_id for answer in answers] == [prompt.id for prompt in PROMPTS]
    assert answers[0].text == tokenizer.decode(list(expected[0]))
    assert not any(answer.ended for answer in answers)
    assert done == [len(PROMPTS)]


def test_batches_of_any_size_give_the_same_answers_in_the_order_of_prompts(model, tokenizer):
    done = []
    whole = answers_of(model, tokenizer)
    assert answers_of(model, tokenizer, batch_size=1) == whole
    assert answers_of(model, tokenizer, batch_size=2, on_answers=done.append) == whole
    assert done == [2, 2, 1]


class OwnVocabulary:
    """A character a token, few enough for the models of the contract."""

    eos_token_id = None
    chat_template = None

    def __call__(self, text):
        return {"input_ids": [ord(character) - ord(" ") for character in text]}

    def decode(self, token_ids, **settings):
        return "".join(chr(token + ord(" ")) for token in token_ids)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "bloom", "falcon", "gemma3", "qwen3-moe", "gpt-oss"])
def test_padding_changes_no_token_of_any_kind_of_position(family):
    model = make_model(family).eval()
    model.generation_config.eos_token_id = None
    tokenizer = OwnVocabulary()
    expected = [likeliest(model, input_ids) for input_ids in encode_prompts(tokenizer, PROMPTS)]
    assert tokens(answers_of(model, tokenizer)) == expected


def test_an_answer_stops_at_any_end_token_and_leaves_it_out(model, tokenizer):
    free = tokens(answers_of(model, tokenizer))
    ends = [free[0][3], free[1][5]]
    model.generation_config.eos_token_id = ends
    answers = answers_of(model, tokenizer)
    for answer, whole in zip(answers, free, strict=True):
        stop = min((whole.index(end) for end in ends if end in whole), default=None)
        assert answer.token_ids == whole[:stop]
        assert answer.ended is (stop is not None)
    assert {answer.ended for answer in answers} == {True, False}


def test_the_tokenizers_end_token_counts_too(model, tokenizer):
    end = answers_of(model, tokenizer)[0].token_ids[4]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    answer = answers_of(model, tokenizer)[0]
    assert answer.ended
    assert end not in answer.token_ids


def test_the_models_own_generation_settings_change_nothing_and_stay(model, tokenizer, caplog):
    expected = answers_of(model, tokenizer)
    own = model.generation_config
    own.update(do_sample=True, temperature=5.0, top_k=3, repetition_penalty=3.0, no_repeat_ngram_size=1)
    own.update(min_new_tokens=3, max_length=4, num_beams=2, suppress_tokens=[1, 2], use_cache=False)
    before = own.to_dict()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert answers_of(model, tokenizer) == expected
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []
    assert model.generation_config is own
    assert own.to_dict() == before


def test_model_and_tokenizer_come_back_as_they_were(model, tokenizer):
    expected = answers_of(model, tokenizer)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    model.model.layers[0].eval()
    model.config.use_cache = False
    mode = [module.training for module in model.modules()]
    tokenizer.padding_side = "right"
    assert answers_of(model, tokenizer) == expected
    assert [module.training for module in model.modules()] == mode
    assert model.config.use_cache is False
    assert tokenizer.padding_side == "right"


def test_it_comes_back_from_an_error_too(model, tokenizer):
    own = model.generation_config
    model.train()

    def broken(**kwargs):
        raise ValueError("broken")

    with replaced_forward(model, broken), pytest.raises(ValueError, match="broken"):
        answers_of(model, tokenizer)
    assert model.generation_config is own
    assert model.training


def test_where_memory_runs_out_every_prompt_is_still_answered_once(model, tokenizer):
    expected, done, halved = answers_of(model, tokenizer), [], []
    with short_of_memory(model, 1):
        answers = answers_of(model, tokenizer, on_answers=done.append, on_halved=halved.append)
    assert answers == expected
    assert halved == [2, 1]
    assert done == [1] * len(PROMPTS)


def test_a_prompt_that_does_not_fit_alone_is_an_error(model, tokenizer):
    with short_of_memory(model, 0), pytest.raises(torch.OutOfMemoryError):
        answers_of(model, tokenizer)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_whose_logits_are_no_numbers_says_nothing(model, tokenizer, value):
    model.generation_config.eos_token_id = 0  # what argmax makes of NaN
    with torch.no_grad():
        model.model.norm.weight[0] = value
    answers = answers_of(model, tokenizer)
    assert answers == [Answer(prompt.id, (), "", ended=False) for prompt in PROMPTS]
    assert answer_nll(model, encode_prompts(tokenizer, PROMPTS), answers) == [None] * len(PROMPTS)


def test_an_answer_stops_where_its_logits_stop_being_numbers(model, tokenizer):
    free = tokens(answers_of(model, tokenizer))
    ruined = free[2][4]
    # The head keeps a number for the token, and its embedding spoils what comes after it.
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.model.embed_tokens.weight[ruined] = math.nan
    for answer, whole, prompt in zip(
        answers_of(model, tokenizer), free, encode_prompts(tokenizer, PROMPTS), strict=True
    ):
        assert ruined not in prompt
        assert answer.token_ids == (whole[: whole.index(ruined) + 1] if ruined in whole else whole)
        assert not answer.ended


def test_a_model_that_rules_tokens_out_is_not_ruined(model, tokenizer):
    forward = model.forward

    def no_token_above_200(**kwargs):
        output = forward(**kwargs)
        output.logits[..., 200:] = -math.inf
        return output

    with replaced_forward(model, no_token_above_200):
        answers = answers_of(model, tokenizer)
    assert {len(answer.token_ids) for answer in answers} == {N_TOKENS}
    assert max(max(answer.token_ids) for answer in answers) < 200


def test_a_prompt_longer_than_the_models_positions_is_refused(model, tokenizer):
    longest = model.config.max_position_embeddings = 20
    prompts = [PROMPTS[1], Prompt("long", "other", "b" * (longest - N_TOKENS + 2))]
    with pytest.raises(InputError, match=r"'long' has 10 tokens: with 12 new ones it is longer than the 20"):
        greedy_answers(model, tokenizer, prompts, max_new_tokens=N_TOKENS)
    (answer,) = greedy_answers(model, tokenizer, [Prompt("fits", "other", "b" * 9)], max_new_tokens=N_TOKENS)
    assert len(answer.token_ids) == N_TOKENS


def test_a_tokenizer_of_another_model_is_refused(tokenizer):
    with pytest.raises(InputError, match=r"prompt '0' has the token 220, but LlamaForCausalLM has emb"):
        answers_of(make_model("llama").eval(), tokenizer)


def test_a_chat_template_is_used_where_there_is_one(tokenizer):
    assert not uses_chat_template(tokenizer)
    assert encode_prompts(tokenizer, PROMPTS[:2]) == [
        tokenizer("A tree in the rain").input_ids,
        [33, 78, 78, 74],
    ]
    tokenizer.chat_template = TEMPLATE
    assert uses_chat_template(tokenizer)
    (input_ids,) = encode_prompts(tokenizer, PROMPTS[1:2])
    assert tokenizer.decode(input_ids) == "<user>Book<assistant>"


def test_a_template_that_asks_for_the_date_gets_the_same_every_day(tokenizer):
    tokenizer.chat_template = (
        "\n{% macro day() %}{{ strftime_now('%Y') }}{% endmacro %}{{ day() }}: " + TEMPLATE
    )
    (input_ids,) = encode_prompts(tokenizer, PROMPTS[1:2])
    assert tokenizer.decode(input_ids) == "\n01 Jan 2025: <user>Book<assistant>"


def plain_nll(model, prompt, answer):
    """From the logits of the whole sequence alone, in double precision."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double()
    of_answer = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(answer)[:, None])
    return -float(of_answer.mean())


@pytest.fixture
def answered(model, tokenizer):
    """Prompts and answers of several lengths, one of them empty, by another model than the judge."""
    free = tokens(greedy_answers(tiny_model(), tokenizer, PROMPTS, max_new_tokens=N_TOKENS))
    answers = [
        Answer(prompt.id, token_ids[:length], "", ended=True)
        for prompt, token_ids, length in zip(PROMPTS, free, [12, 1, 0, 7, 3], strict=True)
    ]
    return encode_prompts(tokenizer, PROMPTS), answers


@pytest.mark.parametrize("batch_tokens", [2048, 70, 1])
def test_the_loss_of_an_answer_is_that_of_its_own_tokens(model, answered, monkeypatch, batch_tokens):
    monkeypatch.setattr(answer_likelihood, "TOKENS_PER_CHUNK", 5)
    encoded, answers = answered
    found = answer_nll(model, encoded, answers, batch_tokens=batch_tokens)
    assert found[2] is None
    for value, prompt, answer in zip(found, encoded, answers, strict=True):
        if answer.token_ids:
            assert value == pytest.approx(plain_nll(model, prompt, answer.token_ids), abs=1e-5)


def test_where_memory_runs_out_every_answer_is_still_judged_once(model, answered):
    expected, done, remarks = answer_nll(model, *answered), [], []
    with short_of_memory(model.model, 2):
        found = answer_nll(model, *answered, on_answers=done.append, on_remark=remarks.append)
    assert found == pytest.approx(expected, abs=1e-5)
    assert remarks == ["memory ran out; it went on with batches of 2 answers"]
    assert done == [2, 2, 1]


def test_batches_of_several_lengths_are_halved_each_by_itself(model, answered):
    encoded, answers = (3 * part for part in answered)
    expected = answer_nll(model, encoded, answers, batch_tokens=1)
    with short_of_memory(model.model, 2):
        found = answer_nll(model, encoded, answers, batch_tokens=160)
    assert found == pytest.approx(expected, abs=1e-5)


def test_layer_by_layer_answers_are_as_likely(model, answered):
    onload, done = Placement(weights="onload"), []
    expected = answer_nll(model, *answered, batch_tokens=70)
    assert answer_nll(model, *answered, batch_tokens=70, placement=onload, on_answers=done.append) == expected
    assert sum(done) == len(expected) * steps_each(model, onload)


def test_a_loss_that_is_no_number_is_none(model, answered):
    encoded, answers = answered
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.model.embed_tokens.weight[encoded[0][0]] = math.nan
    values = answer_nll(model, encoded, answers)
    assert [value is None for value in values] == [True, False, True, False, False]


def test_where_answers_part():
    assert first_parted_token([1, 2, 3], [1, 2, 3]) is None
    assert first_parted_token([], []) is None
    assert first_parted_token([1, 2, 3], [1, 5, 3]) == 1
    assert first_parted_token([1, 2], [1, 2, 3]) == first_parted_token([1, 2, 3], [1, 2]) == 2
    assert first_parted_token([], [1]) == 0


def test_the_share_of_ngrams_that_were_there_before():
    assert repetition([1, 2, 3]) is None
    assert repetition([1, 2, 3, 4, 5]) == 0
    assert repetition([7] * 8) == 1 - 1 / 5
    assert repetition([1, 2, 1, 2, 1], n=2) == 1 - 2 / 4
