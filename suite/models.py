"""Loading what is pruned: a built-in model, a local folder, or a model of the hub."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from methods.errors import InputError
from suite.assets import SMOLLM2_GGUF, fetch
from suite.cache import built_folder, cached_folder, file_sha256

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from suite.cell import DType
    from suite.results.record import ModelIdentity


@dataclass(frozen=True)
class BuiltInModel:
    """A model that needs no hub.

    Attributes:
        name: what users call it.
        description: one line.
        licence: of its weights.
        n_parameters: how many it has.
        revision: the pinned package its weights come from.
    """

    name: str
    description: str
    licence: str
    n_parameters: int
    revision: str


BUILT_IN_MODELS = (
    BuiltInModel(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct (LLaMA architecture), dequantized from 4 bits",
        licence=SMOLLM2_GGUF.licence,
        n_parameters=134_515_008,
        revision=SMOLLM2_GGUF.requirement,
    ),
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model's name leads.

    Attributes:
        name: as the user wrote it.
        kind: `built-in`, `folder` or `hub`.
    """

    name: str
    kind: Literal["built-in", "folder", "hub"]


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, on its device.

    Attributes:
        model: the causal language model.
        tokenizer: None where the model comes without one.
        identity: which weights these are, for the record.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    identity: ModelIdentity


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights.

    Attributes:
        model: on the meta device.
        tokenizer: None where the model comes without one.
        revision: as `ModelIdentity` has it.
        folder_digest: likewise.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    revision: str | None
    folder_digest: str | None


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tekken.json"),
    *("vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
)


def resolve_model(name: str) -> ModelSource:
    """Checks what can be checked of a model's name before anything is fetched or imported.

    A hub id is only checked for its form.

    Raises:
        InputError: it is no built-in model, no folder that holds one, and no hub id.
    """
    names = [model.name for model in BUILT_IN_MODELS]
    if name in names:
        return ModelSource(name, "built-in")
    path = Path(name).expanduser()
    if name and path.is_dir():
        _check_folder(path, name)
        return ModelSource(name, "folder")
    if path.is_file():
        raise InputError(
            f"model {name!r} is a file: give the folder that holds config.json and model.safetensors"
        )
    if _HUB_ID.fullmatch(name):
        return ModelSource(name, "hub")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(
        f"unknown model {name!r}: {hint}MODEL is a built-in name ({', '.join(names)}), a local folder, "
        "or a hub id such as HuggingFaceTB/SmolLM2-135M"
    )


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: DType = "float32",
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Loads a model and its tokenizer.

    Args:
        name: a built-in name, a local folder or a hub id.
        revision: a branch, tag or commit on the hub; None = its default branch, and for everything else.
        dtype: the weights' type in memory.
        device: where the model is put.
        trust_remote_code: whether Python files that come with the model may run.

    Raises:
        InputError: there is no such model, it is damaged, or its weights are pickled.
        AssetError: a built-in model could not be fetched.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from suite.results.record import ModelIdentity

    folder, found_revision = find_model(name, revision)
    with quiet_transformers(), one_line(name):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        tokenizer = load_tokenizer(folder, trust_remote_code)
    if missing := sorted(loading["missing_keys"]):
        # transformers fills them with random numbers and prints a warning, which we have silenced.
        raise InputError(f"model {name!r} lacks {len(missing)} of its weights, {missing[0]} for one")
    model.eval()
    model.to(device)
    identity = ModelIdentity(
        name=name,
        revision=found_revision,
        architecture=type(model).__name__,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_digest=weight_digest(model),
        dtype=dtype,
        folder_digest=folder_digest(folder, found_revision),
    )
    return LoadedModel(model, tokenizer, identity)


def load_skeleton(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Skeleton:
    """A model's structure and tokenizer; of its weights not a byte is read.

    Args:
        name: a built-in name, a local folder or a hub id.
        revision: as for `load_model`.
        trust_remote_code: as for `load_model`.

    Raises:
        InputError: there is no such model, or its configuration is damaged.
        AssetError: a built-in model could not be fetched.
    """
    folder, found_revision = find_model(name, revision)
    model = skeleton_of(folder, name, trust_remote_code)
    with quiet_transformers(), one_line(name):
        tokenizer = load_tokenizer(folder, trust_remote_code)
    return Skeleton(model, tokenizer, found_revision, folder_digest(folder, found_revision))


def skeleton_of(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedModel:
    """The structure that the configuration in `folder` describes, on the meta device.

    Raises:
        InputError: the configuration is damaged; the message calls the model `name`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet_transformers(), one_line(name):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=trust_remote_code
            )
    return model


def known_folder(name: str, revision: str | None) -> Path | None:
    """A folder on this machine that holds the model's config.json; None where it would have to be fetched."""
    source = resolve_model(name)
    if source.kind == "folder":
        return Path(name).expanduser()
    if source.kind == "built-in":
        from suite.gguf_model import BUILDER_VERSION

        folder = cached_folder("smollm2-135m", f"{SMOLLM2_GGUF.sha256[:12]}-{BUILDER_VERSION}")
        return folder if folder.is_dir() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def weight_digest(model: nn.Module) -> str:
    """SHA-256 (hex) over every parameter's name, dtype, shape and bytes, in the order of names.

    A parameter that is tied to another counts once. Parameters visit the host one at a time.
    """
    return digest_of_weights(sorted(model.named_parameters()))


def digest_of_weights(weights: Iterable[tuple[str, Tensor]]) -> str:
    """The digest of weights with their names; one at a time is looked at, in the order in which they come."""
    import torch

    digest = hashlib.sha256()
    for name, weight in weights:
        dtype = str(weight.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{list(weight.shape)}\0".encode())
        flat = weight.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def smollm2_folder() -> Path:
    """The built-in model's folder in the cache, fetched and built first if need be.

    Raises:
        AssetError: it could not be fetched, checked or written.
    """
    from suite.gguf_model import BUILDER_VERSION, write_model_folder

    return built_folder(
        "smollm2-135m",
        f"{SMOLLM2_GGUF.sha256[:12]}-{BUILDER_VERSION}",
        lambda staging: write_model_folder(fetch(SMOLLM2_GGUF), staging),
    )


def find_model(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder a model is loaded from, checked, and its revision for the record."""
    source = resolve_model(name)
    if revision is not None and source.kind != "hub":
        raise InputError(f"model {name!r} is {source.kind}, so it has no revision {revision!r}")
    folder, found_revision = _locate(source, revision)
    _check_folder(folder, name)
    return folder, found_revision


def folder_digest(folder: Path, revision: str | None) -> str | None:
    """SHA-256 over the names and contents of a model's files; None where its revision says as much."""
    if revision is not None:
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")):
        digest.update(f"{path.name}\0{file_sha256(path)}\0".encode())
    return digest.hexdigest()


def _locate(source: ModelSource, revision: str | None) -> tuple[Path, str | None]:
    if source.kind == "built-in":
        return smollm2_folder(), SMOLLM2_GGUF.requirement
    if source.kind == "folder":
        return Path(source.name).expanduser(), None
    from suite.hub import model_snapshot

    snapshot = model_snapshot(source.name, revision)
    return snapshot.folder, snapshot.commit


def _check_folder(folder: Path, name: str) -> None:
    """Refuses a folder that holds no model, or one in pickles only."""
    if not (folder / "config.json").is_file():
        raise InputError(
            f"model {name!r} holds no config.json: MODEL is a folder that `save_pretrained` wrote"
        )
    if (folder / "model.safetensors").is_file():
        return
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        if missing := [shard for shard in _shards(index, name) if not (folder / shard).is_file()]:
            raise InputError(
                f"model {name!r} lacks {missing[0]}, which its model.safetensors.index.json names"
            )
        return
    if pickled := sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern)):
        raise InputError(
            f"model {name!r} has only pickled weights ({pickled[0]}), which can run code when they are read "
            "and are refused: convert them to safetensors first"
        )
    raise InputError(
        f"model {name!r} holds no weights that can be used: there is no model.safetensors beside its "
        "config.json (pickled weights are refused)"
    )


def _shards(index: Path, name: str) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model {name!r}: {index.name} is no index of safetensors files") from error


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer in a model's folder; None where there is none."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turns what transformers raises for a folder it cannot load into one line for the user."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"model {name!r} needs Python code of its own: read it, then allow it (--trust-remote-code)"
            ) from error
        raise InputError(f"model {name!r} cannot be loaded: {_first_line(error)}") from error
    except RuntimeError as error:
        # Weights that do not fit the config are the folder's fault; anything else is not the user's input.
        if "mismatched" not in str(error) and "size mismatch" not in str(error):
            raise
        raise InputError(
            f"model {name!r}: its weights do not have the shapes its config.json asks for"
        ) from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Holds back the library's warnings and its bar; what they would say is checked here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


__all__ = [
    "BUILT_IN_MODELS",
    "BuiltInModel",
    "LoadedModel",
    "ModelSource",
    "Skeleton",
    "digest_of_weights",
    "find_model",
    "folder_digest",
    "known_folder",
    "load_model",
    "load_skeleton",
    "load_tokenizer",
    "one_line",
    "quiet_transformers",
    "resolve_model",
    "skeleton_of",
    "smollm2_folder",
    "weight_digest",
]
