"""From text to tokens: calibration sets and evaluation windows (docs/protocols.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from methods.errors import InputError, did_you_mean
from suite.cell import CalibrationSpec, PerplexitySpec
from suite.data.assets import NEWS_TEXTS, WIKI_DUMP
from suite.data.text_sources import C4_COMMIT, TEXT_SUFFIXES, WIKITEXT_COMMIT, Split, read_documents
from suite.data.tokenized_text import first_tokens, require_tokenizer, tokenized_text, tokens_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from methods.base import CalibrationSet


@dataclass(frozen=True)
class BuiltInCorpus:
    """A corpus that comes with prunebench.

    Attributes:
        name: the name that users give.
        description: a description in one line.
        licence: the licence of its texts.
        revision: the pinned package or commit that its texts come from.
        origin: `offline` needs a package registry once; `hub` needs the Hugging Face hub once.
        splits: the purposes it can be used for.
    """

    name: str
    description: str
    licence: str
    revision: str
    origin: Literal["offline", "hub"]
    splits: tuple[Split, ...] = ("calibration", "evaluation")


BUILT_IN_CORPORA = (
    BuiltInCorpus(
        name="wiki-sample",
        description="94 Wikipedia articles without markup, split by article",
        licence=WIKI_DUMP.licence,
        revision=WIKI_DUMP.requirement,
        origin="offline",
    ),
    BuiltInCorpus(
        name="news-sample",
        description="289 news texts (Lee background corpus, copies removed), split by text",
        licence=NEWS_TEXTS.licence,
        revision=NEWS_TEXTS.requirement,
        origin="offline",
    ),
    BuiltInCorpus(
        name="wikitext2",
        description="WikiText-2 raw: train to calibrate, test to evaluate",
        licence="CC-BY-SA-3.0 and GFDL",
        revision=WIKITEXT_COMMIT,
        origin="hub",
    ),
    BuiltInCorpus(
        name="c4",
        description="C4 English: crops of training documents, the first 2,000 validation documents",
        licence="ODC-BY",
        revision=C4_COMMIT,
        origin="hub",
    ),
    BuiltInCorpus(
        name="c4-paper",
        description="C4 as the pruning papers evaluate on it: 1,100 validation documents, 256 windows",
        licence="ODC-BY",
        revision=C4_COMMIT,
        origin="hub",
        splits=("evaluation",),
    ),
)

_PAPER_WINDOWS = 256
_CROP_BATCH = 32
"""Documents tokenized per call in the search for long ones: enough to use the tokenizer's own threads."""


@dataclass(frozen=True)
class EvaluationWindows:
    """Held-out text, tokenized and cut into windows.

    Attributes:
        input_ids: token ids, int64 `[n_windows, seqlen]`.
        protocol: the protocol's name.
        corpus_digest: SHA-256 of the token ids.
        corpus_revision: version of the corpus.
        limit: the requested cap on tokens; None = the whole corpus.
        n_first: number of special tokens that the tokenizer puts at the start of each window; they are never
            predicted.
    """

    input_ids: Tensor
    protocol: str
    corpus_digest: str
    corpus_revision: str
    limit: int | None
    n_first: int = 0


def check_source(name: str, split: Split = "calibration") -> None:
    """Checks a corpus's name as far as possible before anything is fetched or imported.

    Raises:
        InputError: it is neither a built-in or hub corpus nor a file with a known suffix, or it supports
            only the other split.
    """
    for corpus in BUILT_IN_CORPORA:
        if corpus.name == name:
            if split not in corpus.splits:
                raise InputError(
                    f"corpus {name!r} is for {' and '.join(corpus.splits)} only, not for {split}"
                )
            return
    suffixes = (*TEXT_SUFFIXES, ".safetensors") if split == "calibration" else TEXT_SUFFIXES
    path = Path(name).expanduser()
    if path.suffix.lower() in suffixes:
        if not path.is_file():
            raise InputError(f"{split} file {name!r} does not exist")
        return
    if path.is_file():
        raise InputError(f"{split} file {name!r} does not end in one of {', '.join(suffixes)}")
    names = [corpus.name for corpus in BUILT_IN_CORPORA if split in corpus.splits]
    raise InputError(
        f"unknown corpus {name!r}{did_you_mean(name, names, or_all=False)} (one of {', '.join(names)}, or a "
        f"file: {', '.join(suffixes)})"
    )


def calibration_set(spec: CalibrationSpec, tokenizer: PreTrainedTokenizerBase | None) -> CalibrationSet:
    """Draws the token sequences that a method is calibrated on.

    The first `n_samples` rows of a `.safetensors` file are used unchanged. From `c4`, each sequence is
    cropped from a different document that is longer than `seqlen`. From every other text, sequences start at
    positions drawn uniformly from the joined, tokenized calibration part; they may overlap. If the spec's
    `first_token` is `always`, each sequence begins with the tokens that the tokenizer puts first, followed
    by text.

    Args:
        spec: source, number and length of the sequences, and seed.
        tokenizer: the model's tokenizer; it may be None for a `.safetensors` source only.

    Raises:
        InputError: the source is unknown or broken, or has fewer tokens than requested.
        AssetError: an offline corpus could not be fetched.
    """
    from methods.base import CalibrationSet

    check_source(spec.source, "calibration")
    seed: int | None = spec.seed
    is_stored = holds_tokens(spec.source)
    first = _put_first(spec, tokenizer, f"calibration {spec.source!r}", is_stored=is_stored)
    if is_stored:
        input_ids, seed = _stored_rows(spec), None
    elif spec.source == "c4":
        texts = read_documents(spec.source, "calibration").texts
        input_ids = cropped_windows(texts, require_tokenizer(tokenizer, spec.source), spec, first)
    else:
        tokens, _ = tokenized_text(spec.source, "calibration", tokenizer, bare=bool(first))
        input_ids = _random_windows(tokens, spec, first)
    return CalibrationSet(input_ids, spec.source, seed)


def evaluation_windows(spec: PerplexitySpec, tokenizer: PreTrainedTokenizerBase | None) -> EvaluationWindows:
    """Cuts a corpus's held-out part into windows, from its start, without overlap; the tail is dropped.

    A local file has no held-out part: all of it is used. If the spec's `first_token` is `always`, each window
    begins with the tokens that the tokenizer puts first, followed by text.

    Raises:
        InputError: the corpus is unknown or broken, or the text (or `max_tokens`) is shorter than one window.
        AssetError: an offline corpus could not be fetched.
    """
    from methods.base import token_digest

    check_source(spec.corpus, "evaluation")
    if spec.max_tokens is not None and spec.max_tokens < spec.seqlen:
        raise InputError(
            f"corpus {spec.corpus!r}: max_tokens {spec.max_tokens} is less than one window of {spec.seqlen}"
        )
    first = _put_first(spec, tokenizer, f"corpus {spec.corpus!r}")
    tokens, revision = tokenized_text(spec.corpus, "evaluation", tokenizer, bare=bool(first))
    n_text = spec.seqlen - len(first)
    if len(tokens) < n_text:
        raise InputError(
            f"corpus {spec.corpus!r} has {len(tokens)} tokens to evaluate on, but one window needs "
            f"{n_text}: give a longer text, or lower seqlen"
        )
    n_windows = len(tokens) // n_text
    if spec.max_tokens is not None:
        n_windows = min(n_windows, spec.max_tokens // spec.seqlen)
    if spec.corpus == "c4-paper":
        n_windows = min(n_windows, _PAPER_WINDOWS)
    input_ids = _led_by(first, tokens[: n_windows * n_text].reshape(n_windows, n_text))
    return EvaluationWindows(
        input_ids, spec.protocol, token_digest(input_ids), revision, spec.max_tokens, len(first)
    )


def holds_tokens(source: str) -> bool:
    """Whether a calibration source is a file of token ids, which are used unchanged."""
    return source.lower().endswith(".safetensors")


def _put_first(
    spec: CalibrationSpec | PerplexitySpec,
    tokenizer: PreTrainedTokenizerBase | None,
    what: str,
    *,
    is_stored: bool = False,
) -> tuple[int, ...]:
    """The tokens that each sequence begins with; none unless the spec's `first_token` is `always`."""
    if spec.first_token != "always":
        return ()
    if is_stored:
        raise InputError(f"{what} is a file of token ids, which get no first token: remove first_token")
    first = first_tokens(require_tokenizer(tokenizer, what))
    if not first:
        raise InputError(f"{what}: first_token is 'always', and the model's tokenizer puts no token first")
    if spec.seqlen <= len(first):
        raise InputError(
            f"{what}: seqlen {spec.seqlen} leaves no room for text after {len(first)} first tokens"
        )
    return first


def _led_by(first: Sequence[int], windows: Tensor) -> Tensor:
    """Puts `first` before each of the windows `[n, seqlen - len(first)]`; returns a copy `[n, seqlen]`."""
    import torch

    lead = torch.tensor(first, dtype=torch.int64).expand(len(windows), len(first))
    return torch.cat([lead, windows], dim=1)


def cropped_windows(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    spec: CalibrationSpec,
    lead: Sequence[int] = (),
) -> Tensor:
    """Crops windows at random positions from random documents longer than `seqlen`, one per document.

    Documents are visited in random order and at most once, so the search ends however short they are.

    Returns:
        int64 `[n_samples, seqlen]`.

    Raises:
        InputError: too few documents are long enough.
    """
    import torch

    n_text = spec.seqlen - len(lead)
    generator = torch.Generator().manual_seed(spec.seed)
    order = torch.randperm(len(texts), generator=generator).tolist()
    windows: list[Tensor] = []
    for first in range(0, len(order), _CROP_BATCH):
        batch = [texts[index] for index in order[first : first + _CROP_BATCH]]
        # A text has at most as many tokens as bytes (plus a few special ones): skip texts that are too short.
        batch = [text for text in batch if len(text.encode()) + 8 > n_text]
        found = tokens_of(tokenizer, batch, spec.source, add_special_tokens=not lead) if batch else []
        for ids in found:
            if len(ids) > n_text:
                start = int(torch.randint(0, len(ids) - n_text + 1, (1,), generator=generator))
                windows.append(torch.tensor(ids[start : start + n_text], dtype=torch.int64))
            if len(windows) == spec.n_samples:
                return _led_by(lead, torch.stack(windows))
    raise InputError(
        f"calibration {spec.source!r}: only {len(windows)} of its {len(texts)} documents have more than "
        f"{n_text} tokens, but {spec.n_samples} are needed: lower n_samples or seqlen"
    )


def _random_windows(tokens: Tensor, spec: CalibrationSpec, first: Sequence[int]) -> Tensor:
    """Cuts windows, int64 `[n_samples, seqlen]`, at uniformly drawn positions from a text of tokens `[n]`."""
    import torch

    n_text = spec.seqlen - len(first)
    wanted = spec.n_samples * n_text
    if len(tokens) < wanted:
        raise InputError(
            f"calibration {spec.source!r} has {len(tokens)} tokens, but {spec.n_samples} samples of "
            f"{n_text} need {wanted}: give a longer text, or lower n_samples or seqlen"
        )
    generator = torch.Generator().manual_seed(spec.seed)
    starts = torch.randint(0, len(tokens) - n_text + 1, (spec.n_samples, 1), generator=generator)
    return _led_by(first, tokens[starts + torch.arange(n_text)])


def _stored_rows(spec: CalibrationSpec) -> Tensor:
    """Reads the first `n_samples` rows of a `.safetensors` file's `input_ids`."""
    from safetensors import SafetensorError, safe_open

    name = f"calibration file {spec.source!r}"
    try:
        with safe_open(Path(spec.source).expanduser(), framework="pt") as file:
            if "input_ids" not in file.keys():  # noqa: SIM118 - the handle is not a mapping
                raise InputError(f"{name} has no tensor 'input_ids', only {', '.join(sorted(file.keys()))}")
            stored = file.get_slice("input_ids")
            shape, dtype = stored.get_shape(), stored.get_dtype()
            if len(shape) != 2 or dtype != "I64":
                raise InputError(f"{name}: input_ids must be int64 [n, seqlen], not {dtype} {shape}")
            if shape[0] < spec.n_samples or shape[1] != spec.seqlen:
                raise InputError(
                    f"{name} has {shape[0]} rows of {shape[1]} tokens, but {spec.n_samples} of "
                    f"{spec.seqlen} are needed: set n_samples and seqlen to match the file"
                )
            rows: Tensor = stored[: spec.n_samples]
            if (lowest := int(rows.min())) < 0:
                raise InputError(f"{name}: {lowest} is not a token id")
            return rows
    except (SafetensorError, OSError) as error:
        raise InputError(f"{name} is not a safetensors file: {error}") from error


def check_vocabulary(input_ids: Tensor, n_tokens: int, spec: CalibrationSpec | PerplexitySpec) -> None:
    """Checks that a model has an embedding for every token of the sequences.

    Args:
        input_ids: token ids, int64 `[n, seqlen]`.
        n_tokens: number of rows of the model's embedding.
        spec: the source of the sequences, for the message.

    Raises:
        InputError: a token has no embedding.
    """
    highest = int(input_ids.max())
    if highest >= n_tokens:
        source = spec.corpus if isinstance(spec, PerplexitySpec) else spec.source
        made, cause = "the tokenizer makes", "the tokenizer belongs to another model"
        if holds_tokens(source):
            made, cause = "there is", "it was tokenized for another model"
        raise InputError(
            f"{made} token {highest} in {source!r}, but the model has embeddings for {n_tokens} tokens only: "
            f"{cause}, or the embedding was cut"
        )


__all__ = [
    "BUILT_IN_CORPORA",
    "BuiltInCorpus",
    "EvaluationWindows",
    "calibration_set",
    "check_source",
    "check_vocabulary",
    "cropped_windows",
    "evaluation_windows",
    "holds_tokens",
]
