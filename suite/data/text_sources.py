"""Reads the documents of built-in corpora, of data sets on the hub, and of local files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from methods.errors import InputError, reason
from suite.data.assets import NEWS_TEXTS, WIKI_DUMP, fetch

Split = Literal["calibration", "evaluation"]

HELD_OUT_EVERY = 4
"""Every fourth document of an offline corpus is held out for evaluation."""

WIKITEXT_COMMIT = "b08601e04326c79dfdd32d625aee71d232d685c3"
C4_COMMIT = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"
C4_DOCUMENTS = 2_000
"""Number of documents of C4's first validation file that are the held-out text: about a million tokens. The
whole file has 45,576 documents, too many to tokenize at once in memory."""
C4_PAPER_DOCUMENTS = 1_100

TEXT_SUFFIXES = (".txt", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Documents:
    """The documents of one split of a corpus.

    Attributes:
        texts: the documents in the order of the corpus; may be read from disk on access.
        revision: the version of the corpus; the same source, split and revision always have the same texts.
        separator: the string between documents when they are joined into one text.
    """

    texts: Sequence[str]
    revision: str
    separator: str = "\n\n"

    @property
    def joined(self) -> str:
        """All documents as one text."""
        return self.separator.join(self.texts)


def read_documents(source: str, split: Split) -> Documents:
    """Reads the documents of one split of a corpus.

    Args:
        source: a built-in corpus, a hub corpus or a `.txt`, `.jsonl` or `.parquet` file.
        split: the part to read. Built-in and hub corpora never share a document between the two; a local file
            is used whole for both, so users have to give different files.

    Raises:
        InputError: the file cannot be read in the format of its suffix, or the hub cannot be reached.
        AssetError: an offline corpus could not be fetched.
    """
    if source in _CORPORA:
        return _corpus_documents(source, split)
    return _file_documents(Path(source).expanduser(), source)


def split_documents(texts: Sequence[str], split: Split) -> tuple[str, ...]:
    """Returns the documents of an offline corpus that belong to a split: every fourth one is held out."""
    held_out = split == "evaluation"
    return tuple(
        text for index, text in enumerate(texts) if (index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) is held_out
    )


def distinct_documents(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the documents without near-copies of earlier ones.

    Two texts are copies if they share more than half of the shorter one's runs of five words. News agencies
    resend a story when a sentence changes, and a copy in the held-out part would make a method look better.
    """
    kept: list[tuple[str, set[tuple[str, ...]]]] = []
    for text in texts:
        words = text.lower().split()
        runs = {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}
        if not any(2 * len(runs & other) > min(len(runs), len(other)) for _, other in kept):
            kept.append((text, runs))
    return tuple(text for text, _ in kept)


@lru_cache(maxsize=8)
def _corpus_documents(source: str, split: Split) -> Documents:
    return _CORPORA[source](split)


def _wiki_sample(split: Split) -> Documents:
    from suite.data.wiki_sample import cleaner, wiki_articles

    texts = [f"{article.title}\n\n{article.text}" for article in wiki_articles()]
    return Documents(split_documents(texts, split), f"{WIKI_DUMP.requirement} {cleaner()}")


def _news_sample(split: Split) -> Documents:
    lines = fetch(NEWS_TEXTS).read_text(encoding="utf-8").splitlines()
    texts = distinct_documents([line.strip() for line in lines if line.strip()])
    return Documents(split_documents(texts, split), NEWS_TEXTS.requirement)


def _wikitext2(split: Split) -> Documents:
    part = "train" if split == "calibration" else "test"
    filename = f"wikitext-2-raw-v1/{part}-00000-of-00001.parquet"
    texts = tuple(_hub_texts("parquet", "Salesforce/wikitext", filename, WIKITEXT_COMMIT))
    return Documents(texts, WIKITEXT_COMMIT)


def _c4(split: Split) -> Documents:
    if split == "calibration":
        texts = _hub_texts("json", "allenai/c4", "en/c4-train.00000-of-01024.json.gz", C4_COMMIT)
        return Documents(texts, C4_COMMIT)
    return Documents(tuple(_c4_validation(C4_DOCUMENTS)), C4_COMMIT)


def _c4_paper(split: Split) -> Documents:
    if split == "calibration":
        raise InputError("c4-paper is an evaluation protocol: calibrate on 'c4'")
    return Documents(tuple(_c4_validation(C4_PAPER_DOCUMENTS)), C4_COMMIT, separator=" ")


def _c4_validation(n_documents: int) -> Sequence[str]:
    texts = _hub_texts("json", "allenai/c4", "en/c4-validation.00000-of-00008.json.gz", C4_COMMIT)
    return texts[:n_documents]


_CORPORA: dict[str, Callable[[Split], Documents]] = {
    "wiki-sample": _wiki_sample,
    "news-sample": _news_sample,
    "wikitext2": _wikitext2,
    "c4": _c4,
    "c4-paper": _c4_paper,
}


def _hub_texts(file_format: str, repository: str, filename: str, commit: str) -> Sequence[str]:
    """Returns the `text` column of one file of a data set at a pinned commit; it is read on access."""
    from datasets import load_dataset

    from suite.data.hub import dataset_file

    path = dataset_file(repository, filename, commit)
    rows: Any = load_dataset(file_format, data_files=str(path), split="train")
    texts: Sequence[str] = rows["text"]
    return texts


def _file_documents(path: Path, name: str) -> Documents:
    readers = {".txt": _read_text, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    try:
        content = path.read_bytes()
        reader = readers[path.suffix.lower()]
    except OSError as error:
        raise InputError(f"text file {name!r} cannot be read: {error.strerror or error}") from error
    except KeyError as error:
        raise InputError(f"text file {name!r} does not end in one of {', '.join(TEXT_SUFFIXES)}") from error
    texts = reader(content, name)
    if not any(text.strip() for text in texts):
        raise InputError(f"text file {name!r} contains no text")
    return Documents(texts, f"sha256:{hashlib.sha256(content).hexdigest()}")


def _read_text(content: bytes, name: str) -> tuple[str, ...]:
    try:
        return (content.decode("utf-8-sig"),)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"text file {name!r}, line {line}: not UTF-8") from error


def _read_json_lines(content: bytes, name: str) -> tuple[str, ...]:
    texts = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"text file {name!r}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(f'text file {name!r}, line {number}: not an object with a string under "text"')
        if (why := _unencodable(row["text"])) is not None:
            raise InputError(f"text file {name!r}, line {number}: {why}")
        texts.append(row["text"])
    return tuple(texts)


def _unencodable(text: str) -> str | None:
    """Returns why no tokenizer can read a text, or None. JSON can encode half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"its text has \\u{ord(text[error.start]):04x}, a lone surrogate, which is not a character"
    return None


def _read_parquet(content: bytes, name: str) -> tuple[str, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        columns = file.schema_arrow.names
        texts = file.read(columns=["text"])["text"].to_pylist() if "text" in columns else None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"text file {name!r} is not a parquet file: {reason(error)}") from error
    if texts is None:
        raise InputError(f"text file {name!r} has no column 'text', only {', '.join(columns)}")
    if (row := next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)) is not None:
        raise InputError(f"text file {name!r}, row {row}: its 'text' is not a string")
    return tuple(texts)


__all__ = [
    "C4_COMMIT",
    "TEXT_SUFFIXES",
    "WIKITEXT_COMMIT",
    "Documents",
    "Split",
    "distinct_documents",
    "read_documents",
    "split_documents",
]
