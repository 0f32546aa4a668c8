"""The stream replays what the model does, batch by batch, and leaves nothing of itself behind."""

from contextlib import ExitStack, contextmanager

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma3TextConfig,
    MistralConfig,
    PreTrainedModel,
)

from methods.base import CalibrationSet, Placement
from methods.engine.hidden_states import LayerStream, at_rest, relative_error
from methods.engine.statistics import GramMatrix, SharedInputs
from methods.errors import NonFiniteError
from methods.placement.layer_loading import Resident
from methods.structure.decoder import read_decoder
from methods.structure.forward_override import replaced_forward
from tests.methods.tiny_models import FAMILIES, make_calibration, make_model

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OTHER_FAMILIES = {
    "mistral": MistralConfig(**SMALL, intermediate_size=64, num_key_value_heads=2, sliding_window=8),
    "gemma3": Gemma3TextConfig(
        **SMALL,
        intermediate_size=64,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "falcon": FalconConfig(**SMALL),
}


def other_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(OTHER_FAMILIES[family]).eval()


def head_of(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """The logits that the model makes of its last decoder layer's output."""
    if hasattr(model.model, "decoder"):
        decoder = model.model.decoder
        if decoder.final_layer_norm is not None:
            hidden = decoder.final_layer_norm(hidden)
        if decoder.project_out is not None:
            hidden = decoder.project_out(hidden)
        return model.lm_head(hidden)
    return model.lm_head(model.model.norm(hidden))


def logits_by_stream(model: PreTrainedModel, calibration: CalibrationSet, batch_size: int) -> torch.Tensor:
    decoder = read_decoder(model)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, calibration, Resident(model, decoder, Placement(batch_size))
        )
        for layer in decoder.layers:
            stream.advance(layer)
        return torch.cat([head_of(model, hidden) for hidden in stream.hidden])


@contextmanager
def left_as_it_was(model: PreTrainedModel):
    """Asserts that hooks, forwards and modes are the same after the body as before."""

    def state():
        return {
            name: (
                module.training,
                len(module._forward_hooks),
                len(module._forward_pre_hooks),
                len(module._backward_hooks),
                module.__dict__.get("forward"),
            )
            for name, module in model.named_modules()
        }

    before = state()
    yield
    assert state() == before


@contextmanager
def failing(module: torch.nn.Module, error: BaseException, on_call: int = 0):
    """Makes `module` raise when it is entered for the `on_call`-th time, counted from 0."""
    calls = iter(range(1000))

    def fail(*_):
        if next(calls) == on_call:
            raise error

    hook = module.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


def arguments_of(layer, stream: LayerStream, batch: int) -> dict[str, object]:
    """What the stream passes to a decoder layer besides the hidden states, tuples laid out flat."""
    seen: dict[str, object] = {}

    def note(_, args, kwargs):
        for name, value in [*enumerate(args[1:]), *kwargs.items()]:
            for place, member in enumerate(value if isinstance(value, tuple) else (value,)):
                seen[f"{name}.{place}"] = member

    hook = layer.module.register_forward_pre_hook(note, with_kwargs=True)
    stream.forward(layer, batch)
    hook.remove()
    return seen


@pytest.mark.parametrize("batch_size", [1, 2, 5, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_through_all_layers_and_the_head_come_the_models_own_logits(family, batch_size):
    model, calibration = make_model(family).eval(), make_calibration()
    with torch.no_grad():
        expected = model(input_ids=calibration.input_ids, use_cache=False).logits
    torch.testing.assert_close(
        logits_by_stream(model, calibration, batch_size), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_masks_and_positions_that_differ_by_layer_are_replayed_as_given(family):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(OTHER_FAMILIES[family]).eval()
    decoder, calibration = read_decoder(model), make_calibration()
    entered: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in decoder.layers}
    with ExitStack() as hooks, torch.no_grad():
        for layer in decoder.layers:

            def note(_, args, name=layer.name):
                entered[name].append(args[0])

            hooks.callback(layer.module.register_forward_pre_hook(note).remove)
        for batch in calibration.input_ids.split(2):
            model(input_ids=batch, use_cache=False)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, calibration, Resident(model, decoder, Placement(2))
        )
        for layer in decoder.layers:
            for ours, own in zip(stream.hidden, entered[layer.name], strict=True):
                torch.testing.assert_close(ours, own)
            stream.advance(layer)


def test_the_stream_passes_through_the_weights_a_layer_has_now():
    model, calibration = make_model("llama").eval(), make_calibration()
    decoder = read_decoder(model)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, calibration, Resident(model, decoder, Placement(2))
        )
        for layer in decoder.layers:
            for target in layer.targets.values():
                target.weight[:, ::2] = 0
            stream.advance(layer)
        ours = torch.cat([head_of(model, hidden) for hidden in stream.hidden])
        torch.testing.assert_close(ours, model(input_ids=calibration.input_ids).logits, rtol=1e-4, atol=1e-5)


def test_the_last_batch_may_be_smaller():
    model = make_model("llama")
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model,
            read_decoder(model),
            make_calibration(n_samples=5),
            Resident(model, read_decoder(model), Placement(2)),
        )
    assert [stream.n_samples(batch) for batch in range(stream.n_batches)] == [2, 2, 1]
    assert [tuple(hidden.shape) for hidden in stream.hidden] == [(2, 24, 64), (2, 24, 64), (1, 24, 64)]


def test_left_to_itself_a_batch_is_as_large_as_keeps_the_device_busy():
    assert Placement().batch_size_for(128) == 16
    assert Placement().batch_size_for(128, torch.device("cuda")) == 128
    assert Placement().batch_size_for(5000) == 1
    assert Placement(7).batch_size_for(5000) == 7


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3"])
def test_equal_arguments_of_different_batches_are_held_once(family):
    torch.manual_seed(0)
    model = (
        make_model(family) if family in FAMILIES else AutoModelForCausalLM.from_config(OTHER_FAMILIES[family])
    )
    decoder = read_decoder(model)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, make_calibration(n_samples=6), Resident(model, decoder, Placement(2))
        )
        tensors = {}
        for layer in decoder.layers:
            first, *others = (arguments_of(layer, stream, batch) for batch in range(3))
            for name, value in first.items():
                if isinstance(value, torch.Tensor):
                    tensors[name] = value
                    assert all(other[name] is value for other in others), f"{layer.name}: {name}"
        assert tensors


def test_each_block_is_seen_with_what_goes_in_and_what_comes_out():
    for family in FAMILIES:
        model = make_model(family)
        decoder = read_decoder(model)
        with at_rest(model):
            stream = LayerStream.of_calibration(
                model, decoder, make_calibration(), Resident(model, decoder, Placement(2))
            )
            layer = decoder.layers[0]
            output, calls = stream.calls_of(layer, 1)
            assert torch.equal(output, stream.forward(layer, 1))
            for block, call in zip(layer.blocks, calls, strict=True):
                torch.testing.assert_close(block.run({}, call.args, call.kwargs), call.output)
                alone = stream.call_of(layer, 1, block)
                torch.testing.assert_close(alone.output, call.output)


def test_a_call_of_attention_ends_before_the_mlp_is_run():
    model = make_model("llama")
    decoder = read_decoder(model)
    layer = decoder.layers[0]
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, make_calibration(), Resident(model, decoder, Placement(2))
        )
        with failing(layer.module.mlp, AssertionError("the MLP was run")):
            stream.call_of(layer, 0, layer.blocks[0])


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_recording_that_fails_leaves_every_forward_as_it_was(error):
    model = make_model("llama").train()
    with (
        failing(model.model.embed_tokens, error, on_call=1),
        left_as_it_was(model),
        pytest.raises(type(error)),
        at_rest(model),
    ):
        LayerStream.of_calibration(
            model, read_decoder(model), make_calibration(), Resident(model, read_decoder(model), Placement(2))
        )
    with failing(model.model.layers[0].mlp, error), left_as_it_was(model), pytest.raises(type(error)):
        # The first layer is run once, to see what kind of output it gives.
        LayerStream.of_calibration(
            model, read_decoder(model), make_calibration(), Resident(model, read_decoder(model), Placement(2))
        )


def test_a_forward_that_a_user_replaced_is_his_again():
    model = make_model("opt")
    layer = model.model.decoder.layers[1]
    inner = layer.forward
    layer.forward = lambda *args, **kwargs: inner(*args, **kwargs)
    with left_as_it_was(model), at_rest(model):
        LayerStream.of_calibration(
            model, read_decoder(model), make_calibration(), Resident(model, read_decoder(model), Placement(2))
        )


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    "walk",
    [
        lambda stream, layer: stream.forward(layer, 0),
        lambda stream, layer: stream.calls_of(layer, 0),
        lambda stream, layer: stream.call_of(layer, 0, layer.blocks[1]),
        lambda stream, layer: stream.advance(layer),
    ],
    ids=["forward", "calls_of", "call_of", "advance"],
)
def test_an_exception_in_the_middle_of_a_layer_leaves_nothing_behind(walk, error):
    for family in ("llama", "opt"):
        model = make_model(family).train()
        decoder = read_decoder(model)
        layer = decoder.layers[0]
        down = list(layer.targets.values())[-1]
        with left_as_it_was(model), at_rest(model):
            stream = LayerStream.of_calibration(
                model, decoder, make_calibration(), Resident(model, decoder, Placement(2))
            )
            collecting = SharedInputs(layer.targets, GramMatrix.of).collecting()
            with failing(down.module, error), pytest.raises(type(error)), collecting:
                walk(stream, layer)


def test_outputs_that_are_not_finite_are_an_error_that_names_the_layer():
    model = make_model("llama")
    decoder = read_decoder(model)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, make_calibration(), Resident(model, decoder, Placement(2))
        )
        stream.hidden[1][0, 3, 5] = float("inf")
        with pytest.raises(NonFiniteError, match=r"model\.layers\.0: its outputs"):
            stream.advance(decoder.layers[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_q_k_and_v_and_gate_and_up_share_one_statistic(family):
    model = make_model(family)
    decoder = read_decoder(model)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, make_calibration(), Resident(model, decoder, Placement(2))
        )
        layer = decoder.layers[0]
        shared = SharedInputs(layer.targets, GramMatrix.of)
        for batch in range(stream.n_batches):
            with shared.collecting():
                stream.forward(layer, batch)
    groups = {frozenset(name.rsplit(".", 1)[1] for name in group) for group in shared.groups.values()}
    expected = (
        {("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)}
        if family == "llama"
        else {("q_proj", "k_proj", "v_proj"), ("out_proj",), ("fc1",), ("fc2",)}
    )
    assert groups == {frozenset(group) for group in expected}


def test_modes_come_back_module_by_module_even_after_an_exception():
    model = make_model("llama").train()
    model.model.layers[1].mlp.eval()
    with left_as_it_was(model):
        with at_rest(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled()
        with pytest.raises(KeyboardInterrupt), at_rest(model):
            raise KeyboardInterrupt


def test_a_relative_error_is_squared_and_relative_to_the_reference():
    reference = torch.tensor([3.0, 4.0])
    assert relative_error(reference, reference) == 0
    assert relative_error(torch.zeros(2), reference) == 1
    assert relative_error(torch.tensor([3.0, 9.0]), reference) == 1
    assert relative_error(torch.tensor([3.0, 4.5]), reference) == pytest.approx(0.01)


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_FAMILIES])
def test_moving_on_with_kept_attention_is_moving_on(family):
    """What was kept while the MLP was looked at gives the same outputs as running it again."""
    model = make_model(family) if family in FAMILIES else other_model(family)
    decoder, calibration = read_decoder(model), make_calibration(n_samples=6)
    with at_rest(model):
        plain, keeping = (
            LayerStream.of_calibration(model, decoder, calibration, Resident(model, decoder, Placement(2)))
            for _ in range(2)
        )
        for layer in decoder.layers:
            for batch in range(keeping.n_batches):
                keeping.call_of(layer, batch, layer.blocks[1])
            runs: list[None] = []
            attention = layer.blocks[0].exit
            with replaced_forward(attention, counting(attention.forward, runs)):
                probe = keeping.advance(layer)
            # The first time of all it is run once more, to see that it is asked for once.
            assert len(runs) == (1 if layer.index == 0 else 0)
            for kept, again in zip(probe, plain.advance(layer), strict=True):
                torch.testing.assert_close(kept, again)
        for kept, again in zip(keeping.hidden, plain.hidden, strict=True):
            torch.testing.assert_close(kept, again)


def counting(forward, runs: list[None]):
    def count(*args, **kwargs):
        runs.append(None)
        return forward(*args, **kwargs)

    return count


def test_attention_that_is_asked_for_twice_is_not_kept():
    model, calibration = make_model("llama"), make_calibration(n_samples=6)
    decoder = read_decoder(model)
    for layer in decoder.layers:
        layer.module.forward = twice(layer.module)
    with at_rest(model):
        plain, keeping = (
            LayerStream.of_calibration(model, decoder, calibration, Resident(model, decoder, Placement(2)))
            for _ in range(2)
        )
        for layer in decoder.layers:
            for batch in range(keeping.n_batches):
                keeping.call_of(layer, batch, layer.blocks[1])
            keeping.advance(layer)
            plain.advance(layer)
        for kept, again in zip(keeping.hidden, plain.hidden, strict=True):
            torch.testing.assert_close(kept, again)


def twice(layer: torch.nn.Module):
    """A layer that runs its attention once more after its MLP."""
    forward = layer.forward

    def run(hidden, *args, **kwargs):
        output = forward(hidden, *args, **kwargs)
        return output + layer.self_attn(hidden_states=layer.input_layernorm(output), **kwargs)[0]

    return run


def test_what_a_block_gave_is_not_changed_by_what_its_layer_does_with_it():
    """Falcon adds the attention's output to the MLP's in place."""
    model, calibration = other_model("falcon"), make_calibration(n_samples=2)
    decoder = read_decoder(model)
    with at_rest(model):
        stream = LayerStream.of_calibration(
            model, decoder, calibration, Resident(model, decoder, Placement(2))
        )
        layer = decoder.layers[0]
        alone = stream.call_of(layer, 0, layer.blocks[1]).output
        torch.testing.assert_close(stream.calls_of(layer, 0)[1][1].output, alone)
