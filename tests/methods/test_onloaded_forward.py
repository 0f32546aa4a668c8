"""A model whose layers visit the device inside its own forward computes what it computes whole."""

import pytest
import torch
from torch import nn

from methods.base import Placement
from methods.placement.layer_loading import residing
from methods.placement.layer_storage import CheckpointStorage
from methods.placement.onloaded_forward import own_forward
from methods.structure.decoder import read_decoder
from tests.methods.test_layer_loading import prefetching_threads, save_layers, without_layers
from tests.methods.tiny_models import make_model

FAMILIES = ("llama", "llama-tied", "opt", "gpt2", "gpt-oss")
TOKENS = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_generated_tokens_are_the_same(family, tmp_path):
    whole = make_model(family).eval()
    storage = CheckpointStorage(save_layers(whole, tmp_path), None)
    model = without_layers(make_model(family).eval())
    held = {name: id(value) for name, value in model.named_parameters()}
    asked = {"attention_mask": torch.ones_like(TOKENS), "max_new_tokens": 5, "do_sample": False}
    with own_forward(model, Placement(weights="onload", storage=storage)), torch.inference_mode():
        logits = model(input_ids=TOKENS).logits
        generated = model.generate(TOKENS, **asked)
    with torch.inference_mode():
        assert torch.equal(logits, whole(input_ids=TOKENS).logits)
        assert torch.equal(generated, whole.generate(TOKENS, **asked))
    assert {name: id(value) for name, value in model.named_parameters()} == held
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert prefetching_threads() == []


def test_a_resident_model_is_left_alone():
    model = make_model("llama").eval()
    with own_forward(model, Placement()):
        assert not any("forward" in module.__dict__ for module in model.modules())


def test_what_is_around_the_layers_is_there_and_tied_tensors_are_one(tmp_path):
    model = make_model("llama-tied")
    model = without_layers(model)
    storage = CheckpointStorage(save_layers(make_model("llama-tied"), tmp_path), None)
    decoder = read_decoder(model)
    placement = Placement(weights="onload", storage=storage)
    with residing(model, decoder, placement) as residence, residence.around_layers():
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        assert head.weight.data_ptr() == embedding.weight.data_ptr()
        assert all(p.device.type == "meta" for p in decoder.layers[0].module.parameters())


def test_a_layer_that_fails_leaves_the_model_as_it_was(tmp_path):
    model = without_layers(make_model("llama"))
    storage = CheckpointStorage(save_layers(make_model("llama"), tmp_path), None)

    class Broken(nn.Module):
        def forward(self, *args):
            raise RuntimeError("out of order")

    model.model.layers[1].mlp.act_fn = Broken()
    onloading = own_forward(model, Placement(weights="onload", storage=storage))
    with pytest.raises(RuntimeError, match="out of order"), torch.no_grad(), onloading:
        model(input_ids=TOKENS)
    assert all(p.device.type == "meta" for p in model.model.layers[1].parameters())
    assert prefetching_threads() == []
