"""Loads the tokenizer that comes with a model, and saves it with the pruned model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from methods.errors import InputError
from suite.models.files import damaged_json
from suite.models.loading_errors import one_line, quiet_transformers

_VOCABULARY_FILES = (
    *("tokenizer.json", "tokenizer.model", "tekken.json"),
    *("vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
)


_TOKENIZER_CONFIG = "tokenizer_config.json"


_TOKENIZER_JSON = (
    *("tokenizer.json", _TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "tekken.json"),
)


def load_tokenizer(folder: Path, name: str, trust_remote_code: bool) -> Any:
    """Loads the tokenizer in a model's folder; returns None if there is none.

    Raises:
        InputError: it is damaged; the message names the model and, if known, the file.
    """
    from transformers import AutoTokenizer

    has_vocabulary = any((folder / file).is_file() for file in _VOCABULARY_FILES)
    if not has_vocabulary and not (folder / _TOKENIZER_CONFIG).is_file():
        return None
    with quiet_transformers(), one_line(name, "tokenizer"):
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except Exception as error:
            if (file := damaged_json(folder, _TOKENIZER_JSON)) is not None:
                raise InputError(
                    f"model {name!r}: its {file} is not a JSON object, so the tokenizer cannot be loaded"
                ) from error
            if not has_vocabulary and "trust_remote_code" not in str(error):
                raise InputError(
                    f"model {name!r}: it has a {_TOKENIZER_CONFIG} but no vocabulary ("
                    f"{_VOCABULARY_FILES[0]}, {_VOCABULARY_FILES[1]}, ...), so no tokenizer can be loaded: "
                    f"add the vocabulary, or remove {_TOKENIZER_CONFIG}"
                ) from error
            if isinstance(error, KeyError):
                raise InputError(
                    f"model {name!r}: its tokenizer's files lack {error.args[0]!r}, so it cannot be loaded"
                ) from error
            raise


def save_tokenizer(tokenizer: Any, folder: Path, name: str) -> None:
    """Writes a model's tokenizer, if it has one; call it before pruning, so that a failure costs nothing.

    Args:
        tokenizer: the result of `load_tokenizer`.
        folder: the folder to write to.
        name: the user's name for the model.

    Raises:
        InputError: its settings or its chat template cannot be written.
    """
    if tokenizer is not None:
        with quiet_transformers(), one_line(name, "tokenizer, which cannot be saved"):
            tokenizer.save_pretrained(folder)


__all__ = ["load_tokenizer", "save_tokenizer"]
