"""What a model answers to prompts by greedy decoding, and how such answers are compared."""

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
"""Every built-in prompt fits in one batch; the cache of a longer list might not fit in memory, and on a host
that is a killed process, not an error which could be caught."""

PADDING = 0
"""Any id that every model has an embedding for: the attention mask hides it, and answers are cut before it.
A tokenizer's own padding token may lie beyond the model's vocabulary."""

ONE_DAY = "{% macro strftime_now(format) %}01 Jan 2025{% endmacro +%}"
"""Put before a chat template that tells the model the date: else its answers would change overnight."""


@dataclass(frozen=True)
class Answer:
    """What a model said to one prompt.

    Attributes:
        prompt_id: whose answer it is.
        token_ids: what was generated, without the token that ends it. Fewer than were asked for although the
            answer did not end: at the next token the model's logits were no numbers.
        text: the same, decoded without special tokens.
        ended: whether the model stopped by itself.
    """

    prompt_id: str
    token_ids: tuple[int, ...]
    text: str
    ended: bool


def uses_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts are put to the model as a user's turn of a chat; a base model continues them."""
    return bool(getattr(tokenizer, "chat_template", None))


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids that the model is given for every prompt.

    By the tokenizer's chat template, up to where the model's turn begins; without one, the text with the
    special tokens that the tokenizer adds by itself.

    Raises:
        InputError: the tokenizer makes no token of a prompt, or its chat template fails.
    """
    try:
        encoded = [_encode(tokenizer, prompt.text) for prompt in prompts]
    except Exception as error:  # a template is a program that came with the model
        if not uses_chat_template(tokenizer):
            raise InputError(f"its tokenizer fails on a prompt: {reason(error)}") from error
        raise InputError(
            f"its chat template fails for a prompt ({reason(error)}): mend the template, or leave prompts "
            "out (--prompts none; in a suite, no [answers])"
        ) from error
    for prompt, input_ids in zip(prompts, encoded, strict=True):
        if not input_ids:
            raise InputError(f"prompt {prompt.id!r}: the model's tokenizer makes no token of it")
    return encoded


def check_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
) -> list[list[int]]:
    """The token ids of every prompt, which all fit the model; its weights are not looked at.

    Raises:
        InputError: a prompt is too long for the model's positions, or not of its vocabulary; or what ends an
            answer is no token.
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
    """Lets a model answer prompts, always by its likeliest token.

    Of the model's own generation settings only the tokens that end an answer count, not its sampling,
    penalties and lengths; the model comes back as it was. Where logits are NaN or +inf, no token is the
    likeliest: the answer stops before it and has not ended. In half precision the tokens may depend on what
    else is in the batch: compare models on the same prompts in the same batches.

    Where memory runs out the batch is halved, and the same prompts are tried again.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: in any number.
        max_new_tokens: where an answer is cut off.
        batch_size: how many prompts are answered at once; None = all, or 64 where there are more.
        on_answers: called with the number of answers done, batch by batch.
        on_halved: called with the number of prompts in a batch from then on, where memory ran out.

    Returns:
        An answer a prompt, in their order.

    Raises:
        InputError: a prompt is too long for the model's positions, or not of its vocabulary.
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


def first_parting(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Index of the first token at which two answers part; None where they are equal.

    Where one is the beginning of the other they part at its length.
    """
    if (index := next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)) is not None:
        return index
    return None if len(a) == len(b) else min(len(a), len(b))


def repetition(token_ids: Sequence[int], n: int = 4) -> float | None:
    """Share of an answer's n-grams that repeat an earlier one, 1 - distinct / all.

    seq-rep-n of Welleck et al., arXiv 1908.04319; 0 where nothing repeats. None where there is no n-gram.
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
    """Raises `InputError` where the model has no position or no embedding for a token."""
    longest = n_positions(model)
    # The last token that is generated is never put in.
    needed = len(input_ids) + max_new_tokens - 1
    if longest is not None and needed > longest:
        raise InputError(
            f"prompt {prompt.id!r} has {len(input_ids)} tokens: with {max_new_tokens} new ones it is longer "
            f"than the {longest} positions of {type(model).__name__}"
        )
    n_tokens = model.get_input_embeddings().weight.shape[0]
    if max(input_ids) >= n_tokens:
        raise InputError(
            f"prompt {prompt.id!r} has the token {max(input_ids)}, and {type(model).__name__} knows "
            f"{n_tokens}: the tokenizer is not the model's"
        )


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the model's, often several, and the tokenizer's."""
    of_model = getattr(model.generation_config, "eos_token_id", None)
    ends = [*(of_model if isinstance(of_model, list | tuple) else [of_model]), tokenizer.eos_token_id]
    try:
        return sorted({int(token) for token in ends if token is not None})
    except (TypeError, ValueError) as error:
        raise InputError(f"its eos_token_id is {of_model!r}, which is no token or list of tokens") from error


@contextmanager
def _decoding(model: PreTrainedModel) -> Iterator[None]:
    """Puts the model into evaluation mode, without a generation config; and both back afterwards."""
    from transformers import GenerationConfig

    own, training = model.generation_config, {module: module.training for module in model.modules()}
    # Whatever the config given to `generate` leaves open is filled in from the model's.
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        for module, mode in training.items():
            module.training = mode


class _Undefined:
    """Watches the logits of a batch for the step from which an answer's next token is undefined."""

    def __init__(self, batch_size: int, max_new_tokens: int, device: torch.device) -> None:
        self._step = 0
        self.steps = torch.full((batch_size,), max_new_tokens, device=device)

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        """Looks on; `generate` takes it for a logits processor."""
        # One NaN makes the maximum NaN. A token may be ruled out by -inf, but not every one.
        undefined_B = ~scores_BV.amax(-1).isfinite()
        self.steps = torch.where(undefined_B, self.steps.clamp(max=self._step), self.steps)
        self._step += 1
        return scores_BV


def _generate(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], ends: list[int], max_new_tokens: int
) -> list[list[int]]:
    """What the model generates after every prompt; what follows an end is still there."""
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
    # Cleaning up would hide what the model really wrote before a full stop.
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(prompt.id, token_ids, text, ended=end is not None)


__all__ = [
    "Answer",
    "check_prompts",
    "encode_prompts",
    "first_parting",
    "greedy_answers",
    "repetition",
    "uses_chat_template",
]
