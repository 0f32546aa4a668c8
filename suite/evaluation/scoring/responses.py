"""Generates a model's answers to prompts by greedy decoding, and compares such answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.errors import InputError, reason
from methods.structure.decoder import n_positions
from suite.evaluation.scoring.batches import in_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from suite.data.prompts import Prompt

PROMPTS_PER_BATCH = 64
"""Maximum number of prompts per batch. All built-in prompts fit in one; the cache of a longer list might not
fit in memory, and on a host the process would be killed instead of raising an error."""

PADDING = 0
"""Padding token id, for which every model has an embedding: the attention mask hides it, and answers are cut
before it. A tokenizer's own padding token may be beyond the model's vocabulary."""

ONE_DAY = "{% macro strftime_now(format) %}01 Jan 2025{% endmacro +%}"
"""Fixes the date in chat templates that insert it, so that answers do not change from day to day."""


@dataclass(frozen=True)
class Answer:
    """A model's answer to one prompt.

    Attributes:
        prompt_id: the id of the prompt.
        token_ids: the generated tokens without the end token. If the answer has not ended but is shorter than
            requested, the model's logits for the next token were not finite.
        text: the same tokens, decoded without special tokens.
        ended: whether the model generated an end token.
    """

    prompt_id: str
    token_ids: tuple[int, ...]
    text: str
    ended: bool


def uses_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts are given to the model as a user's turn in a chat; a base model continues them."""
    return bool(getattr(tokenizer, "chat_template", None))


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Returns the token ids of every prompt as the model's input.

    Applies the tokenizer's chat template, up to the beginning of the model's turn; without one, the text is
    tokenized with the special tokens that the tokenizer adds.

    Raises:
        InputError: the tokenizer fails or returns no tokens for a prompt, or its chat template fails.
    """
    try:
        encoded = [_encode(tokenizer, prompt.text) for prompt in prompts]
    except Exception as error:  # a template is a program that came with the model
        if not uses_chat_template(tokenizer):
            raise InputError(f"its tokenizer fails on a prompt: {reason(error)}") from error
        raise InputError(
            f"its chat template fails for a prompt ({reason(error)}): fix the template, or leave prompts "
            "out (--prompts none; in a suite, no [answers])"
        ) from error
    for prompt, input_ids in zip(prompts, encoded, strict=True):
        if not input_ids:
            raise InputError(f"prompt {prompt.id!r}: the model's tokenizer returns no tokens for it")
    return encoded


def check_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
) -> list[list[int]]:
    """Returns the token ids of every prompt after checking that they fit the model; weights are not used.

    Raises:
        InputError: a prompt is too long for the model's positions or has tokens beyond its vocabulary, or an
            end token is not a token id.
    """
    encoded = encode_prompts(tokenizer, prompts)
    for prompt, input_ids in zip(prompts, encoded, strict=True):
        _check_fit(model, prompt, input_ids, max_new_tokens)
    _end_ids(model, tokenizer)
    return encoded


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 48,
    batch_size: int | None = None,
    on_answers: Callable[[int], None] | None = None,
    on_halved: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Generates a model's answers to prompts by greedy decoding.

    Of the model's own generation settings only the end tokens are used, not its sampling, penalties and
    lengths; the model is left unchanged. If logits are NaN or +inf, no token is the likeliest: the answer
    stops there and counts as not ended. In half precision the tokens may depend on the rest of the batch:
    compare models on the same prompts in the same batches.

    If memory runs out, the batch is halved and the same prompts are tried again.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: any number of prompts.
        max_new_tokens: maximum number of tokens of an answer.
        batch_size: number of prompts that are answered at once; None = all, but at most 64.
        on_answers: called with the number of finished answers after each batch.
        on_halved: called with the new batch size when memory ran out.

    Returns:
        One answer per prompt, in their order.

    Raises:
        InputError: as `check_prompts`.
    """
    encoded = check_prompts(model, tokenizer, prompts, max_new_tokens)
    ends = _end_ids(model, tokenizer)

    def answer(batch: Sequence[tuple[Prompt, list[int]]]) -> list[Answer]:
        generated = _generate(model, [input_ids for _, input_ids in batch], ends, max_new_tokens)
        return [
            _answer(tokenizer, prompt, token_ids, ends)
            for (prompt, _), token_ids in zip(batch, generated, strict=True)
        ]

    with _decoding(model):
        return in_batches(
            list(zip(prompts, encoded, strict=True)),
            min(len(prompts), PROMPTS_PER_BATCH) if batch_size is None else batch_size,
            answer,
            on_answers,
            on_halved,
        )


def first_parted_token(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Returns the index of the first token at which two answers differ; None if they are equal.

    If one is the beginning of the other, they differ at its length.
    """
    if (index := next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)) is not None:
        return index
    return None if len(a) == len(b) else min(len(a), len(b))


def repetition(token_ids: Sequence[int], n: int = 4) -> float | None:
    """Returns the share of an answer's n-grams that repeat an earlier one, 1 - distinct / all.

    seq-rep-n of Welleck et al., arXiv 1908.04319; 0 if nothing repeats. None if there is no n-gram.
    """
    grams = [tuple(token_ids[i : i + n]) for i in range(len(token_ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    if not uses_chat_template(tokenizer):
        return list(tokenizer(text)["input_ids"])
    template = tokenizer.get_chat_template()
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        chat_template=ONE_DAY + template if "strftime_now" in template else template,
        add_generation_prompt=True,
        return_dict=True,
    )
    return list(encoded["input_ids"])


def _check_fit(model: PreTrainedModel, prompt: Prompt, input_ids: Sequence[int], max_new_tokens: int) -> None:
    """Raises `InputError` if the model has no position or no embedding for a token."""
    longest = n_positions(model)
    # The last generated token is never an input.
    needed = len(input_ids) + max_new_tokens - 1
    if longest is not None and needed > longest:
        raise InputError(
            f"prompt {prompt.id!r} has {len(input_ids)} tokens: with {max_new_tokens} new ones it is longer "
            f"than the {longest} positions of {type(model).__name__}"
        )
    n_tokens = model.get_input_embeddings().weight.shape[0]
    if max(input_ids) >= n_tokens:
        raise InputError(
            f"prompt {prompt.id!r} has the token {max(input_ids)}, but {type(model).__name__} has embeddings "
            f"for {n_tokens} tokens only: the tokenizer belongs to another model"
        )


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the tokens that end an answer: the model's, often several, and the tokenizer's."""
    of_model = getattr(model.generation_config, "eos_token_id", None)
    ends = [*(of_model if isinstance(of_model, list | tuple) else [of_model]), tokenizer.eos_token_id]
    try:
        return sorted({int(token) for token in ends if token is not None})
    except (TypeError, ValueError) as error:
        raise InputError(f"its eos_token_id is {of_model!r}, not a token id or list of token ids") from error


@contextmanager
def _decoding(model: PreTrainedModel) -> Iterator[None]:
    """Sets evaluation mode and a default generation config while the body runs; restores both afterwards."""
    from transformers import GenerationConfig

    own, training = model.generation_config, {module: module.training for module in model.modules()}
    # Settings that the config given to `generate` leaves open would be filled in from the model's.
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        for module, mode in training.items():
            module.training = mode


class _Undefined:
    """Records for each answer of a batch the step from which its next token is undefined."""

    def __init__(self, batch_size: int, max_new_tokens: int, device: torch.device) -> None:
        self._step = 0
        self.steps = torch.full((batch_size,), max_new_tokens, device=device)

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        """Records undefined tokens and returns the scores unchanged; called as a logits processor."""
        # One NaN makes the maximum NaN. Single tokens may be ruled out by -inf, but not all of them.
        undefined_B = ~scores_BV.amax(-1).isfinite()
        self.steps = torch.where(undefined_B, self.steps.clamp(max=self._step), self.steps)
        self._step += 1
        return scores_BV


def _generate(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], ends: list[int], max_new_tokens: int
) -> list[list[int]]:
    """Returns the tokens generated after every prompt, including those after an end token."""
    from transformers import GenerationConfig, LogitsProcessorList

    longest = max(map(len, prompts))
    padded = [[PADDING] * (longest - len(prompt)) + [*prompt] for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    undefined = _Undefined(len(prompts), max_new_tokens, model.device)
    output = model.generate(
        torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=PADDING,
            use_cache=True,
        ),
        logits_processor=LogitsProcessorList([undefined]),
    )
    generated = output[:, longest:].tolist()
    return [row[:n_defined] for row, n_defined in zip(generated, undefined.steps.tolist(), strict=True)]


def _answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, generated: Sequence[int], ends: Sequence[int]
) -> Answer:
    end = next((index for index, token in enumerate(generated) if token in ends), None)
    token_ids = tuple(generated[:end])
    # Do not clean up spaces: that would hide what the model really generated before a full stop.
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(prompt.id, token_ids, text, ended=end is not None)


__all__ = [
    "Answer",
    "check_prompts",
    "encode_prompts",
    "first_parted_token",
    "greedy_answers",
    "repetition",
    "uses_chat_template",
]
