"""What LLM-Barber asks of a block is what autograd finds, sample by sample; and so are the masks it makes."""

import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from methods.base import Placement
from methods.engine.block_gradient import BlockStudy, _gradients, study_block
from methods.engine.hidden_states import LayerStream, at_rest, relative_error
from methods.errors import InputError, NonFiniteError, StructureError
from methods.masks.pattern import parse_pattern
from methods.placement.layer_loading import Resident
from methods.registry import build
from methods.structure.decoder import DecoderLayer, read_decoder
from tests.methods import oracles
from tests.methods.tiny_models import make_calibration, make_model

FAMILIES = ["llama", "opt", "opt-post-norm"]


def half_pruned(
    family: str, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """A model whose targets lost every other weight, and the dense weights."""
    model = make_model(family, dtype).eval()
    dense = {target.name: target.weight.clone() for _, _, target in read_decoder(model).targets()}
    for _, _, target in read_decoder(model).targets():
        flat = target.weight.view(-1)
        flat[::2] = 0
    return model, dense


def study(
    model: PreTrainedModel,
    dense: dict[str, torch.Tensor],
    index: int,
    position: int,
    *,
    gradients: bool = True,
    batch_size: int = 2,
) -> tuple[BlockStudy, DecoderLayer, LayerStream]:
    """Studies block `position` of layer `index` on the stream that the model as it is makes."""
    decoder = read_decoder(model)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, make_calibration(), Resident(model, decoder, Placement(batch_size))
        )
        for layer in decoder.layers[:index]:
            stream.advance(layer)
        layer = decoder.layers[index]
        block = layer.blocks[position]
        result = study_block(
            stream, layer, block, {name: dense[name] for name in block.targets}, gradients=gradients
        )
    return result, layer, stream


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("position", [0, 1], ids=["attention", "mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_autograd_one_sample_at_a_time(family, position, index):
    model, dense = half_pruned(family)
    plain = copy.deepcopy(model)
    found, _, _ = study(model, dense, index, position)

    block = oracles.plain_blocks(plain)[index][position]
    calls = oracles.calls_of(plain, block, make_calibration().input_ids)
    expected = oracles.squared_gradients(block, dense, calls)
    assert found.squared_gradients.keys() == expected.keys()
    # The mean over T x F squared differences has 2 / (T x F) times the gradient of half their sum.
    factor = (2 / calls[0].output.numel()) ** 2
    for name in expected:
        ours = found.squared_gradients[name].double().numpy() * factor
        np.testing.assert_allclose(ours, expected[name], rtol=1e-3, atol=1e-5 * expected[name].max())


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_the_size_of_a_batch_does_not_matter(batch_size):
    two, _, _ = study(*half_pruned("llama"), 0, 1)
    other, _, _ = study(*half_pruned("llama"), 0, 1, batch_size=batch_size)
    for name, value in two.squared_gradients.items():
        torch.testing.assert_close(
            other.squared_gradients[name], value, rtol=1e-3, atol=1e-5 * float(value.max())
        )


def test_half_precision_does_not_underflow():
    exact, _, _ = study(*half_pruned("llama"), 0, 0)
    for dtype in (torch.bfloat16, torch.float16):
        found, _, _ = study(*half_pruned("llama", dtype), 0, 0)
        for name, value in found.squared_gradients.items():
            assert value.dtype == torch.float32
            assert float((value == 0).float().mean()) < 0.01
            # Gradients are noisy in these dtypes; on the whole they agree.
            both = torch.stack([value.flatten(), exact.squared_gradients[name].flatten()])
            assert float(torch.corrcoef(both.sqrt())[0, 1]) > 0.9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", [0, 1], ids=["attention", "mlp"])
def test_the_probe_is_the_dense_block_on_the_sparse_layers_input(family, position):
    model, dense = half_pruned(family)
    plain = copy.deepcopy(model)
    block = oracles.plain_blocks(plain)[1][position]
    calls = oracles.calls_of(plain, block, make_calibration().input_ids[:2])
    for name, linear in block.linears.items():
        linear.weight.data = dense[name].clone()
    with torch.no_grad():
        outputs = [block.run(*call.args, **call.kwargs) for call in calls]
    expected = torch.cat([o[0] if isinstance(o, tuple) else o for o in outputs])
    for gradients in (True, False):
        found, _, _ = study(model, dense, 1, position, gradients=gradients)
        torch.testing.assert_close(found.dense_probe.reshape(expected.shape), expected, rtol=1e-4, atol=1e-6)
        sparse = torch.cat([call.output for call in calls])
        assert found.error_before == pytest.approx(relative_error(sparse, expected), rel=1e-3)
        assert bool(found.squared_gradients) == gradients


def test_a_block_that_is_still_dense_has_no_error_and_no_gradient():
    model, _ = half_pruned("llama")
    own = {target.name: target.weight.clone() for _, _, target in read_decoder(model).targets()}
    found, _, _ = study(model, own, 0, 1)
    assert found.error_before < 1e-10
    assert all(float(value.max()) < 1e-10 for value in found.squared_gradients.values())


def test_the_model_and_its_gradients_are_left_alone():
    model, dense = half_pruned("opt")
    before = copy.deepcopy(model.state_dict())
    for position in (0, 1):
        study(model, dense, 0, position)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_an_exception_while_gradients_are_formed_leaves_no_hook():
    model, dense = half_pruned("llama")
    down = model.model.layers[0].mlp.down_proj
    calls = iter(range(100))

    def fail(*_):
        # Call 0 is the layer's own, call 1 the check that the block can be run alone.
        if next(calls) == 2:
            raise KeyboardInterrupt

    hook = down.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        study(model, dense, 0, 1)
    hook.remove()
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled()


def test_gradients_that_are_not_finite_are_an_error_that_names_the_module():
    model, dense = half_pruned("llama")
    dense["model.layers.0.mlp.down_proj"][:] = 1e30
    with pytest.raises(NonFiniteError, match=r"model\.layers\.0\.mlp\.\w+_proj: its gradients"):
        study(model, dense, 0, 1)


def test_a_block_that_does_otherwise_inside_its_layer_is_refused():
    model, dense = half_pruned("llama")
    calls = iter(range(100))
    # An MLP that remembers how often it was called cannot be studied by itself.
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, output: output + next(calls))
    with pytest.raises(StructureError, match=r"model\.layers\.0: its mlp, run by itself, differs"):
        study(model, dense, 0, 1)


REBUILDS = [
    ("llama", "0.5", {"initial": "wanda", "granularity": "output", "rebuild_ratio": 0.3}),
    ("llama", "0.5", {"initial": "magnitude", "granularity": "block", "rebuild_ratio": 0.1}),
    ("llama", "0.7", {"initial": "sparsegpt", "granularity": "layer", "rebuild_ratio": 0.1}),
    (
        "llama",
        "0.5",
        {
            "initial": "sparsegpt",
            "granularity": "output",
            "rebuild_ratio": 0.2,
            "keep_reconstruction": True,
        },
    ),
    ("llama", "2:4", {"initial": "wanda", "rebuild_ratio": 0.5}),
    ("llama", "2:4", {"initial": "wanda", "rebuild_ratio": 0.5, "nm_guard": False}),
    ("llama", "0.5", {"score": "weight", "initial": "wanda", "rebuild_ratio": 0.5}),
    ("llama", "0.5", {"score": "gradient", "rebuild_ratio": 0.3}),
    ("opt", "0.5", {"initial": "wanda", "granularity": "input", "rebuild_ratio": 0.3}),
    ("opt", "0.5", {"initial": "magnitude", "granularity": "block", "rebuild_ratio": 0.1}),
    ("opt", "4:8", {"initial": "sparsegpt", "rebuild_ratio": 0.5, "keep_reconstruction": True}),
    ("opt-post-norm", "0.5", {"initial": "wanda", "granularity": "layer", "rebuild_ratio": 0.3}),
]


@pytest.mark.parametrize(("family", "pattern", "settings"), REBUILDS, ids=str)
def test_a_whole_model_is_rebuilt_as_the_oracle_rebuilds_it(family, pattern, settings):
    calibration, placement = make_calibration(), Placement(2)
    model, plain = make_model(family).eval(), make_model(family).eval()
    dense = {target.name: target.weight.clone() for _, _, target in read_decoder(plain).targets()}
    result = build("llm-barber", settings).prune(
        model, parse_pattern(pattern), calibration, placement=placement
    )
    build(settings.get("initial", "wanda")).prune(
        plain, parse_pattern(pattern), calibration, placement=placement
    )
    initial = {name: result.initial.keep[f"{name}.weight"].unpack().numpy() for name in dense}
    expected = oracles.barber_prune(
        plain,
        dense,
        initial,
        calibration.input_ids,
        pattern=pattern,
        granularity=settings.get("granularity", "output"),
        ratio=str(settings["rebuild_ratio"]),
        score=settings.get("score", "weight_gradient"),
        keep_reconstruction=settings.get("keep_reconstruction", False),
        guard=settings.get("nm_guard", True),
    )
    both = either = 0
    for report in result.layers:
        name = report.module
        ours = result.keep[f"{name}.weight"].unpack().numpy()
        both += int(((ours ^ initial[name]) & (expected[name] ^ initial[name])).sum())
        either += int(((ours ^ initial[name]) | (expected[name] ^ initial[name])).sum())
        assert report.swaps == int((ours & ~initial[name]).sum())
        agree = ours == expected[name]
        weight = model.get_parameter(f"{name}.weight").detach()
        torch.testing.assert_close(weight[agree], plain.get_parameter(f"{name}.weight").detach()[agree])
    assert either > 100
    assert both >= 0.99 * either


def test_a_rebuild_by_the_authors_settings_lowers_the_error_of_the_blocks():
    result = build(
        "llm-barber", {"initial": "magnitude", "granularity": "block", "rebuild_ratio": 0.1}
    ).prune(make_model("llama"), parse_pattern("0.5"), make_calibration())
    before, after = (
        sum(getattr(report, f"error_{when}") for report in result.layers) for when in ("before", "after")
    )
    assert after < before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rebuild_ratio": 1.1}, r"rebuild_ratio 1\.1 is outside \[0, 1\]"),
        ({"rebuild_ratio": -0.1}, "outside"),
        ({"rebuild_ratio": float("nan")}, "rebuild_ratio"),
        ({"initial": "llm-barber"}, "its own initial method"),
        ({"initial": "wandaa"}, "did you mean 'wanda'"),
        ({"initial": "wanda", "initial_settings": {"damping": 0.1}}, "has no setting 'damping'"),
        ({"granularity": "row"}, "granularity cannot be 'row'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_run(settings, said):
    with pytest.raises(InputError, match=said):
        build("llm-barber", settings)


def test_settings_of_the_initial_method_reach_it():
    settings = {"initial": "sparsegpt", "initial_settings": {"damping": 0.25}, "rebuild_ratio": 0.1}
    result = build("llm-barber", settings).prune(
        make_model("llama"), parse_pattern("0.5"), make_calibration()
    )
    assert {report.damping for report in result.layers} == {0.25}


def test_gradients_are_asked_for_in_a_deterministic_way_and_the_setting_comes_back():
    x = torch.ones(3, requires_grad=True)
    seen: list[bool] = []
    y = Watched.apply(x, seen)
    assert torch.equal(_gradients(y, [x], torch.ones(3))[0], torch.full((3,), 2.0))
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_an_operator_that_has_no_deterministic_way_is_differentiated_all_the_same():
    x = torch.ones(3, requires_grad=True)
    seen: list[bool] = []
    y = Watched.apply(x, seen, True)
    assert torch.equal(_gradients(y, [x], torch.ones(3))[0], torch.full((3,), 2.0))
    assert seen == [True, False]


def test_other_errors_of_a_backward_are_raised():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="shape"):
        _gradients(2 * x, [x], torch.ones(4))


class Watched(torch.autograd.Function):
    """2 x; notes whether its backward was to be deterministic, and may have no such way."""

    @staticmethod
    def forward(ctx, x, seen, refuses=False):
        ctx.seen, ctx.refuses = seen, refuses
        return 2 * x

    @staticmethod
    def backward(ctx, dy):
        asked = torch.are_deterministic_algorithms_enabled()
        ctx.seen.append(asked)
        if asked and ctx.refuses:
            raise RuntimeError("histc does not have a deterministic implementation")
        return 2 * dy, None, None
