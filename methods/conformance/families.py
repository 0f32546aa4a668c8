"""The model families of the conformance suite. To add one, add an entry here or in `expert_families`."""

from __future__ import annotations

from methods.conformance.expert_families import EXPERT_FAMILIES
from methods.conformance.family import POSITIONS, VOCABULARY, Family, Weights
from methods.errors import InputError, did_you_mean

# Begin, end and padding tokens have to be in the vocabulary, or transformers warns on every build.
_TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

# Wider than one of SparseGPT's blocks of 128 columns, and not a multiple of it.
_WIDE = 160

# Settings of most families since LLaMA: hidden size 64, four heads of 16, two key-value heads.
_LLAMA = {
    **_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
_LLAMA_WEIGHTS = (
    Weights("model.layers.*.self_attn.*_proj.weight"),
    Weights("model.layers.*.mlp.*_proj.weight"),
)
_OPT = {
    **_TOKENS,
    "hidden_size": 64,
    "ffn_dim": _WIDE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "word_embed_proj_dim": 64,
    "max_position_embeddings": POSITIONS,
}
_OPT_WEIGHTS = (
    Weights("model.decoder.layers.*.self_attn.*_proj.weight"),
    Weights("model.decoder.layers.*.fc?.weight"),
)
_NEOX_WEIGHTS = (
    Weights("gpt_neox.layers.*.attention.query_key_value.weight"),
    Weights("gpt_neox.layers.*.attention.dense.weight"),
    Weights("gpt_neox.layers.*.mlp.dense_*.weight"),
)
_NEOX = {**_LLAMA, "num_key_value_heads": None}
_FALCON = {
    **_TOKENS,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_hidden_size": 96,
    "max_position_embeddings": POSITIONS,
}
_FALCON_WEIGHTS = (
    Weights("transformer.h.*.self_attention.query_key_value.weight"),
    Weights("transformer.h.*.self_attention.dense.weight"),
    Weights("transformer.h.*.mlp.dense_*.weight"),
)
_STABLELM = {**_LLAMA, "num_key_value_heads": 4}

DENSE_FAMILIES = (
    Family(
        "llama",
        "keys and values have fewer heads than queries",
        "llama",
        {**_LLAMA, "intermediate_size": _WIDE},
        _LLAMA_WEIGHTS,
    ),
    Family(
        "llama-tied",
        "input and output embeddings are one tensor",
        "llama",
        {**_LLAMA, "intermediate_size": _WIDE, "tie_word_embeddings": True},
        _LLAMA_WEIGHTS,
    ),
    Family(
        "mistral-sliding",
        "attention is limited to 8 tokens, fewer than a sequence has",
        "mistral",
        {**_LLAMA, "sliding_window": 8},
        _LLAMA_WEIGHTS,
    ),
    Family("qwen2", "q, k and v have biases, o has none", "qwen2", _LLAMA, _LLAMA_WEIGHTS),
    Family(
        "qwen3",
        "queries and keys are normalized; heads are wider than hidden size / heads",
        "qwen3",
        {**_LLAMA, "head_dim": 24},
        _LLAMA_WEIGHTS,
    ),
    Family(
        "gemma2",
        "every other layer has sliding attention; norms before and after each block; scores are capped",
        "gemma2",
        {**_LLAMA, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
        _LLAMA_WEIGHTS,
    ),
    Family(
        "gemma3",
        "layers with sliding and with full attention get different masks and rotary tables",
        "gemma3_text",
        {
            **_LLAMA,
            "head_dim": 16,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        _LLAMA_WEIGHTS,
    ),
    Family(
        "phi3",
        "q, k and v are one matrix, gate and up another",
        "phi3",
        {**_LLAMA, "original_max_position_embeddings": POSITIONS},
        _LLAMA_WEIGHTS,
    ),
    Family(
        "gpt2",
        "weights are stored as [in, out] (Conv1D); c_proj of the attention is square",
        "gpt2",
        {**_TOKENS, "n_embd": 64, "n_inner": 96, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS},
        (
            Weights("transformer.h.*.attn.c_*.weight", "in_out"),
            Weights("transformer.h.*.mlp.c_*.weight", "in_out"),
        ),
    ),
    Family(
        "neox",
        "attention and MLP run side by side on one input; q, k and v are one matrix",
        "gpt_neox",
        {**_NEOX, "use_parallel_residual": True},
        _NEOX_WEIGHTS,
    ),
    Family(
        "neox-sequential",
        "like neox, but the MLP runs after the attention",
        "gpt_neox",
        {**_NEOX, "use_parallel_residual": False},
        _NEOX_WEIGHTS,
    ),
    Family(
        "falcon",
        "one key and one value head; attention and MLP read the same normalized tensor",
        "falcon",
        _FALCON,
        _FALCON_WEIGHTS,
    ),
    Family(
        "falcon-new",
        "two norms feed attention and MLP, which run side by side",
        "falcon",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
        _FALCON_WEIGHTS,
    ),
    Family(
        "bloom",
        "positions are a bias on the attention; modules are called with positional arguments",
        "bloom",
        {**_TOKENS, "hidden_size": 64, "n_layer": 2, "n_head": 4},
        _FALCON_WEIGHTS,
    ),
    Family("stablelm", "only a quarter of each head rotates", "stablelm", _STABLELM, _LLAMA_WEIGHTS),
    Family(
        "stablelm-parallel",
        "attention and MLP side by side; every head normalizes its queries and keys",
        "stablelm",
        {**_STABLELM, "use_parallel_residual": True, "qk_layernorm": True},
        _LLAMA_WEIGHTS,
    ),
    Family("olmo2", "norms come after each block, not before", "olmo2", _LLAMA, _LLAMA_WEIGHTS),
    Family("opt", "fc1 and fc2 belong to the layer itself; no MLP module", "opt", _OPT, _OPT_WEIGHTS),
    Family(
        "opt-post-norm",
        "norms after each block, and narrow embeddings projected in and out",
        "opt",
        {**_OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
        _OPT_WEIGHTS,
    ),
    Family(
        "phi",
        "attention and MLP side by side; the last attention matrix is called dense",
        "phi",
        {**_LLAMA, "num_key_value_heads": 4},
        (
            Weights("model.layers.*.self_attn.?_proj.weight"),
            Weights("model.layers.*.self_attn.dense.weight"),
            Weights("model.layers.*.mlp.fc?.weight"),
        ),
    ),
    Family(
        "gptj",
        "attention and MLP side by side after one norm",
        "gptj",
        {
            **_TOKENS,
            "n_embd": 64,
            "n_inner": 96,
            "n_layer": 2,
            "n_head": 4,
            "rotary_dim": 8,
            "n_positions": POSITIONS,
        },
        (
            Weights("transformer.h.*.attn.*_proj.weight"),
            Weights("transformer.h.*.mlp.fc_*.weight"),
        ),
    ),
    Family("cohere", "one norm feeds both blocks, which run side by side", "cohere", _LLAMA, _LLAMA_WEIGHTS),
    Family(
        "starcoder2",
        "biases everywhere, and a plain MLP of two matrices",
        "starcoder2",
        _LLAMA,
        (
            Weights("model.layers.*.self_attn.*_proj.weight"),
            Weights("model.layers.*.mlp.c_*.weight"),
        ),
    ),
    Family(
        "mpt",
        "the MLP is called ffn and adds the residual itself",
        "mpt",
        {**_TOKENS, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": POSITIONS},
        (
            Weights("transformer.blocks.*.attn.Wqkv.weight"),
            Weights("transformer.blocks.*.attn.out_proj.weight"),
            Weights("transformer.blocks.*.ffn.*_proj.weight"),
        ),
    ),
    Family(
        "granite",
        "each block's output is scaled before it joins the residual",
        "granite",
        {**_LLAMA, "residual_multiplier": 0.2, "embedding_multiplier": 12.0, "attention_multiplier": 0.05},
        _LLAMA_WEIGHTS,
    ),
)

FAMILIES = {family.name: family for family in (*DENSE_FAMILIES, *EXPERT_FAMILIES)}


def family_named(name: str) -> Family:
    """Returns the family called `name`.

    Raises:
        InputError: the name is unknown; the message has the nearest names.
    """
    if name not in FAMILIES:
        raise InputError(f"unknown family {name!r}{did_you_mean(name, list(FAMILIES))}")
    return FAMILIES[name]


__all__ = ["DENSE_FAMILIES", "FAMILIES", "family_named"]
