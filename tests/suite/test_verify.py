"""`prunebench verify`: exit codes, what it prints, and what a rerun proves that nothing else does."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import suite as suite_api
from suite.cell import PerplexitySpec
from suite.results.records.reading import load_record, record_bytes
from suite.results.records.store import ResultStore
from suite.results.statistics.perplexity import perplexity_from_nll
from suite.results.verification import verify as verify_records
from suite.running.rerun import choose
from tests.suite.conftest import refusal
from tests.suite.results.consistent import with_metric
from tests.tiny import write_suite, write_task


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tree that the harness made: dense, magnitude and Wanda at 2:4 on the tiny model, with a task."""
    folder = tmp_path_factory.mktemp("made")
    suite = write_suite(folder, "magnitude wanda", patterns=["2:4"])
    task = write_task(folder / "tasks", n_items=12)
    asks(suite, f'[[tasks]]\nname = "mine"\nfolder = "{task}"\n')
    run_suite(suite)
    return folder


def asks(suite, tables):
    """Puts more tables into a suite file."""
    suite.write_text(suite.read_text().replace("[calibration]", f"{tables}[calibration]"))


def run_suite(suite):
    """Runs a suite file into `results` beside it."""
    outcome = suite_api.run_suite(suite, out=suite.parent / "results", existing="rerun", device="cpu")
    assert not outcome.failed


@pytest.fixture
def tree(made, tmp_path):
    """A copy of it to damage; model and texts stay where they were."""
    return Path(shutil.copytree(made / "results", tmp_path / "results"))


def record_of(tree: Path, method: str) -> Path:
    (path,) = tree.rglob(f"{method}--*.json")
    return path


def forge(path: Path) -> None:
    """Half a nat off every loss, and all that follows from them made right again."""
    record = load_record(path)
    items = ResultStore(path.parent.parent).items(
        next(s for s in ResultStore(path.parent.parent).records().records if s.path == path)
    )
    assert items is not None
    losses = record.windows[0]
    nll = tuple(value - 0.5 for value in losses.nll if value is not None)
    items.loc[items.metric == "nll", "value"] = nll
    estimate = perplexity_from_nll(nll)
    numbers = {field: getattr(estimate, field) for field in ("value", "stderr", "low", "high")}
    forged = record.model_copy(update={"windows": (losses.model_copy(update={"nll": nll}),)})
    ResultStore(path.parent.parent).write(with_metric(forged, "perplexity", **numbers), items)


def test_what_the_harness_writes_is_consistent(prunebench, tree):
    code, out, _ = prunebench("verify", tree)
    assert code == 0, out
    assert "problem (" not in out
    *_, last = out.strip().splitlines()
    assert last.startswith("3 records, 3 verified; 0 problems")
    code, out, _ = prunebench("verify", record_of(tree, "wanda"), "--json")
    found = json.loads(out)
    (record,) = found["records"]
    assert (code, record["passed"], record["rerun"]) == (0, "verified", None)
    assert {"items", "perplexity", "tasks", "flips", "sparsity", "size", "cost"} <= set(record["checks"])
    assert found["problems"] == 0


def test_what_it_writes_of_groups_allocations_and_speed_is_consistent(prunebench, tmp_path):
    """A group within a group, whose score the cell does not name; and everything else a cell can ask for."""
    suite = write_suite(tmp_path, "magnitude", patterns=["0.5"])
    task = write_task(tmp_path / "tasks", n_items=6)
    write_task(task, "mine_too", n_items=6)
    for name, members in (("inner", "[mine, mine_too]"), ("outer", "[inner]")):
        (task / f"{name}.yaml").write_text(
            f"group: {name}\ntask: {members}\n"
            "aggregate_metric_list:\n  - metric: acc\n    weight_by_size: true\n"
        )
    asks(suite, f'[[tasks]]\nname = "outer"\nnum_fewshot = 1\nfolder = "{task}"\n')
    asks(suite, "[speed]\nprompt_tokens = 8\nnew_tokens = 4\n")
    asks(suite, "[answers]\nmax_new_tokens = 3\n")
    asks(suite, '[[methods]]\nname = "wanda"\nallocation = "owl"\n')
    run_suite(suite)
    code, out, _ = prunebench("verify", tmp_path / "results", "--json")
    found = json.loads(out)
    assert code == 0, found["findings"]
    assert len(found["records"]) > 1
    scores = {finding["message"] for finding in found["findings"] if finding["check"] == "metrics"}
    assert {message.split()[1].split("-")[0] for message in scores} == {"inner", "outer"}


def test_what_evaluate_writes_is_consistent(prunebench, prune, model, text, tmp_path):
    code, _, err = prune("--method", "magnitude", "--sparsity", 0.5)
    assert code == 0, err
    asked = (*("--perplexity", text, "--seqlen", 32, "--max-tokens", 320, "--dtype", "float32"),)
    asked += ("--task", "offline_agreement", "--limit", 10, "--max-new-tokens", 3, "--out", "evaluated")
    alone = shutil.copytree(tmp_path / "pruned", tmp_path / "bare")
    (alone / "pruning.json").unlink()
    for name, *dense in (("pruned",), ("bare", "--dense", model), ("model", "--dense", model)):
        code, _, err = prunebench("evaluate", tmp_path / name, *dense, *asked)
        assert code == 0, err
    code, out, _ = prunebench("verify", "evaluated")
    assert code == 0, out
    assert "problem (" not in out
    checkpoints = 0
    for path in Path("evaluated").rglob("*--*--*.json"):  # neither says what the other one says
        record = load_record(path)
        if record.cell.checkpoint is not None:
            checkpoints += 1
            other = "zeros" if record.metric("sparsity").protocol == "target-modules" else "target-modules"
            more = record.metric("sparsity").model_copy(update={"protocol": other})
            path = ResultStore(tmp_path / "other").write(
                record.model_copy(update={"metrics": (*record.metrics, more)}), None
            )
            assert f"has sparsity {other}, which nothing" in prunebench("verify", path)[1]
    assert checkpoints == 2


def test_a_damaged_record_ends_with_one(prunebench, tree):
    path = record_of(tree, "wanda")
    path.write_bytes(path.read_bytes()[:-1])
    code, out, _ = prunebench("verify", tree)
    assert code == 1
    assert f"{path}: problem (file): is cut short" in out
    assert f"{path}: inconsistent" in out
    assert prunebench("verify", record_of(tree, "magnitude"))[0] == 0


def test_wrong_input_is_said_in_one_line(prunebench, tree, tmp_path):
    assert "no such record" in refusal(prunebench("verify", "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "holds no records" in refusal(prunebench("verify", "empty"))
    assert "one record, not 3" in refusal(prunebench("verify", tree, "--checkpoint", "empty"))
    path = record_of(tree, "wanda")
    assert "pruning.json" in refusal(prunebench("verify", path, "--checkpoint", "empty"))
    code, out, err = prunebench("verify", path, "--keep", tree)
    assert (code, out) == (2, "") and "would replace" in err.splitlines()[-1]


def test_of_many_records_only_problems_are_printed(prunebench, tree):
    path = record_of(tree, "wanda")
    for number in range(20):
        (path.parent / f"note{number}").write_text("x")
        shutil.copytree(tree, tree.parent / "more" / str(number))
    record_of(tree.parent / "more" / "7", "wanda").write_text("{")
    code, out, _ = prunebench("verify", tree.parent / "more")
    assert code == 1
    problem, last = out.strip().splitlines()
    assert "problem (file)" in problem and "60 records, 1 inconsistent, 59 verified; 1 problem" in last
    assert "--all shows them" in last
    _, out, _ = prunebench("verify", tree.parent / "more", "--all")
    assert len(out.splitlines()) > 80


def test_a_fabrication_passes_verify_and_not_a_rerun(prunebench, tree):
    path = record_of(tree, "wanda")
    forge(path)
    code, out, _ = prunebench("verify", path)
    assert code == 0 and f"{path}: verified" in out, out
    code, out, _ = prunebench("verify", path, "--rerun")
    assert code == 1
    assert "problem (rerun): 20 windows of" in out and f"{path}: different" in out


def test_honest_records_come_out_again(prunebench, tree, tmp_path):
    code, out, err = prunebench("verify", tree, "--rerun", "--keep", tmp_path / "again")
    assert code == 0, out + err
    assert "3 records, 3 rerun; 0 problems" in out
    code, out, _ = prunebench("verify", tmp_path / "again")
    assert code == 0 and "3 verified" in out
    for path in tree.rglob("*--*--*.json"):
        again = load_record(tmp_path / "again" / path.relative_to(tree))
        assert again.mask_digest == load_record(path).mask_digest


def test_a_sample_is_named_and_depends_on_its_seed_alone(prunebench, tree):
    code, out, err = prunebench("verify", tree, "--sample", 1, "--seed", 3)
    assert code == 0
    (named,) = [line for line in err.splitlines() if line.startswith("reruns ")]
    (path,) = [line.removesuffix(": rerun") for line in out.splitlines() if line.endswith(": rerun")]
    assert named == f"reruns {path}"
    records = verify_records([tree]).records
    assert choose(records, 2, 3) == choose(records[::-1], 2, 3)
    assert len({tuple(r.path for r in choose(records, 1, seed)) for seed in range(20)}) == 3
    assert len(choose(records, 9, 0)) == 3


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("model", "was changed since"),
        ("calibration", "the calibration text"),
        ("windows", "the text of"),
        ("gone", "could not be rerun"),
        ("code of the model", "--trust-remote-code"),
    ],
)
def test_what_cannot_be_rerun_says_which_input_is_another(prunebench, tree, changed, reason):
    path = record_of(tree, "wanda")
    record = load_record(path)
    other = "0" * 64
    updates = {
        "model": {"model": record.model.model_copy(update={"folder_digest": other})},
        "calibration": {"calibration": record.calibration.model_copy(update={"digest": other})},
        "windows": {"windows": (record.windows[0].model_copy(update={"corpus_digest": other}),)},
        "gone": {
            "cell": record.cell.model_copy(update={"perplexity": (_elsewhere(record),)}),
            "windows": (record.windows[0].model_copy(update={"protocol": _elsewhere(record).protocol}),),
        },
        "code of the model": {"cell": record.cell.model_copy(update={"trust_remote_code": True})},
    }[changed]
    record = record.model_copy(update=updates)
    items = ResultStore(tree).items(next(s for s in ResultStore(tree).records().records if s.path == path))
    if changed == "gone":
        old, new = load_record(path).windows[0].protocol, record.windows[0].protocol
        items["protocol"] = items["protocol"].replace(old, new)
        metric = record.metric("perplexity").model_copy(update={"protocol": new})
        record = record.model_copy(
            update={"metrics": tuple(metric if m.name == "perplexity" else m for m in record.metrics)}
        )
    path = ResultStore(tree.parent / "alone").write(record, items)
    code, out, err = prunebench("verify", path, "--rerun")
    assert code == 3, out + err
    assert "could not be rerun" in out and reason in out
    assert f"{path}: verified" in out, "it is still consistent"


def _elsewhere(record) -> PerplexitySpec:
    return record.cell.perplexity[0].model_copy(update={"corpus": "gone.txt"})


def test_other_weights_under_the_same_name_are_told_apart_from_a_fabrication(prunebench, tree):
    path = record_of(tree, "magnitude")
    record = load_record(path)
    items = ResultStore(tree).items(next(s for s in ResultStore(tree).records().records if s.path == path))
    model = record.model.model_copy(update={"weight_digest": "0" * 64})
    path = ResultStore(tree.parent / "alone").write(record.model_copy(update={"model": model}), items)
    code, out, _ = prunebench("verify", path, "--rerun")
    assert code == 3
    assert "could not be rerun: the weights of" in out


def test_a_mask_that_does_not_come_out_again_is_told(prunebench, tree):
    path = record_of(tree, "magnitude")
    record = load_record(path)
    items = ResultStore(tree).items(next(s for s in ResultStore(tree).records().records if s.path == path))
    ResultStore(tree).write(record.model_copy(update={"mask_digest": "0" * 64}), items)
    code, out, _ = prunebench("verify", path, "--rerun")
    assert code == 1 and "problem (rerun): mask_digest is 000000000000, run again" in out
    elsewhere = record.environment.model_copy(update={"processor": "another"})
    ResultStore(tree).write(
        record.model_copy(update={"mask_digest": "0" * 64, "environment": elsewhere}), items
    )
    code, out, _ = prunebench("verify", path, "--rerun")
    assert code == 0 and "remark (rerun): mask_digest is" in out


def items_of(path):
    store = ResultStore(path.parent.parent)
    return store.items(next(stored for stored in store.records().records if stored.path == path))


def cherry_pick(path):
    """The easiest half of the windows, under the digest of all of them, and what follows from these."""
    record, items = load_record(path), items_of(path)
    losses = record.windows[0]
    best = sorted(sorted(range(len(losses.nll)), key=lambda item: losses.nll[item])[: len(losses.nll) // 2])
    nll = tuple(losses.nll[item] for item in best)
    items = items[(items.metric != "nll") | items.item.isin(best)].copy()
    items.loc[items.metric == "nll", "item"] = range(len(best))
    estimate = perplexity_from_nll(nll)
    numbers = {field: getattr(estimate, field) for field in ("value", "stderr", "low", "high", "n")}
    picked = record.model_copy(update={"windows": (losses.model_copy(update={"nll": nll}),)})
    ResultStore(path.parent.parent).write(with_metric(picked, "perplexity", **numbers), items)


def test_windows_that_were_left_out_come_back_in_a_rerun_and_cost_no_other_record(prunebench, tree):
    path = record_of(tree, "magnitude")
    cherry_pick(path)
    code, out, _ = prunebench("verify", path)
    assert code == 0 and "remark (cell)" in out and "has 10 windows, and its limit allows 20" in out
    code, out, _ = prunebench("verify", tree, "--rerun")
    assert code == 1
    assert "problem (rerun): has 10 windows of" in out and "run again 20" in out
    assert f"{record_of(tree, 'wanda')}: rerun" in out
    assert "problem (texts)" in out, "other records have 20 windows of the same tokens"


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**9])
def test_a_record_does_not_choose_how_many_threads_are_started(prunebench, tree, threads):
    path = record_of(tree, "wanda")
    record = load_record(path)
    environment = record.environment.model_copy(update={"threads": threads})
    ResultStore(tree).write(record.model_copy(update={"environment": environment}), items_of(path))
    code, out, _ = prunebench("verify", path, record_of(tree, "magnitude"), "--rerun")
    assert code == 3
    assert f"{path}: remark (rerun): could not be rerun: it says that it ran with {threads} threads" in out
    assert f"{record_of(tree, 'magnitude')}: rerun" in out


@pytest.mark.parametrize("place", ["preflight", "compare_rerun"])
def test_whatever_one_record_raises_costs_no_other(prunebench, tree, monkeypatch, place):
    from suite.running import rerun

    right = getattr(rerun, place)

    def wrong(of, *more):
        cells = of if place == "preflight" else [of.record.cell]
        if any(cell.method == "wanda" for cell in cells):
            raise RuntimeError("nobody expects\nthis")
        return right(of, *more)

    monkeypatch.setattr(rerun, place, wrong)
    code, out, _ = prunebench("verify", tree, "--rerun")
    assert code == 3
    wanda = record_of(tree, "wanda")
    assert f"{wanda}: remark (rerun): could not be rerun: RuntimeError: nobody expects this" in out
    assert f"{wanda}: verified" in out
    assert f"{record_of(tree, 'magnitude')}: rerun" in out and f"{record_of(tree, 'dense')}: rerun" in out


def test_reruns_that_cannot_be_stored_are_told_with_what_they_found(prunebench, tree):
    forge(record_of(tree, "wanda"))
    (tree.parent / "full").mkdir()
    (tree.parent / "full" / record_of(tree, "wanda").parent.name).write_text("no folder")
    code, out, _ = prunebench("verify", tree, "--keep", "full")
    assert code == 1
    assert out.count("the rerun could not be stored in full") == 3
    assert f"{record_of(tree, 'wanda')}: different" in out
    assert f"{record_of(tree, 'magnitude')}: verified" in out
    assert prunebench("verify", record_of(tree, "magnitude"), "--keep", "full")[0] == 3


def test_a_side_file_that_is_no_table_is_one_line_for_every_record(prunebench, tree):
    for path in tree.rglob("*--*--*.json"):
        record = load_record(path)
        content = b"no parquet"
        named = record.side_file.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
        path.with_name(named.name).write_bytes(content)
        path.write_bytes(record_bytes(record.model_copy(update={"side_file": named}).sealed()))
    code, out, err = prunebench("verify", tree, "--rerun")
    assert code == 1 and "nothing to rerun" in err
    problems = [line for line in out.splitlines() if "problem (" in line]
    assert len(problems) == 3 and all("is no parquet file" in line for line in problems)


def test_settings_of_no_method_are_no_traceback(prunebench, tree):
    path = record_of(tree, "wanda")
    record = load_record(path)
    odd = record.cell.model_copy(update={"settings": {"group": {"a": 1}, "b": None}})
    path = ResultStore(tree.parent / "odd").write(record.model_copy(update={"cell": odd}), items_of(path))
    code, out, _ = prunebench("verify", path)
    assert code == 0 and "remark (code): method 'wanda' is not installed" in out
