"""Text to tokens: what a calibration set and evaluation windows are made of, and what is refused."""

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from methods.base import token_digest
from methods.errors import InputError
from suite.cell import CalibrationSpec, PerplexitySpec
from suite.data.corpora import (
    BUILT_IN_CORPORA,
    calibration_set,
    check_source,
    check_vocabulary,
    cropped_windows,
    evaluation_windows,
)
from suite.data.text_sources import (
    C4_COMMIT,
    WIKITEXT_COMMIT,
    distinct_documents,
    read_documents,
    split_documents,
)
from suite.data.wiki_sample import plain_text
from tests.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()
LETTERS = "".join(chr(97 + (i * 7) % 26) for i in range(1000))


def spec(source: object, n_samples: int = 4, seqlen: int = 32, seed: int = 0) -> CalibrationSpec:
    return CalibrationSpec(source=str(source), n_samples=n_samples, seqlen=seqlen, seed=seed)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LETTERS)
    return path


def message(caught: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_calibration_is_decided_by_its_seed(text_file: Path) -> None:
    first = calibration_set(spec(text_file), TOKENIZER)
    assert first.digest == calibration_set(spec(text_file), byte_tokenizer()).digest
    assert first.digest != calibration_set(spec(text_file, seed=1), TOKENIZER).digest
    assert first.input_ids.shape == (4, 32)
    assert (first.source, first.seed) == (str(text_file), 0)


def test_calibration_windows_are_runs_of_the_text(text_file: Path) -> None:
    for row in calibration_set(spec(text_file), TOKENIZER).input_ids:
        assert TOKENIZER.decode(row) in LETTERS


def test_calibration_windows_reach_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("abcd" * 8)
    windows = calibration_set(spec(path, n_samples=1, seqlen=31, seed=0), TOKENIZER)
    starts = {
        TOKENIZER.decode(calibration_set(spec(path, 1, 31, seed), TOKENIZER).input_ids[0])[0]
        for seed in range(20)
    }
    assert windows.seqlen == 31
    assert starts == {"a", "b"}


def test_text_shorter_than_asked_for_names_both_numbers(text_file: Path) -> None:
    with pytest.raises(InputError) as caught:
        calibration_set(spec(text_file, n_samples=40), TOKENIZER)
    assert "1000 tokens" in message(caught)
    assert str(40 * 32) in message(caught)


def test_evaluation_windows_cover_the_text_from_its_start(text_file: Path) -> None:
    windows = evaluation_windows(PerplexitySpec(corpus=str(text_file), seqlen=300), TOKENIZER)
    assert windows.input_ids.shape == (3, 300)
    assert TOKENIZER.decode(windows.input_ids.flatten()) == LETTERS[:900]
    assert windows.corpus_digest == token_digest(windows.input_ids)
    assert windows.protocol == f"{text_file}-token-s300"
    assert windows.corpus_revision.startswith("sha256:")
    assert windows.limit is None


def test_max_tokens_keeps_whole_windows(text_file: Path) -> None:
    windows = evaluation_windows(PerplexitySpec(corpus=str(text_file), seqlen=100, max_tokens=250), TOKENIZER)
    assert windows.input_ids.shape == (2, 100)
    assert windows.limit == 250
    with pytest.raises(InputError, match="less than one window of 100"):
        evaluation_windows(PerplexitySpec(corpus=str(text_file), seqlen=100, max_tokens=50), TOKENIZER)


def test_evaluation_text_shorter_than_one_window_names_both_numbers(text_file: Path) -> None:
    with pytest.raises(InputError, match=r"1000 tokens.*2048"):
        evaluation_windows(PerplexitySpec(corpus=str(text_file)), TOKENIZER)


def test_changed_file_is_read_anew(text_file: Path) -> None:
    before = evaluation_windows(PerplexitySpec(corpus=str(text_file), seqlen=100), TOKENIZER)
    text_file.write_text(LETTERS[::-1])
    after = evaluation_windows(PerplexitySpec(corpus=str(text_file), seqlen=100), TOKENIZER)
    assert before.corpus_digest != after.corpus_digest
    assert before.corpus_revision != after.corpus_revision


def test_every_file_format_gives_the_same_documents(tmp_path: Path) -> None:
    texts = ["first document", "second\ndocument, accentué"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n\n")
    pd.DataFrame({"text": texts, "other": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    joined = {read_documents(str(path), "evaluation").joined for path in tmp_path.iterdir()}
    assert joined == {"\n\n".join(texts)}


@pytest.mark.parametrize("line", ["{broken", '{"words": "x"}', '{"text": 3}', '["text"]', "\udcff"])
def test_broken_json_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"text": "fine"}\n\n' + line.encode(errors="surrogateescape") + b'\n{"text": "fine"}\n'
    )
    with pytest.raises(InputError) as caught:
        read_documents(str(path), "calibration")
    assert "line 3" in message(caught)


def test_broken_files_are_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"fine\nna\xefve")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "none.parquet").write_bytes(b"PAR1 and no more")
    pd.DataFrame({"words": ["x"]}).to_parquet(tmp_path / "columns.parquet")
    pd.DataFrame({"text": ["x", None]}).to_parquet(tmp_path / "null.parquet")
    expected = {
        "latin.txt": "line 2: not UTF-8",
        "empty.txt": "contains no text",
        "none.parquet": "not a parquet file",
        "columns.parquet": "no column 'text', only words",
        "null.parquet": "row 1",
    }
    for name, words in expected.items():
        with pytest.raises(InputError) as caught:
            read_documents(str(tmp_path / name), "calibration")
        assert words in message(caught)


def test_stored_token_ids_are_used_as_they_stand(tmp_path: Path) -> None:
    rows = torch.arange(6 * 8).reshape(6, 8)
    path = tmp_path / "ids.safetensors"
    save_file({"input_ids": rows}, path)
    calibration = calibration_set(spec(path, 4, 8, seed=7), None)
    assert torch.equal(calibration.input_ids, rows[:4])
    assert calibration.seed is None
    check_vocabulary(calibration.input_ids, int(rows[:4].max()) + 1, spec(path, 4, 8))


def test_stored_token_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.safetensors"
    save_file({"input_ids": torch.arange(6 * 8).reshape(6, 8)}, path)
    for wrong, words in [
        (spec(path, 7, 8), "6 rows of 8 tokens, but 7 of 8"),
        (spec(path, 6, 4), "6 rows of 8 tokens, but 6 of 4"),
    ]:
        with pytest.raises(InputError) as caught:
            calibration_set(wrong, None)
        assert words in message(caught)
    with pytest.raises(
        InputError, match=r"is token 47 in .*, but the model has embeddings for 47 tokens only: it was"
    ):
        check_vocabulary(calibration_set(spec(path, 6, 8), None).input_ids, 47, spec(path, 6, 8))
    save_file({"input_ids": torch.full((6, 8), -1)}, path)
    with pytest.raises(InputError, match="-1 is not a token id"):
        calibration_set(spec(path, 6, 8), None)
    save_file({"input_ids": torch.ones(6, 8)}, path)
    with pytest.raises(InputError, match=r"int64 \[n, seqlen\], not F32"):
        calibration_set(spec(path, 6, 8), None)
    save_file({"tokens": torch.ones(6, 8)}, path)
    with pytest.raises(InputError, match="only tokens"):
        calibration_set(spec(path, 6, 8), None)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not a safetensors file"):
        calibration_set(spec(path, 6, 8), None)


def test_text_without_tokenizer_says_what_to_give(text_file: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer.*\.safetensors"):
        calibration_set(spec(text_file), None)


def test_sources_are_checked_before_anything_is_fetched(tmp_path: Path, text_file: Path) -> None:
    check_source(str(text_file))
    for corpus in BUILT_IN_CORPORA:
        for split in corpus.splits:
            check_source(corpus.name, split)
    (tmp_path / "notes.csv").write_text("a,b")
    for name, split, words in [
        ("wiki-smple", "calibration", "did you mean 'wiki-sample'"),
        (str(tmp_path / "missing.jsonl"), "calibration", "does not exist"),
        (str(tmp_path / "notes.csv"), "calibration", "does not end in one of .txt"),
        (str(tmp_path / "ids.safetensors"), "evaluation", "unknown corpus"),
        ("c4-paper", "calibration", "evaluation only"),
    ]:
        with pytest.raises(InputError) as caught:
            check_source(name, split)
        assert words in message(caught)


def test_splits_share_no_document_and_lose_none() -> None:
    texts = [str(number) for number in range(11)]
    calibration, evaluation = split_documents(texts, "calibration"), split_documents(texts, "evaluation")
    assert evaluation == ("3", "7")
    assert sorted(calibration + evaluation, key=int) == texts


def test_copies_of_a_story_are_dropped() -> None:
    story = "the fire moved towards the town as strong winds changed in the afternoon of the second day"
    other = "the bank cut its rate by a quarter of a point and the currency fell a little on the news"
    assert distinct_documents([story, other, story + " officials said", other]) == (story, other)


def test_crops_come_from_long_documents_only_each_once() -> None:
    texts = ["short"] * 50 + [chr(97 + i) * 40 for i in range(5)]
    windows = cropped_windows(texts, TOKENIZER, spec("c4", 5, 32))
    assert windows.shape == (5, 32)
    assert {TOKENIZER.decode(row) for row in windows} == {chr(97 + i) * 32 for i in range(5)}
    assert torch.equal(windows, cropped_windows(texts, TOKENIZER, spec("c4", 5, 32)))


def test_search_for_long_documents_ends() -> None:
    with pytest.raises(InputError, match="only 1 of its 201 documents have more than 32 tokens, but 2"):
        cropped_windows(["x" * 32] * 200 + ["x" * 33], TOKENIZER, spec("c4", 2, 32))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub that cannot be reached, with small stand-ins for the real files in its cache."""
    import datasets
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    from suite.data import text_sources

    def unreachable(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("no connection")

    monkeypatch.setattr(HfApi, "repo_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    text_sources._corpus_documents.cache_clear()
    yield tmp_path / "hub"
    text_sources._corpus_documents.cache_clear()


def write_c4(hub: Path, name: str, texts: list[str]) -> None:
    folder = hub / "datasets--allenai--c4" / "snapshots" / C4_COMMIT / "en"
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / name, "wt") as file:
        file.writelines(json.dumps({"text": text, "url": "u"}) + "\n" for text in texts)


def test_wikitext2_keeps_its_empty_lines(hub: Path) -> None:
    folder = hub / "datasets--Salesforce--wikitext" / "snapshots" / WIKITEXT_COMMIT / "wikitext-2-raw-v1"
    folder.mkdir(parents=True)
    pd.DataFrame({"text": ["", " = Title = \n", "", " Text . \n"]}).to_parquet(
        folder / "test-00000-of-00001.parquet"
    )
    documents = read_documents("wikitext2", "evaluation")
    assert documents.joined == "\n\n = Title = \n\n\n\n\n Text . \n"
    assert documents.revision == WIKITEXT_COMMIT
    with pytest.raises(InputError, match=r"'Salesforce/wikitext'.*could not be reached"):
        read_documents("wikitext2", "calibration")


def test_c4_crops_documents_to_calibrate(hub: Path) -> None:
    write_c4(hub, "c4-train.00000-of-01024.json.gz", ["short"] * 40 + ["abc" * 20, "def" * 20])
    calibration = calibration_set(spec("c4", 2, 48), TOKENIZER)
    assert {"".join(sorted(set(TOKENIZER.decode(row)))) for row in calibration.input_ids} == {"abc", "def"}


def test_c4_paper_is_a_protocol_of_its_own(hub: Path) -> None:
    write_c4(hub, "c4-validation.00000-of-00008.json.gz", [f"{number:04d}" for number in range(1200)])
    paper = evaluation_windows(PerplexitySpec(corpus="c4-paper", seqlen=10), TOKENIZER)
    plain = evaluation_windows(PerplexitySpec(corpus="c4", seqlen=10), TOKENIZER)
    assert paper.input_ids.shape == (256, 10)
    assert TOKENIZER.decode(paper.input_ids[0]) == "0000 0001 "
    assert TOKENIZER.decode(plain.input_ids[0]) == "0000\n\n0001"
    assert plain.input_ids.shape == ((1200 * 6 - 2) // 10, 10)
    assert paper.protocol == "c4-paper-token-s10"
    assert paper.corpus_revision == C4_COMMIT


def test_wiki_markup_leaves_sentences() -> None:
    markup = """{{Infobox|name=x}}
'''Aardvark''' (''Orycteropus afer'', {{IPA|x}}) is a [[mammal|burrowing mammal]].<ref>Some ''book''.</ref>
[[File:Aardvark.jpg|thumb|An aardvark]]
== Habits ==
It eats [[ant]]s.
{| class="wikitable"
| cell
|}
=== See also ===
* [[Anteater]]
== References ==
{{reflist}}
=== Further ===
A book.
== Names ==
Earth pig.
[[Category:Mammals]]
[[de:Erdferkel]]
"""
    assert plain_text(markup).split("\n\n") == [
        "Aardvark (Orycteropus afer) is a burrowing mammal.",
        "Habits",
        "It eats ants.",
        "Names",
        "Earth pig.",
    ]


@pytest.mark.model
class TestOfflineCorpora:
    @pytest.mark.parametrize(
        ("source", "n_calibration", "n_evaluation"), [("wiki-sample", 71, 23), ("news-sample", 217, 72)]
    )
    def test_splits_are_disjoint_and_of_known_size(
        self, source: str, n_calibration: int, n_evaluation: int
    ) -> None:
        calibration = read_documents(source, "calibration").texts
        evaluation = read_documents(source, "evaluation").texts
        assert (len(calibration), len(evaluation)) == (n_calibration, n_evaluation)
        assert not set(calibration) & set(evaluation)

    def test_dense_perplexity_is_that_of_the_model(self) -> None:
        """Wrongly restored weights or tokens give hundreds; the model's own figure is between 20 and 30."""
        from suite.models.loading import load_model

        loaded = load_model("smollm2-135m")
        windows = evaluation_windows(
            PerplexitySpec(corpus="wiki-sample", seqlen=512, max_tokens=2048), loaded.tokenizer
        )
        with torch.no_grad():
            losses = [loaded.model(row[None], labels=row[None]).loss.item() for row in windows.input_ids]
        assert 18 < math.exp(sum(losses) / len(losses)) < 30
