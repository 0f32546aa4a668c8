"""Naming and loading models: what is refused before anything is imported, and what comes back whole."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from methods.errors import InputError
from suite.models.loading import load_model, weight_digest
from suite.models.source import BUILT_IN_MODELS, resolve_model, smollm2_folder
from tests.tiny import byte_tokenizer, tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    tiny_model().save_pretrained(path)
    return path


def refusal(name: object) -> str:
    with pytest.raises(InputError) as caught:
        resolve_model(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_comes_back_as_it_was_saved(folder: Path) -> None:
    byte_tokenizer().save_pretrained(folder)
    loaded = load_model(str(folder))
    assert not loaded.model.training
    assert loaded.tokenizer is not None
    assert loaded.tokenizer("ab").input_ids == byte_tokenizer()("ab").input_ids
    assert loaded.identity.architecture == "LlamaForCausalLM"
    assert loaded.identity.revision is None
    assert loaded.identity.n_parameters == sum(p.numel() for p in tiny_model().parameters())
    assert loaded.identity.weight_digest == weight_digest(tiny_model())
    for name, parameter in tiny_model().named_parameters():
        assert torch.equal(loaded.model.get_parameter(name), parameter), name


def test_a_model_without_tokenizer_loads(folder: Path) -> None:
    assert load_model(str(folder)).tokenizer is None


def test_dtype_is_what_was_asked_for(folder: Path) -> None:
    loaded = load_model(str(folder), dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.identity.dtype == "bfloat16"


def test_loading_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(str(folder))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_weight_digest_sees_values_names_shapes_and_dtypes() -> None:
    model = tiny_model()
    before = weight_digest(model)
    assert before == weight_digest(tiny_model())
    assert before != weight_digest(tiny_model().bfloat16())
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    assert weight_digest(model) != before
    flat, square = torch.nn.Linear(4, 1, bias=False), torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        flat.weight.zero_()
        square.weight.zero_()
    assert weight_digest(flat) != weight_digest(square)


def test_known_names_resolve(folder: Path) -> None:
    assert resolve_model(BUILT_IN_MODELS[0].name).kind == "built-in"
    assert resolve_model(str(folder)).kind == "folder"
    assert resolve_model("facebook/opt-125m").kind == "hub"


def test_misspelt_name_gets_the_nearest_built_in() -> None:
    assert "did you mean 'smollm2-135m'?" in refusal("smolm2-135")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "", "wanda model"])
def test_what_is_no_folder_and_no_hub_id_is_refused(name: str) -> None:
    assert "unknown model" in refusal(name)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path)


def test_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "has no usable weights" in refusal(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin" in refusal(folder)
    with pytest.raises(InputError, match="pickled"):
        load_model(str(folder))


def test_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "model-00002-of-00002.safetensors" in refusal(folder)


def test_file_in_place_of_a_folder_is_refused(folder: Path) -> None:
    assert "is a file" in refusal(folder / "model.safetensors")


def test_missing_weights_are_not_filled_with_random_numbers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"lacks 9 of its weights, for example model\.layers\.2"):
        load_model(str(folder))


def test_weights_of_another_shape_are_the_inputs_fault(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="shapes"):
        load_model(str(folder))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_damaged_file_is_one_line(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"{ this is not what it should be")
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_remote_code_stays_off(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own-model",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(InputError, match="--trust-remote-code"):
        load_model(str(folder))


def test_revision_of_a_local_folder_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no revision"):
        load_model(str(folder), revision="main")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's own, and no connection."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    def unreachable(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("no connection")

    monkeypatch.setattr(HfApi, "repo_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_hub_model_that_cannot_be_had_is_one_line(hub_cache: Path) -> None:
    with pytest.raises(InputError, match=r"'nobody/nothing'.*could not be reached") as caught:
        load_model("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_hub_model_is_fetched_without_pickles_and_copies(
    hub_cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    commit = "0123456789abcdef0123456789abcdef01234567"
    offered = ["config.json", "model.safetensors", "tokenizer.model", "own.py"]
    refused = [
        "pytorch_model.bin",
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "onnx/model.safetensors",
    ]
    taken: list[str] = []

    def download(repository: str, **options: object) -> str:
        patterns = {key: options[key] for key in ("allow_patterns", "ignore_patterns")}
        taken.extend(filter_repo_objects(offered + refused, **patterns))
        assert (repository, options["revision"], options["local_files_only"]) == ("some/model", "v1", False)
        return str(shutil.copytree(folder, hub_cache / commit))

    answer = type("Info", (), {"sha": commit})
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: answer)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_model("some/model", revision="v1").identity.revision == commit
    assert taken == offered


def test_cached_hub_model_needs_no_connection(hub_cache: Path, folder: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--some--model"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    loaded = load_model("some/model")
    assert loaded.identity.revision == commit
    assert loaded.identity.weight_digest == weight_digest(tiny_model())


@pytest.mark.model
class TestSmolLM2:
    def test_plain_transformers_loads_it(self) -> None:
        model = AutoModelForCausalLM.from_pretrained(smollm2_folder())
        tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
        assert model.num_parameters() == BUILT_IN_MODELS[0].n_parameters
        assert model.lm_head.weight is model.model.embed_tokens.weight
        special = (
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.unk_token_id,
            tokenizer.pad_token_id,
        )
        assert special == (1, 2, 0, 2)
        prompt = tokenizer("The capital of France is", return_tensors="pt")
        answer = model.generate(**prompt, max_new_tokens=2, do_sample=False)[0, prompt.input_ids.shape[1] :]
        assert tokenizer.decode(answer).strip().startswith("Paris")

    def test_numbers_are_split_into_digits_and_no_bos_is_added(self) -> None:
        tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
        assert tokenizer.convert_ids_to_tokens(tokenizer("12345").input_ids) == ["1", "2", "3", "4", "5"]
        text = "In 1969, Apollo 11 didn't   fail.\n\n\tx² ≈ ½ – été 日本"
        assert tokenizer.decode(tokenizer(text).input_ids) == text

    def test_ids_are_those_of_the_rules_of_llama_cpp(self) -> None:
        """Its `smollm` rules (single digits, then GPT-2's pattern), with merges done one by one."""
        import regex

        tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
        state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        rank = {tuple(merge): number for number, merge in enumerate(state["merges"])}
        symbols = byte_symbols()

        def merged(piece: str) -> list[str]:
            parts = [symbols[byte] for byte in piece.encode()]
            while pairs := [pair for pair in pairwise(parts) if pair in rank]:
                best = min(pairs, key=rank.__getitem__)
                at = list(pairwise(parts)).index(best)
                parts[at : at + 2] = ["".join(best)]
            return parts

        gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
        text = "In 1969 Apollo 11's crew (of 3) didn't  land\n\n at 0.67°N, they'll say; x²=½ — naïve 東 \t "
        pieces = [piece for part in regex.split(r"(\p{N})", text) for piece in regex.findall(gpt2, part)]
        expected = [state["vocab"][token] for piece in pieces for token in merged(piece)]
        assert tokenizer(text).input_ids == expected


def byte_symbols() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
