"""Damage to a tokenizer."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken

from tests.fuzz.damage.base import TOKENIZER, TOKENIZER_CONFIG, Damaged
from tests.tiny import byte_tokenizer, leading_tokenizer


def no_tokenizer(at: Damaged) -> str:
    present = [path for name in (TOKENIZER, TOKENIZER_CONFIG) if (path := at.folder / name).exists()]
    gone = present if at.chance.random() < 0.3 or not present else [at.pick(present)]
    for path in gone:
        path.unlink()
    return f"without {', '.join(path.name for path in gone) or 'anything'}"


def other_tokenizer(at: Damaged) -> str:
    """Another tokenizer: with a first token, with more tokens than the model, or with tokens exchanged."""
    kind = at.pick(["first token", "two first tokens", "large", "exchanged", "lower case", "no tokens"])
    if kind in ("first token", "two first tokens"):
        tokenizer = leading_tokenizer(1 + (kind == "two first tokens"))
    else:
        tokenizer = byte_tokenizer()
    if kind == "large":
        tokenizer.add_tokens([AddedToken(word) for word in ("tree", *(f"<{n}>" for n in range(20)), "moon")])
    tokenizer.save_pretrained(at.folder)

    def change(content: dict[str, Any]) -> str:
        model = content["model"]
        if kind == "exchanged":
            names = list(model["vocab"])
            model["vocab"] = dict(zip(names, at.chance.sample(range(len(names)), len(names)), strict=True))
        if kind == "lower case":
            content["normalizer"] = {"type": "Lowercase"}
        if kind == "no tokens":
            model["vocab"] = {}
        return kind

    return at.change_json(TOKENIZER, change)


def tokenizer_value(at: Damaged) -> str:
    values: dict[str, list[Any]] = {
        "tokenizer_class": ["LlamaTokenizer", "GPT2Tokenizer", "NewTokenizer", "T5Tokenizer", None, 3],
        "model_max_length": [16, 0, -1, "64", 1e30, None],
        "add_bos_token": [True, False],
        "add_eos_token": [True],
        "bos_token": ["<s>", "a", None, 3, {"content": "<s>"}],
        "eos_token": ["</s>", "b", 3, ["x"]],
        "pad_token": ["<pad>", "a", None],
        "unk_token": ["<unk>", None],
        "padding_side": ["left", "middle"],
        "truncation_side": ["left"],
        "added_tokens_decoder": [{"263": {"content": "<new>"}}, {"9999": {"content": "tree"}}, {"x": 1}, []],
        "extra_special_tokens": [["<new>"], {"image_token": "<image>"}, 3],
        "additional_special_tokens": [["tree"], "tree"],
        "chat_template": [
            *("{{ 1/0 }}", "{{ raise_exception('no') }}", "{% if %}", "", [], 3, "{{ messages }}", {"a": 1}),
            *([{"name": "rag", "template": "x"}], [{"name": "default", "template": "x"}]),
        ],
        "auto_map": [{"AutoTokenizer": ["new.New", None]}],
        "clean_up_tokenization_spaces": [True, "no"],
        "backend": ["tokenizers", "sentencepiece", "new"],
        "legacy": [True],
        "unheard_of": [[1]],
    }
    key = at.pick(values)
    value = at.pick(values[key])

    return at.set_key(TOKENIZER_CONFIG, key, value)


def tokenizer_json(at: Damaged) -> str:
    """One part of tokenizer.json taken out, or replaced."""

    def change(content: dict[str, Any]) -> str:
        key = at.pick(content or ["model"])
        value: Any = at.pick([None, {}, [], "new", {"type": "New"}, 3])
        content[key] = value
        return f"{key} is {json.dumps(value)}"

    return at.change_json(TOKENIZER, change)


def tokenizer_extra(at: Damaged) -> str:
    """A file beside the tokenizer that other versions of the library wrote."""
    files = {
        "special_tokens_map.json": ['{"bos_token": "a"}', '{"eos_token": 3}', "[]", "{", '{"unk_token": {}}'],
        "added_tokens.json": ['{"tree": 256}', '{"tree": 99999}', '{"tree": "x"}', "[]", "{", '{"moon": -1}'],
        "chat_template.jinja": ["{{ 1/0 }}", "{{ raise_exception('no') }}", "{% if %}", "", "{{ messages }}"],
        "vocab.json": ['{"a": 0}', "[]", "{"],
        "merges.txt": ["a b\n", "", "\xff"],
        "tokenizer.model": ["", "no sentencepiece model"],
        "vocab.txt": ["a\nb\n"],
    }
    name = at.pick(files)
    text = at.pick(files[name])
    (at.folder / name).write_bytes(text.encode("latin-1"))
    return f"{name}: {text.strip()!r}"
