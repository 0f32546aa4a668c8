"""Every causal language model family of the installed transformers, tiny: is what prunebench computes right?

`python -m tests.every_family [NAME...]` tries them, and writes the verdicts beside this file and into
docs/methods.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from methods.engine.hidden_states import at_rest
from methods.errors import InputError, StructureError
from methods.structure.experts import stacked_matrices
from suite.cell import CalibrationSpec, Cell
from suite.checkpoints.evaluation import Outlet, measure_checkpoint
from suite.checkpoints.verification import verify_checkpoint
from suite.checkpoints.writing.checkpoint import write_checkpoint
from suite.evaluation.inputs import model_key
from suite.models.loading_errors import quiet_transformers
from suite.planning.option_cells import evaluation_cell, pruning_cell
from suite.planning.preflight import preflight
from suite.results import ResultStore
from suite.results.records.record import Record
from suite.results.verification import verify
from suite.watcher import Silent
from tests.tiny import byte_tokenizer, write_text

PLACEMENTS = ("resident", "onload")
RIGHT = "right"
STORED = Path(__file__).with_suffix(".json")
DOCS = Path(__file__).parent.parent / "docs" / "methods.md"
BEGIN, END = "<!-- every family: begin -->", "<!-- every family: end -->"

NOT_TRIED: Mapping[str, str] = {
    "gemma3n": "needs timm for its vision tower; gemma3n_text is its language model",
    "gemma4_assistant": "computes with the keys and values of the model that it assists",
    "gemma4_unified_assistant": "computes with the keys and values of the model that it assists",
    "musicgen": "transformers cannot make its class from the configuration of all its parts",
    "musicgen_melody": "transformers cannot make its class from the configuration of all its parts",
}
"""Families that cannot be built from a tiny configuration, and why."""

VOCABULARY = 300
SEQLEN = 64
CPU = torch.device("cpu")
LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"),
    *("num_decoder_layers", "num_encoder_layers", "num_blocks", "num_layers_per_stack", "depth"),
)
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 2}
SIZES = {
    2: """
        linear_num_key_heads heads_per_ngram n_mamba_heads num_experts_per_tok num_experts_per_token
        moe_topk moe_k top_k_experts zero_expert_num o_groups hc_mult hc_count altup_num_inputs
        n_layers_per_attn_res_block index_topk_blocks
    """,
    4: """
        num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads
        decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads
        swa_num_attention_heads num_query_groups index_n_heads linear_num_value_heads linear_num_heads
        num_experts n_routed_experts num_local_experts moe_num_experts centroid_intermediate_top_k
        index_block_size
    """,
    8: """
        mamba_n_heads mamba_num_heads qk_rope_head_dim rotary_dim mamba_dt_rank time_step_rank
        prompt_length prompt_types segment_types mem_len num_centroids split_ngram_parts
    """,
    14: """
        patch_size
    """,
    16: """
        head_dim swa_head_dim d_head dim_head kv_channels attention_head_size index_head_dim
        linear_key_head_dim linear_value_head_dim linear_head_dim mamba_d_head mamba_head_dim v_head_dim
        qk_nope_head_dim o_lora_rank d_rel mamba_d_state state_size ssm_state_size sliding_window
        sliding_window_size attention_window_size local_attention window_size attention_chunk_size
        local_attention_window_len block_size chunk_size mamba_chunk_size rel_extent keep_window_size
        index_topk lsh_attn_chunk_length local_attn_chunk_length
    """,
    24: """
        qk_head_dim
    """,
    28: """
        image_size
    """,
    32: """
        input_embedding_size hidden_size_per_layer_input router_hidden_size hc_lowrank laurel_rank
        pronunciation_embed_dim shape_embed_dim adapter_rank gated_norm_rank ple_embed_dim
        moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size
        shared_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size q_lora_rank
        kv_lora_rank
    """,
    50: """
        encoder_hash_byte_group_vocab shape_vocab_size pronunciation_vocab_size
    """,
    64: """
        hidden_size hidden_size_global d_model n_embd emb_dim embedding_dim embedding_size
        attention_hidden_size lru_width word_embed_proj_dim output_embedding_size backbone_hidden_size
        dim_model_base adapter_in_dim adapter_input_size adapter_out_dim adapter_output_size
    """,
    96: """
        intermediate_size feed_forward_size d_inner dff dim_ff ffn_dim ffn_hidden_size ffn_size
        encoder_ffn_dim decoder_ffn_dim mlp_dim dense_intermediate_size intermediate_size_mlp
    """,
    128: """
        max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions
        max_source_positions model_max_length mamba_d_ssm
    """,
    VOCABULARY: """
        vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size
    """,
    1000: """
        ngram_vocab_size_base
    """,
}
TINY = {name: size for size, listed in SIZES.items() for name in listed.split()}
"""What sizes become that a configuration has."""

AT_MOST = {
    name: size
    for size, names in (
        (1, "first_k_dense_replace num_dense_layers n_shared_experts num_shared_experts topk_group"),
        (1, "moe_num_shared_experts num_nextn_predict_layers num_kv_shared_layers max_window_layers"),
        (2, "n_group num_expert_group"),
    )
    for name in names.split()
}
"""What numbers become that may be smaller or 0 in a family."""

KEY_VALUE_HEADS = ("num_key_value_heads", "swa_num_key_value_heads", "num_kv_heads")
NEEDED = {
    "head_dim": 16,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
}
"""What a few configurations leave open."""
KINDS = (
    *("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "indexer_types", "attn_layers"),
    *("no_rope_layers", "layer_rope_theta", "num_attention_heads_per_layer"),
)
"""Lists with what each layer is; a tiny model has one of each kind."""

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0}},
    "dots3_note_text": {
        **{f"swa_{name}": TINY[name] for name in ("num_attention_heads", "q_lora_rank", "kv_lora_rank")},
        **{f"swa_{name}": TINY[name] for name in ("qk_nope_head_dim", "v_head_dim")},
        "swa_num_key_value_heads": 4,
        "swa_head_dim": 24,
    },
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": 96,
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
    },
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_unified_text": {"global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "phi4_multimodal_audio": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_blocks": 1,
        "nemo_conv_channels": 16,
        "ext_pw_out_channel": 16,
        "depthwise_separable_out_channel": 16,
        "feature_layer": -1,
    },
    "phi4_multimodal_vision": {"crop_size": 28, "feature_layer": -1},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"axial_pos_shape": [8, 16], "axial_pos_embds_dim": [32, 32]},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What a configuration of that name needs beside that, wherever it stands in another."""


def names() -> list[str]:
    """All families of the installed transformers."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(name: str) -> PreTrainedConfig:
    """The configuration of a family with everything in it made small."""
    config_class = CONFIG_MAPPING[name]
    return config_class(**_made_small(config_class(), name))


def _made_small(config: PreTrainedConfig, name: str) -> dict[str, Any]:
    aliases, values = config.attribute_map, vars(config)
    given = {
        field.name: values.get(aliases.get(field.name, field.name)) for field in dataclasses.fields(config)
    }
    kinds = {key: list(dict.fromkeys(given[key])) for key in KINDS if isinstance(given.get(key), list)}
    n_layers = max([2, *(len(found) for found in kinds.values())])
    n_heads = next((given[key] for key in TINY if TINY[key] == 4 and "head" in key and given.get(key)), 0)
    small: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, PreTrainedConfig):
            small[key] = {**_made_small(value, value.model_type), "model_type": value.model_type}
        elif key in kinds:
            small[key] = [kinds[key][index % len(kinds[key])] for index in range(n_layers)]
        elif key in TOKENS:
            small[key] = None if value is None else TOKENS[key]
        elif value is None and key in NEEDED:
            small[key] = NEEDED[key]
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int) and value <= 0:
            small[key] = value
        elif key.endswith(("token_id", "token_index")):
            small[key] = 256 + len(small)  # no byte of a text
        elif key in LAYERS:
            small[key] = n_layers
        elif key in TINY:
            small[key] = [TINY[key]] * n_layers if isinstance(value, list) else TINY[key]
        elif key in AT_MOST:
            small[key] = min(value, AT_MOST[key])
        elif key in KEY_VALUE_HEADS:
            small[key] = 1 if value == 1 else 2 if value < n_heads else 4
    if "is_decoder" in given:
        small["is_decoder"] = True
    return {**small, **SPECIAL.get(name, {})}


def build(name: str, folder: Path) -> None:
    """A folder with a tiny random model of a family and a tokenizer."""
    with quiet_transformers():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(tiny_config(name), dtype=torch.float32)
        fill(model)
        model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """The same random matrices each time, larger than those that training begins with, so that all matter."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D) or stacked_matrices(module):
            for matrix in module.parameters(recurse=False):
                if matrix.ndim > 1:
                    matrix.normal_(std=matrix.shape[-1] ** -0.5, generator=generator)


def plain_losses(folder: Path, windows: Tensor) -> list[float]:
    """Each window's mean loss as transformers alone computes it."""
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = []
    with torch.no_grad():
        for tokens in windows:
            logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].double()
            losses.append(float(nn.functional.cross_entropy(logits, tokens[1:])))
    return losses


def verdict(name: str, folder: Path) -> dict[str, str]:
    """What becomes of a family: `right`, or why prunebench refuses it, by placement.

    Raises:
        AssertionError: something is wrong.
    """
    dense = folder / "dense"
    build(name, dense)
    text = write_text(folder / "text.txt", n_words=200)
    found = {}
    for placement in PLACEMENTS:
        try:
            check(dense, text, folder / placement, placement)
        except (InputError, StructureError) as error:
            found[placement] = str(error).replace(repr(str(dense)), repr(name))
        else:
            found[placement] = RIGHT
    return found


def check(dense: Path, text: Path, folder: Path, placement: str) -> None:
    """Prunes a model, measures it and the pruned one, verifies both, and holds all against transformers."""
    cells = [_pruning_cell(dense, text, "wanda")]
    if placement == "resident":
        cells.append(_pruning_cell(dense, text, "llm-barber"))
    for cell in cells:
        pruned = folder / cell.method
        inputs = preflight([cell])
        write_checkpoint(cell, inputs[model_key(cell)], pruned, CPU, placement)
        asked = _evaluation_cell(pruned, dense, text)
        windows = preflight([asked])[model_key(asked)].windows[asked.perplexity[0]].input_ids
        records = folder / f"{cell.method}-records"
        with patch(
            "suite.evaluation.speed.reference_speed.MATRIX_SIZE", 64
        ):  # how fast the machine is does not matter
            evaluated = measure_checkpoint(
                *(asked, str(dense)),
                dense_revision=None,
                device=CPU,
                watcher=Silent(),
                weights=placement,
                outlet=Outlet(ResultStore(records)),
            )
        measured = [_perplexity(record) for record in evaluated]
        plain = [plain_losses(model, windows) for model in (dense, pruned)]
        for ours, losses in zip(measured, plain, strict=True):
            theirs = math.exp(sum(losses) / len(losses))
            assert math.isclose(ours, theirs, rel_tol=1e-4), f"perplexity {ours}, by transformers {theirs}"
        assert any(not math.isclose(*of_window, rel_tol=1e-3) for of_window in zip(*plain, strict=True))
        _hold_experts(dense, windows)
        problems = [f for f in verify([records]).all_findings if f.level == "problem"]
        problems += [f for f in verify_checkpoint(pruned, evaluated[1]) if f.level == "problem"]
        assert not problems, problems


def _hold_experts(folder: Path, windows: Tensor) -> None:
    """Experts, run one by one so that methods can see each, give what the model's own forward gives."""
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        own = model(input_ids=windows[:2], use_cache=False).logits
    with at_rest(model):
        seen = model(input_ids=windows[:2], use_cache=False).logits
    torch.testing.assert_close(seen, own, rtol=1e-3, atol=1e-3)


def _pruning_cell(dense: Path, text: Path, method: str) -> Cell:
    return pruning_cell(
        *(str(dense), method),
        sparsity="0.5",
        pattern=None,
        settings={},
        allocation=None,
        allocation_settings={},
        calibration=CalibrationSpec(
            source=str(text), n_samples=4, seqlen=SEQLEN, seed=0, first_token="never"
        ),
        dtype="float32",
        revision=None,
        trust_remote_code=False,
    )


def _evaluation_cell(pruned: Path, dense: Path, text: Path) -> Cell:
    return evaluation_cell(
        *(str(pruned), str(dense)),
        corpora=[str(text)],
        seqlen=SEQLEN,
        max_tokens=None,
        first_token="never",
        tasks=["none"],
        task_folder=None,
        num_fewshot=None,
        limit=None,
        prompts="none",
        max_new_tokens=1,
        speed=False,
        dtype="float32",
        revision=None,
        trust_remote_code=False,
    )


def _perplexity(record: Record) -> float:
    return next(metric.value for metric in record.metrics if metric.name == "perplexity")


def stored() -> dict[str, dict[str, str]]:
    """The verdicts that were written last, by family."""
    verdicts: dict[str, dict[str, str]] = json.loads(STORED.read_text())["families"]
    return verdicts


def tried_with() -> str:
    """The version of transformers that the stored verdicts are about."""
    known: str = json.loads(STORED.read_text())["transformers"]
    return known


def table() -> str:
    """The stored verdicts as docs/methods.md has them."""
    families = stored()
    n_right = [sum(found[placement] == RIGHT for found in families.values()) for placement in PLACEMENTS]
    lines = [
        f"Of {len(families)} families of transformers {tried_with()}, {n_right[0]} are right when resident "
        f"and {n_right[1]} when onloaded; the others are refused.",
        "",
        "| family | class | verdict |",
        "|---|---|---|",
        *(f"| {name} | {found['class']} | {_in_words(found)} |" for name, found in families.items()),
    ]
    lines += ["", *(f"Not tried: {name}, {why}." for name, why in NOT_TRIED.items())] if NOT_TRIED else []
    return "\n".join(lines)


def _in_words(found: Mapping[str, str]) -> str:
    resident, onload = (_shortened(found[placement]) for placement in PLACEMENTS)
    if resident == onload:
        return RIGHT if resident == RIGHT else f"refused: {resident}"
    if resident == RIGHT:
        return f"right; onload refused: {onload}"
    return f"refused: {resident}; onload: {onload}"


def _shortened(reason: str) -> str:
    """A reason without the model's name before it and the advice after it."""
    reason = re.sub(r"^model '[^']+'(: | cannot be pruned or measured: | )", "", reason)
    return reason.split(", and --placement onload makes no tensor")[0].split("; expected ")[0]


def documented(page: str) -> str:
    """The part of docs/methods.md that `table` fills."""
    return page.split(BEGIN)[1].split(END)[0].strip()


def write(found: Mapping[str, Mapping[str, str]]) -> None:
    """Writes verdicts beside this file and into docs/methods.md."""
    families = {name: found[name] for name in sorted(found)}
    text = json.dumps({"transformers": version("transformers"), "families": families}, indent=1)
    STORED.write_text(f"{text}\n")
    before, rest = DOCS.read_text().split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}")


def main(chosen: list[str]) -> None:
    """Tries families, all without names; what was found is written down after each, so that none is lost."""
    found = stored()
    for name in chosen or names():
        if name in NOT_TRIED:
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found[name] = {"class": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name], **verdict(name, Path(folder))}
        write(found)
        print(f"{name} ({time.perf_counter() - start:.1f} s): {_in_words(found[name])}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
