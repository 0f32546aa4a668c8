"""A corpus as one long run of token ids, shared by all cells of a process."""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from methods.errors import InputError, reason
from suite.data.text_sources import Split, read_documents

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

_KEPT_TEXTS = 8
"""Tokenized texts kept in memory: WikiText-2's training part, the longest usual one, takes 20 MB."""

_texts: OrderedDict[tuple[str, str, str, str, bool], Tensor] = OrderedDict()
_fingerprints: WeakKeyDictionary[PreTrainedTokenizerBase, str] = WeakKeyDictionary()


def tokenized_text(
    source: str, split: Split, tokenizer: PreTrainedTokenizerBase | None, *, bare: bool = False
) -> tuple[Tensor, str]:
    """Tokenizes the joined documents of a corpus with the model's own settings; the result is cached.

    Args:
        source: the corpus or file.
        split: the part of it to read.
        tokenizer: the model's tokenizer.
        bare: leave out the special tokens that the tokenizer adds once around the whole text.

    Returns:
        The token ids, int64 `[n_tokens]`, which the caller must not modify, and the corpus's revision.

    Raises:
        InputError: there is no tokenizer, or the source cannot be read.
        AssetError: an offline corpus could not be fetched.
    """
    import torch

    tokenizer = require_tokenizer(tokenizer, source)
    documents = read_documents(source, split)
    key = (fingerprint(tokenizer), source, split, documents.revision, bare)
    if key not in _texts:
        ids = tokens_of(tokenizer, documents.joined, source, add_special_tokens=not bare)
        if not ids:
            raise InputError(
                f"the tokenizer of {tokenizer.name_or_path!r} returns no tokens for the text of {source!r}"
            )
        _texts[key] = torch.tensor(ids, dtype=torch.int64)
        while len(_texts) > _KEPT_TEXTS:
            _texts.popitem(last=False)
    _texts.move_to_end(key)
    return _texts[key], documents.revision


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: Any, source: str, **settings: Any) -> Any:
    """Returns the token ids of a text, or of each text in a list.

    Args:
        tokenizer: the model's tokenizer.
        text: the text or texts to tokenize.
        source: the user's name for the text, for the message.
        settings: keyword arguments for the tokenizer.

    Raises:
        InputError: the tokenizer fails, for example because its unknown token is not in its vocabulary.
    """
    try:
        return tokenizer(text, verbose=False, **settings)["input_ids"]
    except Exception as error:  # tokenizers do not raise errors of a specific class
        raise InputError(
            f"the tokenizer of {tokenizer.name_or_path!r} fails on {source!r}: {reason(error)}"
        ) from error


def first_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Returns the tokens that a tokenizer puts before every text, such as BOS; empty if it adds none."""
    bare = tokens_of(tokenizer, "a", "a", add_special_tokens=False)
    whole = tokens_of(tokenizer, "a", "a")
    starts = (n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    return tuple(whole[: next(starts, 0)])


def forget_texts() -> None:
    """Empties the cache of this process, so that the next call tokenizes again."""
    _texts.clear()


def require_tokenizer(tokenizer: PreTrainedTokenizerBase | None, source: str) -> PreTrainedTokenizerBase:
    """Returns `tokenizer`; if it is None, raises an `InputError` that suggests a file of token ids."""
    if tokenizer is None:
        raise InputError(
            f"the model has no tokenizer, so the text of {source!r} cannot be used: "
            "calibrate on token ids, a .safetensors file with input_ids [n, seqlen]"
        )
    return tokenizer


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns a digest that is equal for tokenizers that return the same ids, as two loads of one do."""
    if tokenizer not in _fingerprints:
        # The state of a tokenizer in plain Python cannot be read completely, so it only equals itself.
        state = (
            tokenizer.backend_tokenizer.to_str() if getattr(tokenizer, "is_fast", False) else uuid.uuid4().hex
        )
        _fingerprints[tokenizer] = hashlib.sha256(state.encode()).hexdigest()
    return _fingerprints[tokenizer]


__all__ = ["fingerprint", "first_tokens", "forget_texts", "require_tokenizer", "tokenized_text", "tokens_of"]
