"""Experts stacked in one parameter are seen one by one, each on the tokens routed to it."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from methods.base import CalibrationSet, Placement
from methods.conformance.expert_families import EXPERT_FAMILIES, STARVED_EXPERT
from methods.contract import ModelState, check_contract
from methods.engine.block_gradient import study_block
from methods.engine.hidden_states import LayerStream, at_rest
from methods.engine.statistics import GramMatrix, SharedInputs
from methods.engine.steps import UNREACHED
from methods.errors import StructureError
from methods.masks.pattern import parse_pattern
from methods.placement.layer_loading import Resident
from methods.registry import allocations, build
from methods.structure.decoder import read_decoder
from methods.structure.experts import RoutedForward, routed_forwards, stacked_matrices
from methods.structure.target import noting_calls

FAMILIES = {family.name: family for family in EXPERT_FAMILIES}


def calibration(n_samples: int = 5, seqlen: int = 24) -> CalibrationSet:
    generator = torch.Generator().manual_seed(3)
    return CalibrationSet(torch.randint(3, 97, (n_samples, seqlen), generator=generator), "random", 3)


def expert_layer(decoder):
    """The first layer with experts."""
    return next(
        layer for layer in decoder.layers if any(t.expert is not None for t in layer.targets.values())
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_by_one_they_compute_what_the_model_computes(family, implementation, dtype):
    model = FAMILIES[family].build(dtype)
    model.set_experts_implementation(implementation)
    ids = calibration().input_ids
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        with routed_forwards(model):
            assert any(isinstance(module.forward, RoutedForward) for module in model.modules())
            found = model(input_ids=ids, use_cache=False).logits
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_expert_is_judged_on_the_tokens_that_the_router_sends_it(family):
    model = FAMILIES[family].build()
    decoder = read_decoder(model)
    layer = expert_layer(decoder)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, calibration(), Resident(model, decoder, Placement(2))
        )
        experts = next(module for module in layer.module.modules() if stacked_matrices(module))
        shared = SharedInputs(layer.targets, GramMatrix.of)
        given = []
        hook = experts.register_forward_pre_hook(lambda _, args: given.append(args))
        for batch in range(stream.n_batches):
            with shared.collecting():
                stream.forward(layer, batch)
        hook.remove()
    for target in layer.targets.values():
        if target.expert is None or target.attribute == "down_proj":
            continue
        mine = [hidden[(chosen == target.expert).any(-1)] for hidden, chosen, _ in given]
        x = torch.cat(mine)
        assert shared.n_tokens(target.name) == len(x)
        torch.testing.assert_close(shared[target.name].value, x.T @ x)


@pytest.mark.parametrize("family", FAMILIES)
def test_squared_gradients_of_an_expert_are_those_of_one_sample_after_the_other(family):
    model = FAMILIES[family].build()
    decoder = read_decoder(model)
    layer = expert_layer(decoder)
    block = layer.blocks[1]
    dense = {name: target.weight.clone() for name, target in block.targets.items()}
    for target in block.targets.values():
        target.weight[:, ::2] = 0
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, calibration(), Resident(model, decoder, Placement(2))
        )
        for earlier in decoder.layers[: layer.index]:
            stream.advance(earlier)
        fast = study_block(stream, layer, block, dense, gradients=True)
        one_by_one = {name: torch.zeros(target.shape) for name, target in block.targets.items()}
        for batch in range(stream.n_batches):
            call = stream.call_of(layer, batch, block)
            for sample in range(stream.n_samples(batch)):
                x = call.args[0][sample : sample + 1]
                y = call.output[sample : sample + 1]
                leaves = {name: weight.clone().requires_grad_() for name, weight in dense.items()}
                with torch.enable_grad():
                    loss = (block.run(leaves, (x,), {}) - y).square().sum() / 2
                    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                for name, gradient in zip(leaves, gradients, strict=True):
                    if gradient is not None:
                        one_by_one[name] += gradient.square() / 5
    for name, expected in one_by_one.items():
        torch.testing.assert_close(fast.squared_gradients[name], expected, rtol=1e-4, atol=1e-12)
    assert any(bool(expected.any()) for expected in one_by_one.values())


REFINERS = ("llm-barber", "dsnot")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("wanda", {}), ("sparsegpt", {}), ("ria", {}), ("llm-barber", {}), ("dsnot", {"blocks": "all"})],
)
def test_an_expert_without_tokens_is_judged_by_its_weights_and_the_report_says_so(name, settings):
    model = FAMILIES["qwen3-moe"].build()
    dense = {target.name: target.weight.clone() for _, _, target in read_decoder(model).targets()}
    before = ModelState.of(model)
    method, pattern = build(name, settings), parse_pattern("0.5")
    result = method.prune(model, pattern, calibration(), placement=Placement(2))
    check_contract(method, pattern, before, model, result)
    reports = {report.module: report for report in result.layers}
    starved = [t for _, _, t in read_decoder(model).targets() if t.expert == STARVED_EXPERT]
    assert len(starved) == 4
    for target in starved:
        report = reports[target.name]
        assert report.n_tokens == 0
        by_weights = "no calibration token was routed to it: judged as if every input were equally active"
        assert report.warnings == ((by_weights, UNREACHED) if name in REFINERS else (by_weights,))
        keep = target.unpack(result.keep[target.mask_name])
        # The larger half of its weights stays, whichever the comparison group.
        assert dense[target.name][keep].abs().mean() > 1.5 * dense[target.name][~keep].abs().mean()
        assert torch.equal(target.weight[keep], dense[target.name][keep])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llm-barber", {"rebuild_ratio": 1.0}),
        ("dsnot", {"blocks": "all", "update_threshold": 0.0}),
    ],
)
def test_a_mask_is_not_improved_on_tokens_that_never_came(name, settings):
    model = FAMILIES["mixtral"].build()
    result = build(name, settings).prune(model, parse_pattern("0.5"), calibration(1, 1))
    unreached = [report for report in result.layers if UNREACHED in report.warnings]
    assert unreached
    for report in unreached:
        assert report.swaps == 0
        assert result.keep[report.module] == result.initial.keep[report.module]


@pytest.mark.parametrize(
    ("name", "settings"), [("llm-barber", {"score": "weight"}), ("dsnot", {"blocks": "attention"})]
)
def test_where_nothing_is_judged_anew_the_initial_account_stands(name, settings):
    model = FAMILIES["mixtral"].build()
    result = build(name, settings).prune(model, parse_pattern("0.5"), calibration(1, 6))
    initial = {report.module: report for report in result.initial.layers}
    for report in result.layers:
        if "experts" in report.module:
            assert (report.n_tokens, report.warnings) == (
                initial[report.module].n_tokens,
                initial[report.module].warnings,
            )
            assert report.warnings


def test_owl_leaves_out_experts_of_which_it_knows_nothing():
    model = FAMILIES["qwen3-moe"].build()
    fed, starved = [], []
    for _, _, target in read_decoder(model).targets():
        (starved if target.expert == STARVED_EXPERT else fed).append(target)
    owl, pattern = allocations.build("owl"), parse_pattern("0.5")
    before = owl.allocate(model, pattern, calibration())
    for target in starved:
        target.weight.mul_(1000)
    assert owl.allocate(model, pattern, calibration()) == before


def test_an_expert_with_fewer_tokens_than_inputs_is_reported():
    model = FAMILIES["mixtral"].build()
    result = build("wanda").prune(model, parse_pattern("0.5"), calibration(1, 6))
    for report in result.layers:
        if "experts" in report.module:
            inputs = report.shape[1]
            assert 0 < report.n_tokens < inputs
            words = f"judged on {report.n_tokens} tokens routed to it, fewer than its {inputs} inputs"
            assert report.warnings[0] == words
        else:
            assert report.n_tokens == 6
            assert report.warnings == ()


def test_routers_and_the_gate_of_a_shared_expert_are_left_alone():
    model = FAMILIES["qwen2-moe"].build()
    names = {target.parameter_name for _, _, target in read_decoder(model).targets()}
    assert not any("mlp.gate" in name.replace("gate_", "") or "shared_expert_gate" in name for name in names)
    assert any("shared_expert.gate_proj" in name for name in names)


@pytest.mark.parametrize(
    ("model_type", "settings", "router"),
    [
        ("hunyuan_v1_moe", {"num_experts": 4, "moe_topk": 2}, "mlp.gate"),
        ("afmoe", {"num_experts": 4, "moe_intermediate_size": 16, "num_dense_layers": 0}, "mlp.router"),
    ],
)
def test_routers_that_wrap_a_linear_are_left_alone_too(model_type, settings, router):
    config = AutoConfig.for_model(
        model_type,
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
        **settings,
    )
    model = AutoModelForCausalLM.from_config(config)
    names = [target.name for _, _, target in read_decoder(model).targets()]
    assert any("experts" in name for name in names)
    assert not any(f"{router}." in name for name in names)


def test_experts_stacked_in_two_dimensions_are_refused_not_passed_over():
    config = AutoConfig.for_model(
        "dbrx", d_model=32, n_heads=2, n_layers=1, vocab_size=97, ffn_config={"ffn_hidden_size": 48}
    )
    config.attn_config.rope_theta = 10000.0
    with pytest.raises(StructureError, match=r"DbrxBlock\): expected one attention module and an MLP; found"):
        read_decoder(AutoModelForCausalLM.from_config(config))


def test_choices_beyond_the_last_expert_mean_none():
    model = FAMILIES["mixtral"].build()
    experts = next(module for module in model.modules() if stacked_matrices(module))
    x, weights = torch.randn(3, 32), torch.ones(3, 2)
    with torch.no_grad(), routed_forwards(model):
        beyond = experts(x, torch.tensor([[0, 4], [4, 4], [1, 0]]), weights)
        alone = experts(x, torch.tensor([[0, 0], [0, 0], [1, 0]]), torch.tensor([[1.0, 0], [0, 0], [1, 1]]))
    torch.testing.assert_close(beyond, alone)
    assert not beyond[1].any()


def test_a_note_ends_with_its_body_even_after_an_exception():
    model = FAMILIES["mixtral"].build()
    layer = expert_layer(read_decoder(model))
    with at_rest(model):
        experts = next(module for module in layer.module.modules() if stacked_matrices(module))
        with pytest.raises(KeyboardInterrupt), noting_calls(layer.targets, lambda _: None):
            raise KeyboardInterrupt
        assert experts.forward._note is None
        assert not any(module._forward_hooks for module in layer.module.modules())


@pytest.mark.parametrize("shape", [(4, 8, 8), (32, 8)])
def test_matrices_of_an_unknown_kind_are_refused_not_passed_over(shape):
    model = FAMILIES["mixtral"].build()
    mlp = model.model.layers[1].mlp
    mlp.extra = nn.Parameter(torch.zeros(shape))
    with pytest.raises(StructureError, match=r"layers\.1.*mlp\.extra \[.*\] is no Linear's weight; expected"):
        read_decoder(model)
