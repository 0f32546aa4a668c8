"""Every built-in method keeps its promises, and a method that does not is found out."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PreTrainedModel

from methods.base import CalibrationSet, KeepMask, Placement, PruneResult
from methods.contract import ModelState, check_contract
from methods.errors import ContractError, InputError, NonFiniteError, StructureError
from methods.llm_barber import LLMBarber
from methods.magnitude import Magnitude
from methods.pattern import parse_pattern
from methods.registry import build, names

FAMILIES = {
    "llama": LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "opt": OPTConfig(
        vocab_size=97,
        hidden_size=64,
        ffn_dim=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=64,
        max_position_embeddings=64,
    ),
    "opt-post-norm": OPTConfig(
        vocab_size=97,
        hidden_size=64,
        ffn_dim=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        do_layer_norm_before=False,
        max_position_embeddings=64,
    ),
}
VARIANTS: list[tuple[str, dict[str, object]]] = [
    ("magnitude", {}),
    ("wanda", {}),
    ("sparsegpt", {}),
    ("sparsegpt", {"block_size": 48}),
    *(
        ("llm-barber", {"initial": initial, "granularity": granularity, "rebuild_ratio": 0.3})
        for initial, granularity in itertools.product(
            ("magnitude", "wanda", "sparsegpt"), ("output", "input", "layer", "block")
        )
    ),
    ("llm-barber", {"initial": "sparsegpt", "rebuild_ratio": 0.3, "keep_reconstruction": True}),
    ("llm-barber", {"score": "weight", "rebuild_ratio": 0.3}),
    ("llm-barber", {"score": "gradient", "rebuild_ratio": 0.3}),
    ("llm-barber", {"rebuild_ratio": 0.3, "nm_guard": False}),
    ("llm-barber", {"rebuild_ratio": 0.0}),
    ("llm-barber", {"rebuild_ratio": 1.0, "granularity": "layer"}),
]


def make_model(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(11)
    return AutoModelForCausalLM.from_config(FAMILIES[family]).to(dtype)


def make_calibration(n_samples: int = 5, seqlen: int = 24) -> CalibrationSet:
    generator = torch.Generator().manual_seed(3)
    return CalibrationSet(torch.randint(0, 97, (n_samples, seqlen), generator=generator), "random", 3)


def prune(family, method, pattern, dtype=torch.float32, batch_size=2) -> tuple[PreTrainedModel, PruneResult]:
    """Prunes a fresh model and holds it against the contract."""
    model = make_model(family, dtype)
    before = ModelState.of(model)
    result = method.prune(model, pattern, make_calibration(), placement=Placement(batch_size))
    check_contract(method, pattern, before, model, result)
    return model, result


def test_variants_cover_every_built_in_method():
    assert {name for name, _ in VARIANTS} == set(names())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "settings", "pattern"),
    [
        (name, settings, pattern)
        for name, settings in VARIANTS
        for pattern in ("0", "0.29", "0.7", "2:4", "1:4", "4:8")
        if ":" not in pattern or settings.get("granularity", "output") == "output"
    ],
    ids=str,
)
def test_contract(family, name, settings, pattern):
    prune(family, build(name, settings), parse_pattern(pattern))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", names())
def test_contract_in_half_precision(name, dtype):
    _, result = prune("llama", build(name), parse_pattern("0.5"), dtype)
    assert result.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", names())
def test_same_seed_gives_the_same_masks_to_the_bit(name):
    first, second = (prune("llama", build(name), parse_pattern("0.5"))[1] for _ in range(2))
    assert first.mask_digest == second.mask_digest


@pytest.mark.parametrize("name", names())
def test_batching_changes_rounding_at_most(name):
    one, five = (prune("opt", build(name), parse_pattern("0.5"), batch_size=b)[1] for b in (1, 5))
    differing = sum(int((one.keep[k].unpack() ^ five.keep[k].unpack()).sum()) for k in one.keep)
    assert differing <= 0.001 * sum(mask.numel for mask in one.keep.values())


def test_a_model_in_training_mode_comes_back_in_training_mode():
    model = make_model("opt").train()
    model.config.use_cache = True
    before = ModelState.of(model)
    method = build("llm-barber", {"rebuild_ratio": 0.2})
    check_contract(
        method,
        parse_pattern("0.5"),
        before,
        model,
        method.prune(model, parse_pattern("0.5"), make_calibration()),
    )
    assert model.training


@pytest.mark.parametrize("name", names())
def test_m_that_does_not_divide_is_an_error_that_names_the_module_and_changes_nothing(name):
    model = make_model("llama")
    before = ModelState.of(model)
    with pytest.raises(InputError, match=r"3:7.*64 inputs of model\.layers\.0\.self_attn\.q_proj"):
        build(name).prune(model, parse_pattern("3:7"), make_calibration())
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before.weights[key])


@pytest.mark.parametrize("name", ["wanda", "sparsegpt", "llm-barber"])
def test_calibration_is_asked_for(name):
    with pytest.raises(InputError, match="needs calibration"):
        build(name).prune(make_model("llama"), parse_pattern("0.5"), None)


@pytest.mark.parametrize("granularity", ["input", "layer", "block"])
def test_n_of_m_is_rebuilt_by_rows_only(granularity):
    method = build("llm-barber", {"granularity": granularity})
    with pytest.raises(InputError, match="2:4 needs granularity 'output'"):
        method.prune(make_model("llama"), parse_pattern("2:4"), make_calibration())


@pytest.mark.parametrize("name", names())
def test_nan_is_an_error_that_names_the_module(name):
    model = make_model("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp"):
        build(name).prune(model, parse_pattern("0.5"), make_calibration())
    assert all(not module._forward_hooks and "forward" not in vars(module) for module in model.modules())


def test_dead_inputs_are_pruned_and_reported():
    model = make_model("opt")
    fc1 = model.model.decoder.layers[0].fc1
    fc1.weight.data[:40] = 0
    fc1.bias.data[:40] = -1
    for name in ("wanda", "sparsegpt"):
        report = next(
            r
            for r in build(name).prune(model, parse_pattern("0.5"), make_calibration()).layers
            if r.module.endswith("layers.0.fc2")
        )
        assert "40 inputs were never active" in report.warnings[0]


def corrupt_survivor(model, result):
    weight = model.model.layers[0].mlp.up_proj.weight.data
    weight[weight != 0] *= 1.001
    return result


def corrupt_pruned(model, result):
    weight = model.model.layers[0].mlp.up_proj.weight.data
    weight[weight == 0] = 1e-8
    return result


def corrupt_embedding(model, result):
    model.model.embed_tokens.weight.data[0, 0] += 1
    return result


def corrupt_mode(model, result):
    model.model.layers[1].train(not model.training)
    return result


def corrupt_hook(model, result):
    model.model.layers[1].register_forward_hook(lambda *_: None)
    return result


def corrupt_count(model, result):
    key = "model.layers.0.mlp.up_proj.weight"
    keep = result.keep[key].unpack()
    keep.view(-1)[keep.view(-1).nonzero()[0]] = False
    model.get_parameter(key).data.masked_fill_(~keep, 0)
    return PruneResult({**result.keep, key: KeepMask.pack(keep)}, result.layers, result.phases)


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (corrupt_survivor, "surviving weight was changed"),
        (corrupt_pruned, "not 0"),
        (corrupt_embedding, "no target module"),
        (corrupt_mode, "training mode or hooks"),
        (corrupt_hook, "training mode or hooks"),
        (corrupt_count, "comparison groups"),
    ],
)
def test_a_broken_promise_is_found(corrupt, message):
    @dataclass(frozen=True)
    class Broken(Magnitude):
        def prune(self, model, pattern, calibration=None, **kwargs):
            return corrupt(model, super().prune(model, pattern, calibration, **kwargs))

    with pytest.raises(ContractError, match=message):
        prune("llama", Broken(), parse_pattern("0.5"))


def test_experts_stacked_in_one_parameter_are_refused_not_passed_over():
    from transformers import Qwen2MoeConfig

    config = Qwen2MoeConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
    )
    with pytest.raises(StructureError, match="mixtures of experts"):
        Magnitude().prune(AutoModelForCausalLM.from_config(config), parse_pattern("0.5"))


def test_a_wrong_initial_mask_is_found():
    @dataclass(frozen=True)
    class Generous(LLMBarber):
        def prune(self, model, pattern, calibration, **kwargs):
            return super().prune(model, parse_pattern("0.4"), calibration, **kwargs)

    with pytest.raises(ContractError, match="comparison groups"):
        prune("llama", Generous(), parse_pattern("0.5"))


def test_fp16_gradients_do_not_flush_to_zero():
    model = make_model("llama", torch.float16)
    for parameter in model.model.layers.parameters():
        if parameter.ndim == 2:
            parameter.data *= 0.1
    method = build("llm-barber", {"rebuild_ratio": 1.0, "granularity": "layer"})
    swaps = [report.swaps for report in method.prune(model, parse_pattern("0.5"), make_calibration()).layers]
    assert all(n > 0 for n in swaps)
