"""A model whose layers need more than the hidden states of the one before is refused before it is pruned."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from methods.errors import StructureError
from methods.masks.pattern import parse_pattern
from methods.registry import build
from tests.methods.tiny_models import make_calibration, make_model

HALF = parse_pattern("0.5")


def model_that_runs(run_layers):
    """LLaMA, with `run_layers(run, hidden)` between embeddings and norm; `run(index, hidden)` is a layer."""
    model = make_model("llama")
    body = model.model

    def forward(input_ids, **kwargs):
        hidden = body.embed_tokens(input_ids)
        rotary = body.rotary_emb(hidden, torch.arange(input_ids.shape[1])[None])

        def run(index, hidden, **more):
            return body.layers[index](hidden, position_embeddings=rotary, **more)

        return BaseModelOutputWithPast(last_hidden_state=body.norm(run_layers(run, hidden)))

    body.forward = forward
    return model


def pruned(model):
    return build("wanda").prune(model, HALF, make_calibration())


def refusal(model):
    with pytest.raises(StructureError) as refused:
        pruned(model)
    return str(refused.value)


@pytest.mark.parametrize(
    ("run_layers", "says"),
    [
        (lambda run, h: run(1, run(0, run(1, run(0, h)))), "are not run once each"),
        (lambda run, h: run(0, run(1, h)), "are not run once each"),
        (lambda run, h: run(0, h), "are not all run"),
        (lambda run, h: run(1, run(0, h) * 2), "get hidden states that were changed on the way"),
        (lambda run, h: (lambda first: run(1, first, mean=first.mean()))(run(0, h)), "are given more"),
    ],
    ids=["loops", "reversed", "skipped", "changed", "memory"],
)
def test_layers_that_do_not_follow_each_other_are_refused(run_layers, says):
    reason = refusal(model_that_runs(run_layers))
    assert says in reason
    assert reason.startswith("LlamaForCausalLM: the layers of model.layers ")


def with_a_second_output(model, made):
    """Its layers give a tuple whose second member is made of the hidden states."""
    for layer in model.model.layers:

        def forward(hidden, forward=layer.forward, **kwargs):
            output = forward(hidden, **kwargs)
            return output, made(output)

        layer.forward = forward
    return model


@pytest.mark.parametrize("made", [lambda h: h.mean(), lambda h: h.argmax(-1)], ids=["floats", "indices"])
def test_what_a_layer_gives_beside_hidden_states_may_not_reach_another_layer(made):
    def passed_on(run, hidden):
        hidden, more = run(0, hidden)
        return run(1, hidden, more=more)[0]

    assert "are given more" in refusal(with_a_second_output(model_that_runs(passed_on), made))

    model = with_a_second_output(model_that_runs(lambda run, h: run(1, run(0, h)[0])[0]), made)
    assert pruned(model).mask_digest == pruned(make_model("llama")).mask_digest


def test_a_block_that_its_layer_takes_to_pieces_is_refused():
    model = make_model("llama")
    for layer in model.model.layers:
        mlp = layer.mlp
        layer.forward = lambda hidden, mlp=mlp, **kwargs: hidden + mlp.down_proj(mlp.up_proj(hidden))
    assert "is not run as a whole" in refusal(model)


def test_layers_that_follow_each_other_are_pruned_as_ever():
    model = model_that_runs(lambda run, h: run(1, run(0, h)))
    assert pruned(model).mask_digest == pruned(make_model("llama")).mask_digest
