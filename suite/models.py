"""Loading what is pruned, whole or as a structure without weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.base import Placement
from methods.errors import InputError
from methods.tensor_files import TensorFiles
from suite.model_files import check_finite, check_stored, check_tensors, is_constant
from suite.model_source import find_model, folder_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from suite.cell import DType
    from suite.results.record import ModelIdentity


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode.

    Attributes:
        model: the causal language model.
        tokenizer: None where the model comes without one.
        identity: which weights these are, for the record.
        placement: where its decoder layers are; whoever runs them asks it.
        remarks: what a reader of its numbers should know of its files, one sentence each.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    identity: ModelIdentity
    placement: Placement = field(default=Placement(), kw_only=True)
    remarks: tuple[str, ...] = field(default=(), kw_only=True)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its name, in the order of names, tied ones once."""
        yield from sorted(self.model.named_parameters(), key=lambda named: named[0])


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights.

    Attributes:
        model: on the meta device.
        tokenizer: None where the model comes without one.
        revision: as `ModelIdentity` has it.
        folder_digest: likewise.
        remarks: as `LoadedModel` has them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    revision: str | None
    folder_digest: str | None
    remarks: tuple[str, ...]


_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tekken.json"),
    *("vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
)


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: DType = "float32",
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
    placement: Placement = Placement(),
) -> LoadedModel:
    """Loads a model and its tokenizer.

    Args:
        name: a built-in name, a local folder or a hub id.
        revision: a branch, tag or commit on the hub; None = its default branch, and for everything else.
        dtype: the weights' type in memory.
        device: where the model is put.
        trust_remote_code: whether Python files that come with the model may run.
        placement: a resident one; in what portions calibrations go by.

    Raises:
        InputError: there is no such model, it is damaged, or its weights are pickled, quantized, not finite,
            or those of another model than its config.json describes.
        AssetError: a built-in model could not be fetched.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from suite.results.record import ModelIdentity

    folder, found_revision = find_model(name, revision)
    check_stored(skeleton_of(folder, name, trust_remote_code), tensor_files(folder, name), name)
    with quiet_transformers(), one_line(name):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        tokenizer = load_tokenizer(folder, trust_remote_code)
    remarks = check_tensors(model, loading, name)
    model.eval()
    model.to(device)
    identity = ModelIdentity(
        name=name,
        revision=found_revision,
        architecture=type(model).__name__,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_digest=digest_of_weights(check_finite(sorted(model.named_parameters()), name)),
        dtype=dtype,
        folder_digest=folder_digest(folder, found_revision),
    )
    return LoadedModel(model, tokenizer, identity, placement=placement, remarks=remarks)


def load_skeleton(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Skeleton:
    """A model's structure and tokenizer, its files checked; no weight stays in memory.

    Args:
        name: a built-in name, a local folder or a hub id.
        revision: as for `load_model`.
        trust_remote_code: as for `load_model`.

    Raises:
        InputError: there is no such model, or it is damaged, as for `load_model`.
        AssetError: a built-in model could not be fetched.
    """
    import torch

    folder, found_revision = find_model(name, revision)
    files = tensor_files(folder, name)
    model = skeleton_of(folder, name, trust_remote_code)
    check_stored(model, files, name)
    with quiet_transformers(), one_line(name):
        _, loading = load_without_values(type(model), model.config, files, torch.float32)
        tokenizer = load_tokenizer(folder, trust_remote_code)
    remarks = check_tensors(model, loading, name)
    digest = folder_digest(folder, found_revision)
    if digest is not None:  # a local folder, whose files were just read as a whole
        unused = set(loading["unexpected_keys"])
        used = (key for key in files.stored if key not in unused and not is_constant(key, model))
        for _ in check_finite(files.floating(used), name):
            pass
    return Skeleton(model, tokenizer, found_revision, digest, remarks)


def tensor_files(folder: Path, name: str) -> TensorFiles:
    """The tensors in a model's folder, by their headers.

    Raises:
        InputError: a file is damaged or cannot be read.
    """
    try:
        return TensorFiles.of_folder(folder)
    except OSError as error:
        raise InputError(f"model {name!r} cannot be read: {error}") from error


def load_without_values(
    model_class: type[PreTrainedModel], config: Any, files: TensorFiles, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model on the meta device, with the dtypes, ties and names that the library gives it when it loads it.

    Args:
        model_class: its class.
        config: its configuration.
        files: what is stored of it.
        dtype: the weights' type in memory.

    Returns:
        The model, and the library's account: missing and unexpected names.
    """
    import torch

    empty = {
        tensor: torch.empty(stored.shape, dtype=stored.dtype, device="meta")
        for tensor, stored in files.stored.items()
    }
    model, loading = model_class.from_pretrained(
        None,
        config=config,
        state_dict=empty,
        device_map={"": "meta"},
        dtype=dtype,
        output_loading_info=True,
    )
    return model, loading


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
        if "conversion of the weights" in str(error):
            raise InputError(
                f"model {name!r}: its weights do not make the tensors its config.json asks for: parts of one "
                "are missing, or there are too many"
            ) from error
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
    "LoadedModel",
    "Skeleton",
    "digest_of_weights",
    "load_model",
    "load_skeleton",
    "load_tokenizer",
    "load_without_values",
    "one_line",
    "quiet_transformers",
    "skeleton_of",
    "tensor_files",
    "weight_digest",
]
