"""Memory that runs out costs time and a warning, never a mask."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from methods.allocations.owl import OWL
from methods.base import Placement
from methods.engine.hidden_states import LayerStream
from methods.masks.pattern import parse_pattern
from methods.placement.out_of_memory import is_out_of_memory
from methods.registry import build
from methods.structure.decoder import read_decoder
from methods.structure.forward_override import replaced_forward
from tests.methods.tiny_models import make_calibration, make_model

METHODS = [
    ("wanda", {}),
    ("sparsegpt", {}),
    ("llm-barber", {"rebuild_ratio": 0.5}),
    ("dsnot", {}),
]


@contextmanager
def memory_for(model, n_samples: int, *, layer: int = 0, forwards: int = 0) -> Iterator[list[int]]:
    """The MLP of one layer has memory for so many samples, except for its first few forwards.

    Gives the sizes of the batches that it saw.
    """
    mlp = read_decoder(model).layers[layer].blocks[1].entry
    forward = mlp.forward
    seen: list[int] = []

    def short_of_memory(x, *args, **kwargs):
        seen.append(len(x))
        if len(seen) > forwards and len(x) > n_samples:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(x, *args, **kwargs)

    with replaced_forward(mlp, short_of_memory):
        yield seen


@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_batches_are_halved_until_they_fit(name, settings):
    calibration = make_calibration(n_samples=8)
    model = make_model("llama")
    with memory_for(model, 2):
        result = build(name, settings).prune(model, parse_pattern("0.5"), calibration, placement=Placement(8))
    expected = build(name, settings).prune(
        make_model("llama"), parse_pattern("0.5"), calibration, placement=Placement(2)
    )
    assert result.mask_digest == expected.mask_digest
    warnings = [warning for report in result.layers for warning in report.warnings]
    assert "memory ran out with batches of 8 sequences; it went on with 4" in warnings
    assert "memory ran out with batches of 4 sequences; it went on with 2" in warnings
    assert not [warning for report in expected.layers for warning in report.warnings]


@pytest.mark.parametrize("forwards", range(1, 8))
@pytest.mark.parametrize("name", ["wanda", "llm-barber"])
def test_layers_that_come_and_go_are_halved_for_as_well(name, forwards):
    """The arguments of the layers are noted anew in the middle of a visit."""
    calibration = make_calibration(n_samples=6)
    model = make_model("llama").double()
    with memory_for(model, 2, layer=1, forwards=forwards):
        result = build(name).prune(
            model, parse_pattern("0.5"), calibration, placement=Placement(4, weights="onload")
        )
    expected = build(name).prune(
        make_model("llama").double(), parse_pattern("0.5"), calibration, placement=Placement(4)
    )
    assert result.mask_digest == expected.mask_digest


@pytest.mark.parametrize("forwards", range(1, 14))
@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_wherever_it_happens_no_sample_is_lost_or_counted_twice(name, settings, forwards):
    """In fp64, in which the order of sums decides nothing."""
    calibration = make_calibration(n_samples=7)
    model = make_model("llama").double()
    with memory_for(model, 3, layer=1, forwards=forwards):
        result = build(name, settings).prune(model, parse_pattern("0.5"), calibration, placement=Placement(4))
    expected = build(name, settings).prune(
        make_model("llama").double(), parse_pattern("0.5"), calibration, placement=Placement(4)
    )
    assert result.mask_digest == expected.mask_digest
    for report, other in zip(result.layers, expected.layers, strict=True):
        assert report.n_tokens == other.n_tokens


def test_a_single_sequence_that_does_not_fit_is_the_end():
    model = make_model("llama")
    with memory_for(model, 0), pytest.raises(torch.OutOfMemoryError):
        build("wanda").prune(model, parse_pattern("0.5"), make_calibration(), placement=Placement(4))


@pytest.mark.parametrize("forwards", range(1, 6))
@pytest.mark.parametrize("name", ["wanda", "llm-barber"])
def test_it_ends_wherever_a_single_sequence_does_not_fit(name, forwards):
    """Also where larger batches are already through."""
    model = make_model("llama")
    with memory_for(model, 0, layer=1, forwards=forwards), pytest.raises(torch.OutOfMemoryError):
        build(name).prune(model, parse_pattern("0.5"), make_calibration(n_samples=6), placement=Placement(2))


def test_an_allocation_goes_on_as_well():
    calibration, pattern = make_calibration(n_samples=7), parse_pattern("0.5")
    expected = OWL().allocate(make_model("llama").double(), pattern, calibration, placement=Placement(4))
    for forwards in range(4):
        model = make_model("llama").double()
        with memory_for(model, 2, layer=1, forwards=forwards) as seen:
            allocated = OWL().allocate(model, pattern, calibration, placement=Placement(4))
        assert allocated == expected
        assert max(seen) > 2, "memory never ran out"


def test_kept_attention_is_the_first_to_go():
    """In the second layer's last forwards, LLM-Barber's stream moves on with what it kept."""
    calibration, pattern = make_calibration(n_samples=6), parse_pattern("0.5")
    said: list[str] = []
    for forwards in range(6, 20):
        model = make_model("llama").double()
        with memory_for(model, 1, layer=1, forwards=forwards):
            result = build("llm-barber").prune(model, pattern, calibration, placement=Placement(2))
        said += [warning for report in result.layers for warning in report.warnings]
    assert "memory ran out; from here on the attention is run again, not kept" in said


def test_hidden_states_that_fill_the_device_move_before_batches_are_halved(monkeypatch):
    calibration, pattern = make_calibration(n_samples=6), parse_pattern("0.5")
    expected = build("wanda").prune(make_model("llama"), pattern, calibration, placement=Placement(2))
    monkeypatch.setattr(LayerStream, "_can_move", lambda stream: not stream._on_host)
    monkeypatch.setattr(LayerStream, "_fills_the_device", lambda stream: bool(stream.hidden))
    model = make_model("llama")
    failed: list[int] = []

    def once(x, *args, **kwargs):
        if not failed and len(stream_of_layer_1) >= 2:
            failed.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory")
        stream_of_layer_1.append(len(x))
        return forward(x, *args, **kwargs)

    stream_of_layer_1: list[int] = []
    mlp = read_decoder(model).layers[1].blocks[1].entry
    forward = mlp.forward
    with replaced_forward(mlp, once):
        result = build("wanda").prune(model, pattern, calibration, placement=Placement(2))
    assert result.mask_digest == expected.mask_digest
    said = [warning for report in result.layers for warning in report.warnings]
    assert said == ["memory ran out; from here on hidden states stay on the host"]


def test_other_errors_halve_nothing():
    model = make_model("llama")
    mlp = read_decoder(model).layers[0].blocks[1].entry
    seen: list[int] = []

    def broken(x, *args, **kwargs):
        seen.append(len(x))
        raise RuntimeError("shapes cannot be multiplied")

    with replaced_forward(mlp, broken), pytest.raises(RuntimeError, match="shapes"):
        build("wanda").prune(model, parse_pattern("0.5"), make_calibration(), placement=Placement(4))
    assert len(seen) == 1


def test_the_host_runs_out_of_memory_in_its_own_words():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(MemoryError())


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be reported later",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_libraries_run_out_of_memory_in_theirs(words):
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(ValueError(words))


def test_anything_else_is_something_else():
    assert not is_out_of_memory(RuntimeError("anything else"))
