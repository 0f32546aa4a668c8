"""Downloads from the Hugging Face hub, at pinned commits if possible, with errors in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from methods.errors import InputError

_TIMEOUT_SECONDS = 10.0
_LOADABLE = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.safetensors")
_SUPERFLUOUS = ("*/*", "consolidated*", "*.*.safetensors")
"""Patterns of files that loading a model may need, and of files among these that it does not need: other
formats in subfolders, second copies of the weights, variants in other dtypes. Pickles match no pattern of the
first list and are never fetched."""


@dataclass(frozen=True)
class HubSnapshot:
    """A model repository at one commit, in the hub's local cache.

    Attributes:
        folder: the folder with its files.
        commit: the commit of these files.
    """

    folder: Path
    commit: str


def model_snapshot(repository: str, revision: str | None) -> HubSnapshot:
    """Downloads the files that loading a model needs; without a connection, uses the hub's cache.

    Raises:
        InputError: there is no such repository or revision, or it is neither reachable nor cached.
    """
    from huggingface_hub import snapshot_download

    with _one_line(f"model {repository!r}", revision):
        reachable = _reachable_commit(repository, revision, "model") is not None
        folder = snapshot_download(
            repository,
            # Pass the name, not its commit, so that the cache can resolve the name without a connection.
            revision=revision,
            local_files_only=not reachable,
            allow_patterns=list(_LOADABLE),
            ignore_patterns=list(_SUPERFLUOUS),
        )
    return HubSnapshot(Path(folder), Path(folder).name)


def dataset_file(repository: str, filename: str, commit: str) -> Path:
    """Returns the path of one file of a data set at a pinned commit; a cached file needs no connection.

    Raises:
        InputError: it is neither cached nor reachable.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _one_line(f"data set {repository!r}", commit):
        try:
            return Path(
                hf_hub_download(
                    repository, filename, repo_type="dataset", revision=commit, local_files_only=True
                )
            )
        except LocalEntryNotFoundError:
            # Check first: the download itself would retry for half a minute without a connection.
            reachable = _reachable_commit(repository, commit, "dataset") is not None
            return Path(
                hf_hub_download(
                    repository, filename, repo_type="dataset", revision=commit, local_files_only=not reachable
                )
            )


@lru_cache(maxsize=1)
def hub_answers() -> bool:
    """Whether the hub can be reached; checked once, because an unreachable hub takes seconds to detect."""
    return _reachable_commit("Salesforce/wikitext", None, "dataset") is not None


@contextmanager
def from_the_cache() -> Iterator[None]:
    """Makes `datasets` read from the hub's cache only, instead of trying to reach the hub for a minute."""
    import datasets
    import huggingface_hub

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _reachable_commit(repository: str, revision: str | None, kind: Literal["model", "dataset"]) -> str | None:
    """Returns the commit that a revision currently refers to; None if the hub does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=_TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return None
        raise
    except (_transport_error(), OfflineModeIsEnabled):
        return None
    return str(info.sha)


def _transport_error() -> type[Exception]:
    """Returns the base class of the HTTP errors; it depends on the installed version of huggingface_hub."""
    from huggingface_hub import errors

    base: type[Exception] = vars(errors)["HTTPError"]
    return base


@contextmanager
def _one_line(what: str, revision: str | None) -> Iterator[None]:
    """Turns the hub's errors into one-line `InputError`s, and silences its log messages about retries."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{what} is gated: accept its terms on the hub and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{what} has no revision {revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{what} does not exist on the hub, or is private") from error
    except HFValidationError as error:
        raise InputError(f"{what} is not a valid name on the hub (`organisation/name`)") from error
    except LocalEntryNotFoundError as error:
        at = f" at revision {revision!r}" if revision else ""
        raise InputError(
            f"{what}{at} is not in the hub's cache on this machine, and the hub could not be reached: "
            "connect once, or use something local or built in"
        ) from error
    except (HfHubHTTPError, _transport_error()) as error:
        raise InputError(f"{what} could not be read from the hub: {str(error).splitlines()[0]}") from error
    finally:
        logger.setLevel(level)


__all__ = ["HubSnapshot", "dataset_file", "from_the_cache", "hub_answers", "model_snapshot"]
