"""The loss of a window is the model's own, in whatever batches it is computed."""

import pytest
import torch

from methods.patching import replaced_forward
from suite.evaluation import perplexity
from suite.evaluation.perplexity import window_losses
from tests.methods.tiny_models import make_model


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(perplexity, "TOKENS_PER_BATCH", 6 * 16)
    return torch.randint(0, 64, (14, 16), generator=torch.Generator().manual_seed(3))


def test_it_is_the_loss_the_model_gives_itself(windows):
    model = make_model("llama").eval()
    with torch.no_grad():
        expected = [float(model(input_ids=w[None], labels=w[None]).loss) for w in windows]
    assert window_losses(model, windows).tolist() == pytest.approx(expected, rel=1e-5)


def test_where_memory_runs_out_every_window_is_still_measured_once(windows):
    model = make_model("llama").eval()
    forward, done, halved = model.forward, [], []

    def short_of_memory(input_ids, **kwargs):
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **kwargs)

    expected = window_losses(model, windows)
    with replaced_forward(model, short_of_memory):
        losses = window_losses(model, windows, on_windows=done.append, on_halved=halved.append)
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert halved == [3, 1]
    assert sum(done) == 14


def test_a_window_that_does_not_fit_alone_is_an_error(windows):
    model = make_model("llama").eval()

    def no_memory(**kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with replaced_forward(model, no_memory), pytest.raises(torch.OutOfMemoryError):
        window_losses(model, windows)
