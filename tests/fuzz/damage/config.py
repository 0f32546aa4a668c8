"""Damage to the configurations of a model and of its generation."""

from __future__ import annotations

import json
from typing import Any

from tests.fuzz.damage.base import CONFIG, GENERATION, Damaged, bases

FLAGS: dict[str, list[Any]] = {
    "output_attentions": [True, False, None, 1],
    "output_hidden_states": [True, False, None, 1],
    "use_cache": [False, True, None],
    "return_dict": [False, True],
    "tie_word_embeddings": [True, False, None, "false"],
    "torchscript": [True],
    "is_decoder": [False, True],
    "is_encoder_decoder": [True],
    "add_cross_attention": [True],
    "tie_encoder_decoder": [True],
    "use_return_dict": [False],
    "attn_implementation": ["eager", "sdpa", "flash_attention_2", "paged|sdpa", "new", 3],
    "_attn_implementation": [
        "eager",
        "flash_attention_2",
        "sdpa",
        "new",
    ],  # flex_attention varies by itself on CPUs
    "_attn_implementation_internal": ["eager", "new"],
    "experts_implementation": ["eager", "grouped_mm", "batched_mm", "new"],
}
VALUES: dict[str, list[Any]] = {
    "attention_bias": [True, False, None, "false"],
    "mlp_bias": [True, False],
    "hidden_act": ["gelu", "relu", "silu", "swish", "new", None, ["silu"], 3],
    "activation_function": ["relu", "gelu", "gelu_new", "new", None],
    "do_layer_norm_before": [False],
    "rms_norm_eps": [1e-5, 1.0, 0, -1, "1e-6", None, True],
    "layer_norm_epsilon": [1.0, 0, -1, "1e-5", None],
    "rope_theta": [10000.0, 500000.0, 1, 0, -1, "10000", None, [10000.0]],
    "rope_parameters": [
        *({"rope_type": "default", "rope_theta": 100.0}, {"rope_type": "linear", "factor": 4.0}, {}, None),
        *(
            {"rope_type": "dynamic", "factor": 4.0},
            {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        ),
        *({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, {"rope_type": "su"}, {"type": "su"}),
        {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32},
    ],
    "rope_scaling": [
        *(
            {"type": "linear", "factor": 2.0},
            {"rope_type": "dynamic", "factor": 2.0},
            {"type": "su"},
            "linear",
        ),
        {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 2.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 32},
    ],
    "partial_rotary_factor": [0.5, 0, 1.0],
    "num_attention_heads": [2, 1, 8, 3, 0, -4],
    "num_key_value_heads": [1, 4, 3, 0, None],
    "n_head": [2, 8, 3, 0],
    "head_dim": [8, 16, 7, 0, None],
    "hidden_size": [16, 64, 33, 0, -32],
    "intermediate_size": [32, 128, 0],
    "ffn_dim": [32, 0],
    "word_embed_proj_dim": [16, 64],
    "vocab_size": [256, 200, 300, 1, 0, -1],
    "max_position_embeddings": [64, 40, 16, 4096, 1, 0, -1],
    "n_positions": [64, 16, 256, 0],
    "sliding_window": [8, 4096, 0, -1, None, "8"],
    "use_sliding_window": [True, False],
    "max_window_layers": [0, 1, 2],
    "layer_types": [["full_attention"] * 2, ["sliding_attention"] * 2, ["full_attention"], ["new"] * 2, []],
    "num_hidden_layers": [1, 3, 0, -1, 2.5],
    "n_layer": [1, 3, 0],
    "num_local_experts": [2, 8, 0],
    "num_experts_per_tok": [1, 4, 5, 0, -1],
    "router_jitter_noise": [0.5],
    "output_router_logits": [True],
    "scale_attn_weights": [False],
    "scale_attn_by_inverse_layer_idx": [True],
    "reorder_and_upcast_attn": [True],
    "pretraining_tp": [1, 2, 0, "2", None],
    "attention_dropout": [0.5, 1.0, -1, "0.1", None],
    "attn_pdrop": [0.5],
    "resid_pdrop": [0.5, 2],
    "dropout": [0.5],
    "initializer_range": [0.0, -1, "0.02"],
    "logits_scaling": [2.0],
    "final_logit_softcapping": [3.0],
    "torch_dtype": ["float16", "bfloat16", "float64", "auto", "float99", "int8", None, 32, ["float32"]],
    "dtype": ["float16", "bfloat16", "float64", "auto", "float99", "int8", None, 32, "torch.float16"],
    "architectures": [["LlamaModel"], ["NewForCausalLM"], [], None, "LlamaForCausalLM", ["T5Model"], [3]],
    "model_type": ["llama", "mistral", "qwen2", "gemma", "opt", "bert", "t5", "new", "", None, 3, "mamba"],
    "quantization_config": [
        *(
            {"quant_method": "gptq", "bits": 4},
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            {},
            None,
        ),
        *({"quant_method": "new"}, {"bits": 4}, "fp8", []),
    ],
    "compression_config": [{"quant_method": "compressed-tensors"}, {}],
    "auto_map": [{"AutoModelForCausalLM": "modeling_new.New"}, {"AutoConfig": "new.New"}, "new", {}],
    "base_model_tp_plan": [{"layers.*.mlp.up_proj": "colwise"}, "new"],
    "pad_token_id": [0, 5, -1, 263, 99999, "0", 1.5],
    "bos_token_id": [0, 99999, -1, "0", [1, 2]],
    "eos_token_id": [0, [0, 1], 99999, -1, "0"],
    "transformers_version": ["3.0.0", "99.0.0", "", None, 5],
    "text_config": [{"hidden_size": 16}, {}, None],
    "num_labels": [3, 0],
    "id2label": [{"0": "a"}, ["a"], None],
    "problem_type": ["new"],
    "chunk_size_feed_forward": [4],
    "pruned_heads": [{"0": [1]}],
    "transformers_weights": ["model.safetensors", "other.safetensors"],
    "name_or_path": ["some/where", None],
    "_name_or_path": ["some/where"],
    "unheard_of": [True, None, {"a": [1]}, "new"],
    "max_length": [4],
    "temperature": [0.5, -1],
    "do_sample": [True],
    "num_beams": [4],
}


def config_flag(at: Damaged) -> str:
    key = at.pick(FLAGS)
    return at.set_key(CONFIG, key, at.pick(FLAGS[key]))


def config_value(at: Damaged) -> str:
    known = json.loads((at.folder / CONFIG).read_text()).keys() & VALUES.keys()
    key = at.pick(sorted(known) if at.chance.random() < 0.5 and known else VALUES)
    return at.set_key(CONFIG, key, at.pick(VALUES[key]))


def config_type(at: Damaged) -> str:
    """A value of another type than it has."""

    def change(config: dict[str, Any]) -> str:
        key, value = at.pick(config.items())
        others: list[Any] = [str(value), None, [value], {"value": value}, True, "", -1]
        if isinstance(value, int | float):
            others += [float(value), str(float(value)), value + 0.5, -value, 0]
            others += [] if "layer" in key else [10**30]  # so many layers would take for ever
        config[key] = at.pick(others)
        return f"{key} is {json.dumps(config[key])}"

    return at.change_json(CONFIG, change)


def config_drop(at: Damaged) -> str:
    def change(config: dict[str, Any]) -> str:
        key = at.pick(config)
        del config[key]
        return f"without {key}"

    return at.change_json(CONFIG, change)


def config_other(at: Damaged) -> str:
    """The configuration of another model."""
    name = at.pick(bases())
    (at.folder / CONFIG).write_text(bases()[name].to_json_string())
    return f"that of {name}"


def generation_config(at: Damaged) -> str:
    values: dict[str, list[Any]] = {
        "temperature": [-1, 0, "hot", None],
        "max_new_tokens": [0, -1, "x", 10**6],
        "max_length": [1, "x", None],
        "eos_token_id": [99999, [0, 1], "x", -1, None],
        "pad_token_id": [99999, -1, "x"],
        "bos_token_id": [99999],
        "num_beams": [4, 0],
        "num_return_sequences": [3],
        "do_sample": [True, "x"],
        "top_k": [-1, 0],
        "top_p": [2.0],
        "cache_implementation": ["static", "new", "offloaded"],
        "use_cache": [False],
        "repetition_penalty": [-1.0, 1.5],
        "return_dict_in_generate": [True],
        "output_scores": [True],
        "output_attentions": [True],
        "suppress_tokens": [[0, 1], [99999]],
        "forced_bos_token_id": [3],
        "min_length": [50],
        "watermarking_config": [{"greenlist_ratio": 2}],
        "cache_config": [{"a": 1}],
        "prompt_lookup_num_tokens": [3],
        "unheard_of": [[1]],
    }
    key = at.pick(values)
    value = at.pick(values[key])

    def change(content: dict[str, Any]) -> str:
        content[key] = value
        return f"{key} is {json.dumps(value)}"

    return at.change_json(GENERATION, change)
