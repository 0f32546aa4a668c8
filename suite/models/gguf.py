"""Turns the built-in model's GGUF into a folder that plain `from_pretrained` loads.

Config, weights and tokenizer are built from the GGUF's own fields. The GGUF loader of transformers is not
used: its tokenizer does not split numbers into digits, and a model that it loaded cannot be saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suite.machine.cache import AssetError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

BUILDER_VERSION = 1
"""Increment when the output of `write_model_folder` changes: cached folders are then rebuilt."""

_CONTROL, _USER_DEFINED = 3, 4
"""Token types of the GGUF format: special tokens, and added tokens that are ordinary text."""

_LAYER_WEIGHTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_MODEL_WEIGHTS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def write_model_folder(gguf_file: Path, folder: Path) -> None:
    """Writes config, safetensors weights and tokenizer of a LLaMA-architecture GGUF into `folder`.

    Weights are dequantized to float32, which represents every value of the quantized grid exactly. The
    embedding is stored once because it is tied to the output.

    Raises:
        AssetError: the file has another architecture or another kind of tokenizer.
    """
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(gguf_file)
    found = (_field(reader, "general.architecture"), _field(reader, "tokenizer.ggml.pre"))
    if found != ("llama", "smollm"):
        raise AssetError(f"{gguf_file.name}: architecture and tokenizer are {found}, not ('llama', 'smollm')")
    save_file(dict(_weights(reader)), folder / "model.safetensors", metadata={"format": "pt"})
    _write_configs(reader, folder)
    _write_tokenizer(reader, folder)


def restore_rotary_order(weight: NDArray[np.float32], n_heads: int) -> NDArray[np.float32]:
    """Undoes the row order that llama.cpp uses for the weights of queries and keys.

    Within each head llama.cpp stores the rotary pairs side by side (0, d/2, 1, d/2 + 1, ...), whereas
    transformers stores all first halves before all second halves.

    Args:
        weight: `[n_heads * head_dim, in]`, as stored in the GGUF.
        n_heads: number of heads of the queries, or of the keys.

    Returns:
        `[n_heads * head_dim, in]`, in the order of transformers.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)


def _weights(reader: GGUFReader) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields every parameter's name in transformers, and its float32 values."""
    from gguf.quants import dequantize

    heads = {
        "attn_q": int(_field(reader, "llama.attention.head_count")),
        "attn_k": int(_field(reader, "llama.attention.head_count_kv")),
    }
    for tensor in reader.tensors:
        # Copy: the library may yield views of the mapped file, which the model must outlive.
        values = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if tensor.name in _MODEL_WEIGHTS:
            yield _MODEL_WEIGHTS[tensor.name], values
            continue
        _, layer, kind, _ = tensor.name.split(".")
        if kind in heads:
            values = restore_rotary_order(values, heads[kind])
        yield f"model.layers.{layer}.{_LAYER_WEIGHTS[kind]}.weight", values


def _write_configs(reader: GGUFReader, folder: Path) -> None:
    from transformers import GenerationConfig, LlamaConfig

    def number(key: str) -> int:
        return int(_field(reader, f"llama.{key}"))

    tokens = _token_ids(reader)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=number("vocab_size"),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=number("attention.head_count"),
        num_key_value_heads=number("attention.head_count_kv"),
        head_dim=number("rope.dimension_count"),
        max_position_embeddings=number("context_length"),
        rms_norm_eps=_shortest(_field(reader, "llama.attention.layer_norm_rms_epsilon")),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": _shortest(_field(reader, "llama.rope.freq_base")),
        },
        tie_word_embeddings=True,
        dtype="float32",
        bos_token_id=tokens["bos"],
        eos_token_id=tokens["eos"],
        pad_token_id=tokens["pad"],
    ).save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokens["bos"], eos_token_id=tokens["eos"], pad_token_id=tokens["pad"]
    ).save_pretrained(folder)


def _write_tokenizer(reader: GGUFReader, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    vocabulary = _field(reader, "tokenizer.ggml.tokens")
    named = {f"{name}_token": vocabulary[index] for name, index in _token_ids(reader).items()}
    PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(reader),
        model_max_length=int(_field(reader, "llama.context_length")),
        clean_up_tokenization_spaces=False,
        chat_template=_field(reader, "tokenizer.chat_template"),
        **named,
    ).save_pretrained(folder)


def _byte_level_bpe(reader: GGUFReader) -> Tokenizer:
    """Builds the tokenizer that llama.cpp calls `smollm`: single digits, then GPT-2's rules; no BOS."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = _field(reader, "tokenizer.ggml.tokens")
    types = _field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = {
        kind: [
            AddedToken(token, normalized=False)
            for token, token_type in zip(vocabulary, types, strict=True)
            if token_type == kind
        ]
        for kind in (_CONTROL, _USER_DEFINED)
    }
    tokenizer.add_special_tokens(added[_CONTROL])
    tokenizer.add_tokens(added[_USER_DEFINED])
    return tokenizer


def _token_ids(reader: GGUFReader) -> dict[str, int]:
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return {name: int(_field(reader, f"tokenizer.ggml.{key}_token_id")) for name, key in keys.items()}


def _shortest(value: float) -> float:
    """Returns the shortest decimal that rounds to a float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise AssetError(f"the GGUF file has no field {key}")
    return field.contents()


__all__ = ["BUILDER_VERSION", "restore_rotary_order", "write_model_folder"]
