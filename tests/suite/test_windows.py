"""What a pass over windows measures is the model's own, in whatever batches, and in two halves as in one."""

import math

import pytest
import torch

from methods.base import Placement
from methods.conformance import FAMILIES
from methods.structure.forward_override import replaced_forward
from suite.evaluation.scoring import windows as windows_module
from suite.evaluation.scoring.decoder_pass import steps_each
from suite.evaluation.scoring.divergence import token_divergence
from suite.evaluation.scoring.output_head import HeadError, OutputHead
from suite.evaluation.scoring.windows import score_windows
from tests.methods.tiny_models import make_model
from tests.tiny import short_of_memory

ONLOAD = Placement(weights="onload")


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(windows_module, "HOST_TOKENS", 6 * 16)
    monkeypatch.setattr(windows_module, "TOKENS_PER_CHUNK", 7)
    return torch.randint(0, 64, (14, 16), generator=torch.Generator().manual_seed(3))


def plain_losses(model, windows):
    """Perplexity's ten lines: the whole window's logits, one window at a time."""
    losses = []
    with torch.no_grad():
        for tokens in windows:
            logits = model(input_ids=tokens[None]).logits[0, :-1].double()
            log_p = logits - logits.exp().sum(-1, keepdim=True).log()
            picked = [log_p[place, token] for place, token in enumerate(tokens[1:].tolist())]
            losses.append(-float(torch.stack(picked).mean()))
    return losses


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_perplexity_of_every_family_is_that_of_a_plain_implementation(windows, family):
    model = make_model(family).eval()
    losses = score_windows(model, windows).nll.tolist()
    expected = plain_losses(model, windows)
    assert losses == pytest.approx(expected, abs=2e-6)
    ours, theirs = (math.exp(sum(nll) / len(nll)) for nll in (losses, expected))
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("placement", [Placement(), ONLOAD], ids=["resident", "onload"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_head_that_outlives_its_model_gives_the_same_logits(windows, family, placement):
    model = make_model(family).eval()
    kept = score_windows(model, windows, placement=placement, keep_hidden=True, keep_head=True)
    expected = OutputHead(model, windows[0])
    expected.hidden(windows[:1])
    logits = expected.logits(kept.hidden[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(kept.head.logits(kept.hidden[0]), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_does_not_diverge_from_itself(windows, dtype):
    model = make_model("llama", dtype).eval()
    dense = score_windows(model, windows, keep_hidden=True)
    again = score_windows(model, windows, dense_hidden=dense.hidden)
    assert again.kl.tolist() == [0.0] * len(windows)
    assert again.agreement.tolist() == [1.0] * len(windows)
    assert again.nll.tolist() == dense.nll.tolist()


def test_divergence_is_that_of_both_models_logits(windows):
    dense, pruned = make_model("gemma2").eval(), make_model("gemma2").eval()
    with torch.no_grad():
        for name, weight in pruned.named_parameters():
            if name.endswith("down_proj.weight"):
                weight[:, ::2] = 0.0
    hidden = score_windows(dense, windows, keep_hidden=True).hidden
    scores = score_windows(pruned, windows, dense_hidden=hidden)
    with torch.no_grad():
        p = dense(input_ids=windows).logits[:, :-1].double().log_softmax(-1)
        q = pruned(input_ids=windows).logits[:, :-1].double().log_softmax(-1)
    kl = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean(-1)
    agreement = (p.argmax(-1) == q.argmax(-1)).double().mean(-1)
    assert scores.kl.tolist() == pytest.approx(kl.tolist(), rel=1e-3, abs=1e-7)
    assert scores.agreement.tolist() == pytest.approx(agreement.tolist())
    assert float(scores.kl.min()) > 0


def test_one_changed_logit_is_found():
    dense = torch.randn(5, 97, generator=torch.Generator().manual_seed(1))
    changed = dense.clone()
    changed[3, int(dense[3].argmin())] = dense[3].max() + 1
    kl, same = token_divergence(dense, changed)
    assert kl[[0, 1, 2, 4]].tolist() == [0.0] * 4
    assert kl[3] > 0.1
    assert same.tolist() == [True, True, True, False, True]


def test_a_token_the_dense_model_rules_out_adds_nothing():
    dense = torch.tensor([[0.0, -float("inf"), 1.0]])
    kl, _ = token_divergence(dense, torch.tensor([[0.0, 5.0, 1.0]]))
    expected = math.log((1 + math.exp(5) + math.e) / (1 + math.e))
    assert kl.tolist() == pytest.approx([expected], rel=1e-5)


def test_where_memory_runs_out_every_window_is_still_measured_once(windows):
    model = make_model("llama").eval()
    done = []
    expected = score_windows(model, windows, keep_hidden=True)
    with short_of_memory(model.base_model, 2):
        scores = score_windows(
            model,
            windows,
            dense_hidden=expected.hidden,
            on_windows=done.append,
        )
    assert scores.nll.tolist() == pytest.approx(expected.nll.tolist(), rel=1e-5)
    assert scores.kl.shape == scores.agreement.shape == (14,)
    assert scores.remarks == ("memory ran out; it went on with batches of 1 windows",)
    assert sum(done) == 14


def test_a_window_that_does_not_fit_alone_is_an_error(windows):
    model = make_model("llama").eval()

    def no_memory(input_ids, **kwargs):
        if input_ids.shape[1] > 15:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **kwargs)

    forward = model.base_model.forward
    with replaced_forward(model.base_model, no_memory), pytest.raises(torch.OutOfMemoryError):
        score_windows(model, torch.cat([windows, windows], dim=1))


def test_a_ruined_model_has_losses_that_say_so(windows):
    model = make_model("llama").eval()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    scores = score_windows(model, windows, keep_hidden=True)
    assert all(math.isnan(nll) for nll in scores.nll.tolist())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_layer_by_layer_a_model_is_measured_as_by_its_own_forward(windows, family):
    model = make_model(family).eval()
    done = []
    expected = score_windows(model, windows, keep_hidden=True)
    scores = score_windows(model, windows, placement=ONLOAD, keep_hidden=True, on_windows=done.append)
    assert scores.nll.tolist() == pytest.approx(expected.nll.tolist(), abs=1e-5)
    torch.testing.assert_close(scores.hidden, expected.hidden, rtol=0, atol=1e-5)
    assert sum(done) == len(windows) * steps_each(model, ONLOAD)
    again = score_windows(model, windows, placement=ONLOAD, dense_hidden=expected.hidden)
    assert again.kl.tolist() == pytest.approx([0.0] * len(windows), abs=1e-5)
    assert scores.remarks == ()
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layer_by_layer_rounds_as_the_own_forward_does(windows, dtype):
    model = make_model("opt", dtype).eval()
    expected = score_windows(model, windows, keep_hidden=True)
    scores = score_windows(model, windows, placement=ONLOAD, keep_hidden=True)
    assert scores.nll.tolist() == expected.nll.tolist()
    assert torch.equal(scores.hidden, expected.hidden)


def test_a_model_of_one_layer_is_measured_layer_by_layer(windows):
    config = make_model("llama").config
    config.num_hidden_layers, config.layer_types = 1, None
    model = type(make_model("llama"))(config).eval()
    expected = score_windows(model, windows)
    assert score_windows(model, windows, placement=ONLOAD).nll.tolist() == expected.nll.tolist()


def test_layer_by_layer_a_ruined_model_has_losses_that_say_so(windows):
    model = make_model("llama").eval()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    scores = score_windows(model, windows, placement=ONLOAD)
    assert all(math.isnan(nll) for nll in scores.nll.tolist())


def test_where_a_layer_runs_out_of_memory_it_goes_on_with_smaller_batches(windows):
    model = make_model("llama").eval()
    expected = score_windows(model, windows)
    done = []
    with short_of_memory(model.model.layers[1], 2):
        scores = score_windows(model, windows, placement=ONLOAD, on_windows=done.append)
    assert scores.nll.tolist() == pytest.approx(expected.nll.tolist(), rel=1e-5)
    assert scores.remarks == (
        "memory ran out with batches of 6 sequences; it went on with 3",
        "memory ran out with batches of 3 sequences; it went on with 2",
    )
    assert sum(done) == len(windows) * steps_each(model, ONLOAD)


def test_a_head_that_does_something_nobody_foresaw_is_refused():
    model = make_model("llama").eval()
    forward = model.forward

    def remembers_the_input(input_ids, **kwargs):
        output = forward(input_ids=input_ids, **kwargs)
        output.logits = output.logits + input_ids[..., None]
        return output

    with replaced_forward(model, remembers_the_input), pytest.raises(HeadError, match="gives other logits"):
        OutputHead(model, torch.arange(10, 26))
