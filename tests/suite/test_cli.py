"""The command: what it writes, what it says of wrong input, and its exit codes."""

import json
import re
import shlex
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from typer.main import get_command

from suite.cli import PANELS, app
from suite.results.records.pruning_file import read_pruning
from tests.suite.conftest import refusal
from tests.tiny import write_suite


def zeros_of(folder) -> dict[str, int]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return {
        name: int((module.weight == 0).sum())
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


@pytest.mark.parametrize(
    "choice",
    [
        ("--method", "magnitude", "--sparsity", "0.29"),
        ("--method", "wanda", "--pattern", "2:4"),
        ("--method", "sparsegpt", "--sparsity", "0.5", "--set", "block_size=8"),
        (
            "--method",
            "llm-barber",
            "--sparsity",
            "0.5",
            "--set",
            "rebuild_ratio=0.5",
            "--set",
            "initial=magnitude",
        ),
    ],
    ids=lambda choice: choice[1],
)
def test_a_checkpoint_has_the_zeros_that_it_promises(prune, choice, tmp_path):
    code, out, err = prune(*choice)
    assert code == 0, err
    assert out.strip() == "pruned"
    told = read_pruning(tmp_path / "pruned")
    zeros, modules = zeros_of(tmp_path / "pruned"), told.record.modules
    for report in modules:
        assert zeros[report.module] == told.n_zeros[report.module] >= report.n_pruned > 0
    pruned = sum(report.n_pruned for report in modules)
    total = sum(report.shape[0] * report.shape[1] for report in modules)
    assert told.sparsity == pytest.approx(pruned / total)
    assert told.prune_seconds > 0
    assert (tmp_path / "pruned" / "tokenizer.json").exists()


def test_settings_reach_the_method(prune, tmp_path):
    prune("--method", "llm-barber", "--sparsity", "0.5", "--set", "initial=sparsegpt")
    settings = read_pruning(tmp_path / "pruned").record.cell.settings
    assert settings["initial"] == "sparsegpt"
    assert settings["rebuild_ratio"] == 0.01


def test_settings_of_the_initial_method_are_a_table(prune, tmp_path):
    code, _, err = prune(
        *("--method", "llm-barber", "--sparsity", "0.5", "--set", "initial=sparsegpt"),
        *("--set", "initial_settings.damping=0.1"),
    )
    assert code == 0, err
    record = read_pruning(tmp_path / "pruned").record
    assert record.cell.settings["initial_settings"] == {"damping": 0.1, "block_size": 128}
    assert {report.damping for report in record.modules} == {0.1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "wandaa", "--sparsity", "0.5"), "unknown method 'wandaa'; did you mean 'wanda'"),
        (("--method", "wanda"), "give --sparsity such as 0.5, or --pattern such as 2:4"),
        (("--method", "wanda", "--sparsity", "1.0"), r"sparsity 1 is outside \[0, 1\)"),
        (("--method", "wanda", "--sparsity", "-0.1"), r"sparsity -0.1 is outside \[0, 1\)"),
        (("--method", "wanda", "--sparsity", "nan"), "'nan' is neither a sparsity"),
        (("--method", "wanda", "--sparsity", "half"), "'half' is neither a sparsity"),
        (("--method", "wanda", "--pattern", "4:2"), "pattern 4:2: .*did you mean 2:4"),
        (("--method", "wanda", "--pattern", "3:5"), r"5 does not divide the 16 inputs of model\.layers\.0"),
        (("--method", "wanda", "--sparsity", "0.5", "--pattern", "1:4"), "contradicts --pattern 1:4"),
        (("--method", "wanda", "--sparsity", "2:4", "--pattern", "2:4"), "contradicts"),
        (("--method", "wanda", "--sparsity", "0.5", "--set", "x=1"), "has no setting 'x'"),
        (
            ("--method", "llm-barber", "--sparsity", "0.5", "--set", "rebuild_ratoi=1"),
            "did you mean 'rebuild_ratio'",
        ),
        (
            ("--method", "llm-barber", "--sparsity", "0.5", "--set", "rebuild_ratio=2"),
            r"2 is outside \[0, 1\]",
        ),
        (
            ("--method", "llm-barber", "--sparsity", "0.5", "--set", "rebuild_ratio=few"),
            "it takes a finite number",
        ),
        (("--method", "llm-barber", "--sparsity", "0.5", "--set", "initial=wandaa"), "did you mean 'wanda'"),
        (
            ("--method", "llm-barber", "--pattern", "2:4", "--set", "granularity=layer"),
            "needs granularity 'output'",
        ),
        (("--method", "wanda", "--sparsity", "0.5", "--set", "broken"), "write it as key=value"),
        (("--method", "wanda", "--sparsity", "0.5", "--n-samples", 4000), "tokens"),
        (("--method", "wanda", "--sparsity", "0.5", "--calibration", "wiki-sampel"), "wiki-sample"),
        (("--method", "wanda", "--sparsity", "0.5", "--calibration", "gone.txt"), "gone.txt"),
        (("--method", "wanda", "--sparsity", "0.5", "--device", "tpu"), "--device tpu"),
        (("--method", "wanda", "--sparsity", "0.5", "--n-samples", "0"), "n-samples"),
        (("--method", "wanda", "--sparsity", "0.5", "--unknown"), "--unknown"),
        (("--sparsity", "0.5"), "--method"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(map(str, value[1:])),
)
def test_wrong_input_gets_one_line_and_writes_nothing(prune, arguments, message, tmp_path):
    line = refusal(prune(*arguments))
    assert re.search(message, line), line
    assert not (tmp_path / "pruned").exists()


def test_an_unknown_model_gets_the_nearest_names(prunebench):
    line = refusal(
        prunebench("prune", "smolm2-135m", "--method", "magnitude", "--sparsity", "0.5", "--out", "x")
    )
    assert "smollm2-135m" in line


def test_a_folder_without_a_model_is_refused(prunebench, tmp_path):
    (tmp_path / "empty").mkdir()
    line = refusal(prunebench("prune", "./empty", "--method", "magnitude", "--sparsity", "0.5", "--out", "x"))
    assert "config.json" in line


def test_a_folder_that_is_not_empty_is_left_alone(prune, tmp_path):
    (tmp_path / "pruned").mkdir()
    (tmp_path / "pruned" / "thesis.txt").write_text("mine")
    assert "not empty" in refusal(prune("--method", "magnitude", "--sparsity", "0.5"))
    assert [path.name for path in (tmp_path / "pruned").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_filled(prune, tmp_path):
    (tmp_path / "pruned").mkdir()
    assert prune("--method", "magnitude", "--sparsity", "0.5")[0] == 0
    assert (tmp_path / "pruned" / "model.safetensors").exists()


def test_a_full_disk_leaves_no_half_checkpoint(prune, tmp_path, monkeypatch):
    def full(self, folder, **_):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    before = set(tmp_path.iterdir())
    code, _, err = prune("--method", "magnitude", "--sparsity", "0.5")
    assert code == 3
    assert "No space left on device" in err
    assert set(tmp_path.iterdir()) == before


def test_token_ids_calibrate_without_a_tokenizer(prunebench, tmp_path, model):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    save_file({"input_ids": torch.arange(192).reshape(6, 32)}, tmp_path / "ids.safetensors")
    code, _, err = prunebench(
        *("prune", model, "--method", "wanda", "--sparsity", "0.5", "--calibration", "ids.safetensors"),
        *("--n-samples", 6, "--seqlen", 32, "--dtype", "float32", "--out", "pruned"),
    )
    assert code == 0, err


def test_a_suite_runs_resumes_and_reports(prunebench, tmp_path):
    suite = write_suite(tmp_path)
    code, out, err = prunebench("run", suite, "--out", "runs", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["finished"], told["kept"], told["failed"]) == (7, 0, [])
    records = sorted((tmp_path / "runs").glob("*/*.json"))
    before = {path: path.read_bytes() for path in records}
    assert len(records) == 7
    assert "<html" in (tmp_path / "runs" / "report.html").read_text()

    records[2].unlink()
    code, out, _ = prunebench("run", suite, "--out", "runs", "--json")
    assert (code, json.loads(out)["finished"], json.loads(out)["kept"]) == (0, 1, 6)
    for path in records[:2] + records[3:]:
        assert path.read_bytes() == before[path]
    first, again = json.loads(before[records[2]]), json.loads(records[2].read_bytes())
    assert first["mask_digest"] == again["mask_digest"]
    assert first["windows"] == again["windows"]


def test_a_record_of_other_code_is_kept_with_a_word_and_run_anew_on_request(
    prunebench, tmp_path, monkeypatch
):
    suite = write_suite(tmp_path, methods="wanda", patterns=["0.5"])
    prunebench("run", suite, "--out", "runs")
    monkeypatch.setattr("methods.scores.wanda.Wanda.version", 99)
    code, out, err = prunebench("run", suite, "--out", "runs", "--json")
    assert (code, json.loads(out)["kept"]) == (0, 2)
    assert "stale, kept" in err
    assert "wanda 0.5" in err
    _, out, _ = prunebench("run", suite, "--out", "runs", "--json", "--existing", "rerun-stale")
    assert (json.loads(out)["finished"], json.loads(out)["kept"]) == (1, 1)


def test_existing_records_can_be_refused(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    prunebench("run", suite, "--out", "runs")
    assert "--existing" in refusal(prunebench("run", suite, "--out", "runs", "--existing", "fail"))


def test_a_dry_run_shows_the_plan_and_writes_nothing(prunebench, tmp_path):
    suite = write_suite(tmp_path)
    code, out, _ = prunebench("run", suite, "--out", "runs", "--dry-run")
    assert code == 0
    assert len(out.splitlines()) == 7
    assert not (tmp_path / "runs").exists()


def test_only_picks_cells(prunebench, tmp_path):
    suite = write_suite(tmp_path)
    _, out, _ = prunebench("run", suite, "--only", "wanda", "--only", "dense", "--dry-run", "--json")
    assert [cell["cell"]["method"] for cell in json.loads(out)] == ["dense", "wanda", "wanda"]
    assert "matches none" in refusal(prunebench("run", suite, "--only", "gptq", "--dry-run"))


def test_a_failing_cell_is_recorded_and_costs_no_other(prunebench, tmp_path, monkeypatch):
    suite = write_suite(tmp_path, methods="magnitude wanda sparsegpt", patterns=["0.5"])

    def explode(self, *_, **__):
        raise RuntimeError("the sky fell")

    with monkeypatch.context() as broken:
        broken.setattr("methods.scores.wanda.Wanda.prune", explode)
        code, out, err = prunebench("run", suite, "--out", "runs", "--json")
    assert code == 3
    assert "the sky fell" in err
    told = json.loads(out)
    assert (told["finished"], len(told["failed"])) == (3, 1)
    assert "the sky fell" in (tmp_path / "runs" / "report.html").read_text()
    code, out, _ = prunebench("run", suite, "--out", "runs", "--json")
    assert (code, json.loads(out)["finished"], json.loads(out)["kept"]) == (0, 1, 3)


def test_nan_weights_are_found_before_anything_runs(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="wanda", patterns=["0.5"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    assert "model.layers.1.mlp.up_proj.weight has NaN or infinity (1 of 512" in refusal(
        prunebench("run", suite, "--out", "runs", "--json")
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "wanda"', 'name = "wnda"'), r"tiny\.toml:\d+: .*wanda"),
        (("n_samples", "n_sampels"), r"tiny\.toml:\d+: .*n_samples"),
        (("'2:4'", "'4:2'"), r"tiny\.toml:\d+: .*2:4"),
        (("'2:4'", "'3:7'"), r"7 does not divide the 16 inputs of model\.layers\.0"),
        (("n_samples = 4", "n_samples = 4000"), "tokens"),
        (("seqlen = 32\n[[", "seqlen = 4096\n[["), "longer than the 2048 positions"),
        (('corpus = "', 'corpus = "no-'), "no-"),
        (("[[methods]]", "[[methods"), r"tiny\.toml"),
    ],
)
def test_a_wrong_suite_gets_one_line_and_writes_nothing(prunebench, tmp_path, change, message):
    suite = write_suite(tmp_path, methods="wanda")
    written = suite.read_text()
    assert change[0] in written
    suite.write_text(written.replace(*change, 1))
    line = refusal(prunebench("run", suite, "--out", "runs"))
    assert re.search(message, line), line
    assert not (tmp_path / "runs").exists()


def test_an_unknown_suite_gets_the_nearest_names(prunebench):
    assert "quickstart" in refusal(prunebench("run", "quikstart"))


def test_a_report_of_nothing_is_refused(prunebench, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no records" in refusal(prunebench("report", "empty", "--out", "report.html"))
    assert "no such folder" in refusal(prunebench("report", "gone", "--out", "report.html"))


def test_a_broken_record_is_shown_and_the_others_stand(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5", "2:4"])
    prunebench("run", suite, "--out", "runs")
    victim = sorted((tmp_path / "runs").glob("*/magnitude*.json"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    code, _, err = prunebench("report", "runs", "--out", "deep/report.html")
    assert code == 0, err
    assert victim.name in (tmp_path / "deep" / "report.html").read_text()
    shutil.rmtree(tmp_path / "deep")
    _, out, _ = prunebench("run", suite, "--out", "runs", "--json")
    assert (json.loads(out)["finished"], json.loads(out)["kept"]) == (1, 2)


@pytest.mark.parametrize("what", ["methods", "models", "corpora", "suites"])
def test_lists_are_for_people_and_programs(prunebench, what):
    code, out, _ = prunebench("list", what)
    names = [line.split()[0] for line in out.splitlines()]
    assert code == 0
    _, out, _ = prunebench("list", what, "--json")
    assert [row["name"] for row in json.loads(out)] == names


def test_the_doctor_reads_a_model(prunebench, model):
    code, out, _ = prunebench("doctor", model)
    assert code == 0
    assert "decoder layers 0-1: LlamaDecoderLayer" in out
    assert "self_attn.q_proj" in out


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(prunebench, tmp_path, monkeypatch):
    suite = write_suite(tmp_path)
    from suite.storage.files import FileLayer

    write, records = FileLayer.write, []

    def until_full(self, file, data):
        if data.startswith(b"{"):
            records.append(data)
        if len(records) > 3:
            raise OSError(28, "No space left on device")
        write(self, file, data)

    with monkeypatch.context() as full:
        full.setattr(FileLayer, "write", until_full)
        code, _, err = prunebench("run", suite, "--out", "runs")
    assert code == 3
    assert "No space left on device" in err.splitlines()[-1]
    kept = {path: path.read_bytes() for path in (tmp_path / "runs").glob("*/*.json")}
    assert len(kept) == 3
    code, out, _ = prunebench("run", suite, "--out", "runs", "--json")
    assert (code, json.loads(out)["finished"], json.loads(out)["kept"]) == (0, 4, 3)
    assert all(path.read_bytes() == data for path, data in kept.items())


def test_a_pattern_that_a_method_cannot_do_is_found_before_anything_runs(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="llm-barber")
    suite.write_text(
        suite.read_text().replace(
            'name = "llm-barber"', 'name = "llm-barber"\nsettings = { granularity = "layer" }'
        )
    )
    assert "needs granularity 'output'" in refusal(prunebench("run", suite, "--out", "runs"))
    assert not (tmp_path / "runs").exists()


def test_an_error_that_nobody_foresaw_is_no_regression(prune, monkeypatch):
    def explode(self, *_, **__):
        raise AttributeError("no such thing")

    monkeypatch.setattr("methods.scores.magnitude.Magnitude.prune", explode)
    code, _, err = prune("--method", "magnitude", "--sparsity", "0.5")
    assert code == 3
    assert "AttributeError: no such thing" in err.splitlines()[-1]


def test_a_report_that_breaks_the_record_fails_the_cell_only(prunebench, tmp_path, monkeypatch):
    suite = write_suite(tmp_path, methods="magnitude wanda", patterns=["0.5"])
    monkeypatch.setattr("methods.engine.layerwise.relative_error", lambda *_: "no number")
    code, out, _ = prunebench("run", suite, "--out", "runs", "--json")
    assert code == 3
    assert (json.loads(out)["finished"], len(json.loads(out)["failed"])) == (2, 1)


def test_every_cell_is_charged_the_same_for_one_calibration_set(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="wanda sparsegpt", patterns=["0.5"])
    prunebench("run", suite, "--out", "runs")
    charged = {
        phase["seconds"]
        for path in (tmp_path / "runs").glob("*/*.json")
        for phase in json.loads(path.read_text())["phases"]
        if phase["name"] == "calibrate"
    }
    assert len(charged) == 1
    assert min(charged) > 0


@pytest.mark.parametrize("changed", ["model", "text"])
def test_a_record_of_other_weights_or_another_text_is_stale(prunebench, tmp_path, changed):
    suite = write_suite(tmp_path, methods="wanda", patterns=["0.5"])
    prunebench("run", suite, "--out", "runs")
    if changed == "model":
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        model.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1
        model.save_pretrained(tmp_path / "model")
    else:
        text = tmp_path / "text.txt"
        text.write_text(text.read_text().replace("tree", "wave"))
    code, out, err = prunebench("run", suite, "--out", "runs", "--json")
    assert (code, json.loads(out)["kept"]) == (0, 2)
    assert err.count("was changed since") == 2
    _, out, _ = prunebench("run", suite, "--out", "runs", "--json", "--existing", "rerun-stale")
    assert json.loads(out)["finished"] == 2
    _, out, err = prunebench("run", suite, "--out", "runs", "--json")
    assert json.loads(out)["kept"] == 2
    assert "stale" not in err


ENTRIES = [entry for entries in PANELS.values() for entry in entries]


@pytest.fixture
def help_lines(prunebench, monkeypatch):
    """The lines of a command's `--help`, as a terminal of that width shows them."""

    def call(*command: str, width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        code, out, err = prunebench(*command, "--help")
        assert (code, err) == (0, "")
        return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in out.splitlines()]

    return call


@pytest.mark.parametrize("width", [80, 120])
def test_the_main_help_has_four_panels(help_lines, width):
    panels: dict[str, list[str]] = {}
    for line in help_lines(width=width):
        if title := re.match(r"╭─ (.+?) ─", line):
            names = panels.setdefault(title[1], [])
        elif row := re.match(r"│ ([\w-]+)", line):
            names.append(row[1])
    assert panels == {
        "Options": ["--version", "--install-completion", "--show-completion", "--help"],
        "Run and measure": ["run", "prune", "evaluate"],
        "Show": ["report", "export", "site", "history"],
        "Check": ["verify", "gate", "check-method"],
        "Find out": ["list", "doctor"],
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_help_ends_with_an_example_that_parses_and_can_be_copied(help_lines, entry):
    lines = [line for line in help_lines(entry.name, width=80) if line]
    assert lines[-1] == f" {entry.example}"
    program, name, *arguments = shlex.split(entry.example)
    assert program == "prunebench"
    get_command(app).commands[name].make_context(name, arguments)
