"""Layers that stay elsewhere and visit one by one are pruned as if the whole model were there, to the bit."""

import json
import struct
import threading
from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from methods.allocations.owl import OWL
from methods.base import Placement
from methods.contract import ModelState
from methods.dsnot import DSnoT
from methods.errors import InputError, NonFiniteError, PruningError
from methods.llm_barber import LLMBarber
from methods.masks.pattern import parse_pattern
from methods.placement.layer_loading import residing
from methods.placement.layer_storage import CheckpointStorage, HostStorage
from methods.placement.tensor_files import TensorFiles
from methods.registry import build, names
from methods.scores.magnitude import Magnitude
from methods.scores.wanda import Wanda
from methods.structure.decoder import read_decoder
from tests.methods.tiny_models import make_calibration, make_model

FAMILIES = ("llama", "opt", "gpt2", "gpt-oss")
"""Rotary tables outside the layers, an MLP without a module, transposed weights, experts in one parameter."""
METHODS = {name: build(name, {}) for name in names()} | {
    "llm-barber from sparsegpt": LLMBarber("sparsegpt", "layer", 0.1, keep_reconstruction=True),
    "llm-barber from dsnot": LLMBarber("dsnot", "output", 0.1),
}
HALF = parse_pattern("0.5")


def layer_weights(model):
    """Everything the decoder layers hold, by layer and by name inside it."""
    return {
        layer.index: {name: value.clone() for name, value in layer.module.state_dict().items()}
        for layer in read_decoder(model).layers
    }


def save_layers(model, folder, n_files=1):
    """The decoder layers as a checkpoint of one file or of several."""
    state = {
        f"{layer.name}.{name}": value
        for layer in read_decoder(model).layers
        for name, value in layer.module.state_dict().items()
    }
    if n_files == 1:
        save_file(state, folder / "model.safetensors")
        return TensorFiles.of_folder(folder)
    # One layer's tensors lie in several files.
    shard_of = {name: f"model-{index % n_files}.safetensors" for index, name in enumerate(sorted(state))}
    for shard in set(shard_of.values()):
        save_file({name: state[name] for name in state if shard_of[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    return TensorFiles.of_folder(folder)


def without_layers(model):
    """`model` with its decoder layers on the meta device."""
    for layer in read_decoder(model).layers:
        for module in layer.module.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    empty = torch.empty_like(parameter, device="meta")
                    module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    return model


def onloading(family, storage, folder, n_files=1, dtype=torch.float32):
    """A model whose layers live on the host or in files, and its storage."""
    model = make_model(family, dtype)
    if storage == "host":
        return model, HostStorage(read_decoder(model))
    (folder / "dense").mkdir()
    (folder / "staging").mkdir()
    files = save_layers(model, folder / "dense", n_files)
    return without_layers(model), CheckpointStorage(files, folder / "staging")


@cache
def resident(family, method, allocated=False):
    """What pruning the whole model gives: masks, reports and weights."""
    model = make_model(family)
    pattern = OWL().allocate(model, HALF, make_calibration()) if allocated else HALF
    result = METHODS[method].prune(model, pattern, make_calibration(), placement=Placement(2))
    return result, layer_weights(model)


def assert_same(storage, model, result, expected):
    expected_result, expected_weights = expected
    assert result.mask_digest == expected_result.mask_digest
    assert result.layers == expected_result.layers
    for layer in read_decoder(model).layers:
        weights = storage.fetch(layer)
        assert weights.keys() == expected_weights[layer.index].keys()
        for name, weight in weights.items():
            assert torch.equal(weight, expected_weights[layer.index][name]), f"{layer.name}.{name}"


def state_of(model):
    return ModelState.of(model, {}), {name: id(p) for name, p in model.named_parameters()}


@pytest.mark.parametrize("storage", ["host", "folder"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_decides_the_same(family, method, storage, tmp_path):
    model, kept = onloading(family, storage, tmp_path)
    before = state_of(model)
    placement = Placement(2, "onload", storage=kept)
    result = METHODS[method].prune(model, HALF, make_calibration(), placement=placement)
    assert_same(kept, model, result, resident(family, method))
    assert state_of(model) == before
    assert prefetching_threads() == []


@pytest.mark.parametrize("storage", ["host", "folder"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_allocation_sees_the_same_and_stores_nothing(family, storage, tmp_path):
    model, kept = onloading(family, storage, tmp_path)
    decoder = read_decoder(model)
    dense = {layer.index: kept.stamp(layer) for layer in decoder.layers}
    placement = Placement(2, "onload", storage=kept)
    pattern = OWL().allocate(model, HALF, make_calibration(), placement=placement)
    assert {layer.index: kept.stamp(layer) for layer in decoder.layers} == dense
    result = Wanda().prune(model, pattern, make_calibration(), placement=placement)
    assert_same(kept, model, result, resident(family, "wanda", allocated=True))


@pytest.mark.parametrize("method", ["sparsegpt", "llm-barber"])
def test_layers_spread_over_several_files_are_the_same(method, tmp_path):
    model, storage = onloading("llama", "folder", tmp_path, n_files=3)
    result = METHODS[method].prune(
        model, HALF, make_calibration(), placement=Placement(2, "onload", storage=storage)
    )
    assert_same(storage, model, result, resident("llama", method))


def test_files_are_cast_to_what_the_model_computes_in(tmp_path):
    whole = make_model("llama")
    files = save_layers(whole, tmp_path)
    (tmp_path / "staging").mkdir()
    model = without_layers(make_model("llama").to(torch.bfloat16))
    storage = CheckpointStorage(files, tmp_path / "staging")
    placement = Placement(2, "onload", storage=storage)
    result = Wanda().prune(model, HALF, make_calibration(), placement=placement)
    whole.to(torch.bfloat16)
    expected = Wanda().prune(whole, HALF, make_calibration(), placement=Placement(2))
    assert_same(storage, model, result, (expected, layer_weights(whole)))


def test_without_a_home_the_models_own_memory_is_one():
    model = make_model("llama")
    result = Wanda().prune(model, HALF, make_calibration(), placement=Placement(2, "onload"))
    assert_same(HostStorage(read_decoder(model)), model, result, resident("llama", "wanda"))


def test_tensors_may_have_other_names_in_the_files(tmp_path):
    model, _ = onloading("llama", "folder", tmp_path)
    files = TensorFiles.of_folder(tmp_path / "dense")
    renamed = {name: name.removeprefix("model.") for name in files.stored}
    save_file({renamed[name]: files.read(name) for name in files.stored}, tmp_path / "renamed.safetensors")
    storage = CheckpointStorage(
        TensorFiles([tmp_path / "renamed.safetensors"]), tmp_path / "staging", renamed
    )
    result = Wanda().prune(model, HALF, make_calibration(), placement=Placement(2, "onload", storage=storage))
    assert_same(storage, model, result, resident("llama", "wanda"))
    staged = TensorFiles([storage.file_of(read_decoder(model).layers[0])])
    assert "layers.0.mlp.up_proj.weight" in staged.stored


@dataclass
class Watched:
    """A storage that notes what is asked of it."""

    storage: HostStorage
    events: list[str] = field(default_factory=list)

    def fetch(self, layer, *, pinned=False):
        self.events.append(f"fetch {layer.index}")
        return self.storage.fetch(layer, pinned=pinned)

    def store(self, layer, weights):
        self.events.append(f"store {layer.index}")
        self.storage.store(layer, weights)

    def __getattr__(self, name):
        return getattr(self.storage, name)


def watched(n_layers=4):
    model = make_model("llama")
    config = type(model.config)(
        **{**model.config.to_dict(), "num_hidden_layers": n_layers, "layer_types": None}
    )
    torch.manual_seed(0)
    model = type(model)(config)
    return model, read_decoder(model), Watched(HostStorage(read_decoder(model)))


def settle(residence):
    """Lets the thread finish what it was asked for."""
    if residence._prefetch._ahead is not None:
        residence._prefetch._ahead[2].result()


def test_the_next_layer_comes_while_one_is_visited_and_no_layer_before_that():
    model, decoder, storage = watched()
    with residing(model, decoder, Placement(weights="onload", storage=storage)) as residence:
        for _ in range(2):
            for layer in decoder.layers:
                with residence.loaded(layer):
                    settle(residence)
                    storage.events.append(f"compute {layer.index}")
    one_pass = [
        *("fetch 0", "fetch 1", "compute 0", "store 0"),
        *("fetch 2", "compute 1", "store 1"),
        *("fetch 3", "compute 2", "store 2"),
        *("compute 3", "store 3"),
    ]
    assert storage.events == one_pass * 2


def test_the_first_layer_is_fetched_once_for_the_forward_before_it_and_its_own_visit():
    model, decoder, storage = watched(2)
    with residing(model, decoder, Placement(weights="onload", storage=storage)) as residence:
        with residence.before_layers(first_layer=True):
            assert storage.events == ["fetch 0"]
        with residence.loaded(decoder.layers[0]):
            settle(residence)
    assert storage.events == ["fetch 0", "fetch 1", "store 0"]


def test_what_was_fetched_ahead_is_fetched_anew_if_another_residence_stored_it():
    model, decoder, _ = watched()
    placement = Placement(weights="onload")
    first, second = decoder.layers[:2]
    target = next(iter(second.targets.values()))
    with torch.no_grad(), residing(model, decoder, placement) as outer:
        with outer.loaded(first):
            settle(outer)
        with residing(model, decoder, placement) as inner, inner.loaded(second):
            target.write(torch.full(target.shape, 2.0), torch.ones(target.shape, dtype=torch.bool))
        with outer.loaded(second):
            assert bool((target.weight == 2).all())


@pytest.mark.parametrize("storage", ["host", "folder"])
def test_a_failure_leaves_no_thread_and_the_model_as_it_was(storage, tmp_path):
    model, kept = onloading("llama", storage, tmp_path)
    decoder, before = read_decoder(model), state_of(model)
    dense = {layer.index: kept.fetch(layer) for layer in decoder.layers}
    with (
        pytest.raises(ZeroDivisionError),
        torch.no_grad(),
        residing(model, decoder, Placement(weights="onload", storage=kept)) as residence,
        residence.loaded(decoder.layers[0]),
    ):
        for target in decoder.layers[0].targets.values():
            target.write(torch.zeros(target.shape), torch.zeros(target.shape, dtype=torch.bool))
        raise ZeroDivisionError
    assert state_of(model) == before
    assert prefetching_threads() == []
    for layer in decoder.layers:
        for name, weight in kept.fetch(layer).items():
            assert torch.equal(weight, dense[layer.index][name])


def test_a_prune_that_fails_in_the_middle_leaves_no_thread_and_the_model_as_it_was(tmp_path):
    model, _ = onloading("llama", "folder", tmp_path)
    files = TensorFiles.of_folder(tmp_path / "dense")
    state = {name: files.read(name) for name in files.stored}
    state["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    storage = CheckpointStorage(TensorFiles([tmp_path / "nan.safetensors"]), tmp_path / "staging")
    before = state_of(model)
    with pytest.raises(NonFiniteError, match=r"layers\.1"):
        Magnitude().prune(model, HALF, placement=Placement(2, "onload", storage=storage))
    assert state_of(model) == before
    assert prefetching_threads() == []


def test_a_failed_read_is_raised_where_its_layer_is_taken_and_names_the_file(tmp_path):
    model, storage = onloading("llama", "folder", tmp_path)
    decoder = read_decoder(model)
    file = tmp_path / "dense" / "model.safetensors"
    with residing(model, decoder, Placement(weights="onload", storage=storage)) as residence:
        with residence.loaded(decoder.layers[0], read_only=True):
            residence._prefetch._ahead[2].result()
        file.write_bytes(
            file.read_bytes()[: storage._source.stored["model.layers.0.mlp.up_proj.weight"].start]
        )
        with pytest.raises(InputError, match=r"model\.safetensors: ends before"):
            residence.loaded(decoder.layers[0], read_only=True).__enter__()
    assert prefetching_threads() == []


def test_what_is_restored_is_what_was_remembered(tmp_path):
    for storage in ("host", "folder"):
        folder = tmp_path / storage
        folder.mkdir()
        model, kept = onloading("gpt2", storage, folder)
        decoder = read_decoder(model)
        dense = {layer.index: kept.fetch(layer) for layer in decoder.layers}
        placement = Placement(2, "onload", storage=kept)
        with torch.no_grad(), residing(model, decoder, placement) as residence:
            residence.remember_dense()
            Magnitude().prune(model, HALF, placement=placement)
            for layer in decoder.layers:
                with residence.loaded(layer, read_only=True):
                    for name, weight in residence.dense_weights(layer).items():
                        target = layer.targets[name]
                        stored = dense[layer.index][target.parameter_name.removeprefix(f"{layer.name}.")]
                        assert torch.equal(weight, target.turned(stored))
                        assert int((target.weight == 0).sum()) >= target.weight.numel() // 2
            residence.restore_dense()
        for layer in decoder.layers:
            for name, weight in kept.fetch(layer).items():
                assert torch.equal(weight, dense[layer.index][name])
    assert list((tmp_path / "folder" / "staging").iterdir()) == []


def test_dense_weights_cannot_be_remembered_once_layers_were_stored(tmp_path):
    model, storage = onloading("llama", "folder", tmp_path)
    placement = Placement(2, "onload", storage=storage)
    Magnitude().prune(model, HALF, placement=placement)
    with pytest.raises(PruningError, match="before any layer was stored"):
        DSnoT().prune(model, HALF, make_calibration(), placement=placement)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "disk"}, "give resident or onload"),
        ({"device": torch.device("cpu")}, "takes no device"),
        ({"storage": HostStorage(read_decoder(make_model("llama")))}, "takes no storage"),
    ],
)
def test_a_placement_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Placement(**arguments)


def test_a_home_on_the_host_needs_the_model_there():
    with pytest.raises(InputError, match=r"layers\.0 is on meta.*load the model on the CPU"):
        Magnitude().prune(without_layers(make_model("llama")), HALF, placement=Placement(weights="onload"))


def header_of(name, start, end, shape=(2,), dtype="F32"):
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a safetensors file, or is truncated"),
        (struct.pack("<Q", 10**15) + b"{}", "is not a safetensors file, or is truncated"),
        (struct.pack("<Q", 4) + b"nope", "header is damaged"),
        (struct.pack("<Q", 2) + b"[]", "header is damaged"),
        (header_of("a", 0, 12) + bytes(12), "the offsets of a in the file do not fit its shape"),
        (header_of("a", -8, 0) + bytes(8), "the offsets of a in the file do not fit its shape"),
        (header_of("a", 0, 8) + bytes(4), "ends before its tensors do"),
        (header_of("a", 0, 8) + bytes(9), "is longer than its tensors"),
        (header_of("a", 0, 1, dtype="F4") + bytes(1), "a is stored as F4"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.safetensors: .*{message}|{message}") as raised:
        TensorFiles.of_folder(tmp_path)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is not an index"),
        ("[]", "is not an index"),
        ('{"weight_map": {"b": "one.safetensors"}}', "lists b"),
    ],
)
def test_a_wrong_index_is_named(tmp_path, index, message):
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=rf"index\.json: {message}"):
        TensorFiles.of_folder(tmp_path)


def test_tensors_of_every_kind_are_read_as_the_library_reads_them(tmp_path):
    tensors = {
        "bf16": torch.randn(3, 5).to(torch.bfloat16),
        "half": torch.randn(7).half(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.zeros(0, 4),
        "ids": torch.arange(6).reshape(2, 3),
        "flags": torch.tensor([True, False, True]),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    files = TensorFiles.of_folder(tmp_path)
    assert files.stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        read = files.read(name)
        assert read.dtype == tensor.dtype and torch.equal(read, tensor)
    assert torch.equal(files.read("bf16", dtype=torch.float32), tensors["bf16"].float())


def prefetching_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prunebench-prefetch")]
