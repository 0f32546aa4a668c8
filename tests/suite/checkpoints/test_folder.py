"""Where results go is looked at before anything is computed, and nothing that was computed is lost."""

import threading

import pytest

from methods.errors import InputError, PruningError
from suite.checkpoints.writing import folder as folders
from suite.checkpoints.writing.folder import atomic_folder
from suite.results import ResultStore
from suite.results.records.pruning_file import read_pruning
from tests.suite.conftest import refusal
from tests.suite.test_model_files import change_tensors
from tests.tiny import write_suite

HALF = ("--method", "wanda", "--sparsity", "0.5")


@pytest.fixture
def nothing_runs(monkeypatch):
    """No model is loaded."""

    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("suite.models.loading.skeleton_of", loaded)


@pytest.fixture
def evaluate(prunebench, text):
    def call(model, *arguments):
        return prunebench(
            *("evaluate", model, "--perplexity", text, "--seqlen", 32, "--max-tokens", 320, "--task", "none"),
            *("--prompts", "none", "--no-speed", "--dtype", "float32", *arguments),
        )

    return call


@pytest.mark.parametrize("out", ["a-file", "a-file/below", "a-file/far/below", "n" * 300])
def test_a_place_that_cannot_be_is_refused_before_anything_runs(
    prune, prunebench, evaluate, model, tmp_path, nothing_runs, out
):
    (tmp_path / "a-file").write_text("mine")
    suite = write_suite(tmp_path, methods="magnitude")
    for answer in (
        prune(*HALF, "--out", out),
        evaluate(model, "--out", out),
        prunebench("run", suite, "--out", out),
        prunebench("verify", tmp_path, "--keep", out),
    ):
        line = refusal(answer)
        assert "is a file" in line or "too long" in line
    assert (tmp_path / "a-file").read_text() == "mine"


def test_a_name_that_leaves_no_room_for_another_beside_it_is_refused(prune, tmp_path):
    assert "cannot be created" in refusal(prune(*HALF, "--out", "n" * 250))


def test_a_folder_that_is_written_to_is_refused(prune, tmp_path):
    with atomic_folder(tmp_path / "pruned") as staging:
        (staging / "part").write_text("of the first")
        assert "another prune is writing there" in refusal(prune(*HALF))
        (staging / "rest").write_text("of the first")
    assert sorted(path.name for path in (tmp_path / "pruned").iterdir()) == ["part", "rest"]
    assert "not empty" in refusal(prune(*HALF))


def test_of_two_at_once_one_writes_and_the_other_says_so(tmp_path):
    inside, go_on, refused = threading.Event(), threading.Event(), []

    def first():
        with atomic_folder(tmp_path / "out") as staging:
            inside.set()
            go_on.wait(30)
            (staging / "a").write_text("first")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(30)
    with pytest.raises(InputError) as caught, atomic_folder(tmp_path / "out"):
        refused.append("it was let in")
    go_on.set()
    thread.join()
    assert "another prune" in str(caught.value)
    assert not refused
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_what_a_killed_process_left_is_cleared_away(prune, tmp_path):
    left = tmp_path / ".pruned.unfinished"
    (left / "deep").mkdir(parents=True)
    (left / ".writing").touch()
    (left / "model.safetensors").write_text("half")
    assert prune(*HALF)[0] == 0
    assert not left.exists()
    assert "deep" not in [path.name for path in (tmp_path / "pruned").iterdir()]
    assert not (tmp_path / "pruned" / ".writing").exists()


def test_a_checkpoint_whose_place_was_taken_meanwhile_is_kept_beside_it(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(PruningError, match="was filled by another process") as caught:  # noqa: SIM117
        with atomic_folder(out) as staging:
            (staging / "weights").write_text("computed")
            out.mkdir()
            (out / "theirs").write_text("theirs")
    (kept,) = [path for path in tmp_path.iterdir() if path != out]
    assert str(kept) in str(caught.value)
    assert (kept / "weights").read_text() == "computed"
    assert (out / "theirs").read_text() == "theirs"


def test_a_body_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out") as staging:
        (staging / "a").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_not_part_of_the_checkpoint(prune, tmp_path):
    assert prune(*HALF)[0] == 0
    assert folders._LOCK not in [path.name for path in (tmp_path / "pruned").iterdir()]


def test_a_record_of_other_weights_is_not_replaced(evaluate, model, tmp_path):
    assert evaluate(model, "--out", "results")[0] == 0
    (before,) = ResultStore(tmp_path / "results").records().records
    change_tensors(model, lambda tensors: tensors["model.norm.weight"].mul_(2))
    assert "were changed since: give another --out" in refusal(evaluate(model, "--out", "results"))
    (after,) = ResultStore(tmp_path / "results").records().records
    assert after == before
    assert evaluate(model, "--out", "elsewhere")[0] == 0


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_nor_is_one_of_other_files_or_another_text(evaluate, model, text, tmp_path, file):
    assert evaluate(model, "--out", "results")[0] == 0
    (model / file).write_text((model / file).read_text() + "\n")
    assert "was changed since: give another --out" in refusal(evaluate(model, "--out", "results"))
    assert evaluate(model, "--out", "other")[0] == 0
    text.write_text(text.read_text().replace("tree", "leaf"))
    assert f"the text of {text}-token-s32 was changed" in refusal(evaluate(model, "--out", "other"))


def test_a_prune_that_fails_takes_the_folders_it_made_with_it(prune, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("suite.running.run_cell.CellRun.prune", fails)
    assert prune(*HALF, "--out", "far/below/pruned")[0] == 3
    assert not (tmp_path / "far").exists()


def test_the_same_weights_are_measured_again(evaluate, model, tmp_path):
    assert [evaluate(model, "--out", "results")[0] for _ in range(2)] == [0, 0]
    assert len(ResultStore(tmp_path / "results").records().records) == 1


def test_the_dense_record_stands_when_the_other_fails(evaluate, prune, model, tmp_path, monkeypatch):
    assert prune(*HALF)[0] == 0

    def fails(*_, **__):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("suite.checkpoints.evaluation.measure_pruned", fails)
    assert evaluate("pruned", "--dense", model, "--out", "results")[0] == 3
    (stored,) = ResultStore(tmp_path / "results").records().records
    assert stored.record.cell.is_dense


def test_pruning_json_says_what_was_remarked(prune, tmp_path):
    assert prune(*HALF)[0] == 0
    assert read_pruning(tmp_path / "pruned").record.warnings == ()
