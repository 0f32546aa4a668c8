"""Resolves a model's name to the folder it is loaded from: built in, local, or from the hub."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from methods.errors import InputError, did_you_mean
from suite.data.assets import SMOLLM2_GGUF, fetch
from suite.machine.cache import built_folder, cached_folder, file_sha256
from suite.models.files import ADAPTER, check_config


@dataclass(frozen=True)
class BuiltInModel:
    """A model that is available without the hub.

    Attributes:
        name: the name that users give.
        description: a description in one line.
        licence: the licence of its weights.
        n_parameters: number of parameters.
        revision: the pinned package that its weights come from.
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
    """A model's name and the kind of place it refers to.

    Attributes:
        name: the name as the user wrote it.
        kind: `built-in`, `folder` or `hub`.
    """

    name: str
    kind: Literal["built-in", "folder", "hub"]


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CODE = (".py", ".jinja")
_WITHOUT_EFFECT = (
    *(".md", ".rst", ".pdf", ".html", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".log", ".lock"),
    *(".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".tflite", ".gguf"),
)
_FOR_PEOPLE = (
    "LICENSE",
    "LICENSE.TXT",
    "LICENCE",
    "NOTICE",
    "NOTICE.TXT",
    "README",
    "README.TXT",
    "USE_POLICY.TXT",
)


def resolve_model(name: str) -> ModelSource:
    """Checks a model's name as far as possible before anything is fetched or imported.

    Only the form of a hub id is checked.

    Raises:
        InputError: it is neither a built-in model, nor a folder with a model, nor a hub id.
    """
    names = [model.name for model in BUILT_IN_MODELS]
    if name in names:
        return ModelSource(name, "built-in")
    path = Path(name).expanduser()
    try:
        is_folder = bool(name) and path.is_dir()
    except OSError as error:  # for example, the name is too long
        raise InputError(f"model {name!r}: {error.strerror or error}") from error
    if is_folder:
        _check_folder(path, name)
        return ModelSource(name, "folder")
    if path.is_file():
        raise InputError(
            f"model {name!r} is a file: give the folder that holds config.json and model.safetensors"
        )
    if _HUB_ID.fullmatch(name):
        return ModelSource(name, "hub")
    raise InputError(
        f"unknown model {name!r}{did_you_mean(name, names, or_all=False)} (built in: {', '.join(names)}; "
        "else give a local folder, or a hub id such as HuggingFaceTB/SmolLM2-135M)"
    )


def known_folder(name: str, revision: str | None) -> Path | None:
    """Returns a local folder with the model's config.json; None if it would have to be fetched."""
    source = resolve_model(name)
    if source.kind == "folder":
        return Path(name).expanduser()
    if source.kind == "built-in":
        from suite.models.gguf import BUILDER_VERSION

        folder = cached_folder("smollm2-135m", f"{SMOLLM2_GGUF.sha256[:12]}-{BUILDER_VERSION}")
        return folder if folder.is_dir() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def smollm2_folder() -> Path:
    """Returns the built-in model's folder in the cache, fetching and building it first if necessary.

    Raises:
        AssetError: it could not be fetched, checked or written.
    """
    from suite.models.gguf import BUILDER_VERSION, write_model_folder

    return built_folder(
        "smollm2-135m",
        f"{SMOLLM2_GGUF.sha256[:12]}-{BUILDER_VERSION}",
        lambda staging: write_model_folder(fetch(SMOLLM2_GGUF), staging),
    )


def find_model(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Returns the folder to load a model from, after checking it, and the revision for the record."""
    source = resolve_model(name)
    if revision is not None and source.kind != "hub":
        raise InputError(
            f"model {name!r} is not on the hub (kind: {source.kind}), so it has no revision {revision!r}"
        )
    folder, found_revision = _locate(source, revision)
    _check_folder(folder, name)
    return folder, found_revision


def folder_digest(folder: Path, revision: str | None) -> str | None:
    """Returns the SHA-256 over names and contents of a model's files; None if it has a revision instead.

    All files are included except those that cannot change a result: text for people, pictures, and weights in
    formats that are never read. In subfolders, which hold other formats and training checkpoints, only code
    and templates are included.
    """
    if revision is not None:
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and _counts(path, folder)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\0".encode())
    return digest.hexdigest()


def _counts(path: Path, folder: Path) -> bool:
    """Whether a file of a model's folder can change a result."""
    *above, name = path.relative_to(folder).parts
    if any(part.startswith(".") or part == "__pycache__" for part in (*above, name)):
        return False
    if above:
        return path.suffix in _CODE
    return path.suffix.lower() not in _WITHOUT_EFFECT and name.upper() not in _FOR_PEOPLE


def _locate(source: ModelSource, revision: str | None) -> tuple[Path, str | None]:
    if source.kind == "built-in":
        return smollm2_folder(), SMOLLM2_GGUF.requirement
    if source.kind == "folder":
        return Path(source.name).expanduser(), None
    from suite.data.hub import model_snapshot

    snapshot = model_snapshot(source.name, revision)
    return snapshot.folder, snapshot.commit


def _check_folder(folder: Path, name: str) -> None:
    """Raises `InputError` for a folder without a model, with pickled weights only, or not a plain model."""
    if not (folder / "config.json").is_file():
        if (folder / ADAPTER).is_file():
            raise InputError(
                f"model {name!r} is only an adapter ({ADAPTER}): merge it into its base model first"
            )
        raise InputError(
            f"model {name!r} has no config.json: MODEL must be a folder written by `save_pretrained`"
        )
    check_config(folder, name)
    if (folder / "model.safetensors").is_file():
        return
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        if missing := [shard for shard in _shards(index, name) if not (folder / shard).is_file()]:
            raise InputError(
                f"model {name!r} lacks {missing[0]}, which is listed in its model.safetensors.index.json"
            )
        return
    if pickled := sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern)):
        raise InputError(
            f"model {name!r} has only pickled weights ({pickled[0]}), which are refused because reading them "
            "can run code: convert them to safetensors first"
        )
    raise InputError(
        f"model {name!r} has no usable weights: there is no model.safetensors in the folder of its "
        "config.json (pickled weights are refused)"
    )


def _shards(index: Path, name: str) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model {name!r}: {index.name} is not an index of safetensors files") from error


__all__ = [
    "BUILT_IN_MODELS",
    "BuiltInModel",
    "ModelSource",
    "find_model",
    "folder_digest",
    "known_folder",
    "resolve_model",
    "smollm2_folder",
]
