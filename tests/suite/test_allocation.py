"""A sparsity that is divided among the layers: asked for, carried out, recorded."""

import pytest

from methods.allocations.owl import OWL
from methods.errors import InputError
from suite.cell import AllocationSpec, Cell
from suite.planning.suite_cells import plan
from suite.planning.suite_file import parse_suite
from suite.results import ResultStore
from suite.results.records.pruning_file import read_pruning
from suite.results.records.state import code_difference
from suite.running.run_cell import present_code
from tests.suite.conftest import refusal
from tests.tiny import write_suite

SUITE = """\
name = "mine"
models = ["smollm2-135m"]
patterns = ["0.5"]

[[methods]]
name = "magnitude"
allocation = "owl"

[[methods]]
name = "wanda"
allocation = { name = "owl", settings = { max_deviation = 0.1 } }

[[perplexity]]
corpus = "wiki-sample"
seqlen = 64
"""


def cells_of(text: str) -> list[Cell]:
    return plan(parse_suite(text.encode(), file="mine.toml"), dtype="float32")


def test_a_suite_asks_for_it_by_name_or_with_settings():
    _, magnitude, wanda = cells_of(SUITE)
    assert magnitude.allocation == AllocationSpec(
        name="owl", settings={"outlier_threshold": 5.0, "max_deviation": 0.08}
    )
    assert wanda.allocation is not None
    assert wanda.allocation.settings["max_deviation"] == 0.1
    assert (magnitude.variant, wanda.variant) == ("magnitude + owl", "wanda + owl")
    assert magnitude.calibration is not None, "magnitude needs none, owl does"
    assert len({cell.digest for cell in (magnitude, magnitude.model_copy(update={"allocation": None}))}) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'allocation = "owl"',
            'allocation = "olw"',
            r"mine.toml:7: .*allocation.* unknown .*did you mean 'owl'",
        ),
        ('allocation = "owl"', "allocation = 3", r"mine.toml:7: methods\[0\]\.allocation: must be a table"),
        (
            'patterns = ["0.5"]',
            'patterns = ["2:4"]',
            r"mine.toml:7: .*unstructured sparsity such as 0.5, not 2:4",
        ),
        ("max_deviation = 0.1", "max_deviatoin = 0.1", r"mine.toml:11: .*did you mean 'max_deviation'"),
        (
            "max_deviation = 0.1",
            'max_deviation = "a"',
            r"mine.toml:11: .*cannot be 'a'; it takes a finite number",
        ),
        (
            'name = "owl", settings',
            'name = "owl", pattern = 1, settings',
            r"unknown key; known: name, settings",
        ),
        ("settings = {", "setings = {", r"mine.toml:11: .*unknown key.*did you mean 'settings'"),
    ],
)
def test_a_slip_in_a_suite_is_told_with_its_line(old, new, message):
    with pytest.raises(InputError, match=message):
        cells_of(SUITE.replace(old, new))


def test_a_checkpoint_is_pruned_more_where_there_are_fewer_outliers(prune, tmp_path):
    owl = ("--allocation", "owl")
    set_owl = ("--set-allocation", "outlier_threshold=3", "--set-allocation", "max_deviation=0.2")
    assert prune("--method", "wanda", "--sparsity", 0.5, *owl, *set_owl)[0] == 0
    told = read_pruning(tmp_path / "pruned")
    record = told.record
    assert record.cell.allocation.model_dump() == {
        "name": "owl",
        "settings": {"outlier_threshold": 3.0, "max_deviation": 0.2},
    }
    assert record.code.part_versions == {"owl": 1}
    seconds = {phase.name: phase.seconds for phase in record.phases}
    assert told.prune_seconds > seconds["allocate"] > 0
    by_layer = {module.layer: set() for module in record.modules}
    for module in record.modules:
        by_layer[module.layer].add(round(module.sparsity, 1))
    assert sorted(by_layer) == [0, 1]
    assert by_layer[0] != by_layer[1]
    assert told.sparsity == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sparsity", 0.5, "--allocation", "owel"), "unknown allocation 'owel'; did you mean 'owl'?"),
        (("--pattern", "2:4", "--allocation", "owl"), "unstructured sparsity such as 0.5, not 2:4"),
        (("--sparsity", 0.5, "--set-allocation", "a=1"), "--set-allocation needs --allocation"),
        (
            ("--sparsity", 0.5, "--allocation", "owl", "--set-allocation", "a"),
            "--set-allocation a: write it as",
        ),
        (("--sparsity", 0.5, "--allocation", "owl", "--set-allocation", "a=1"), "owl' has no setting 'a'"),
    ],
)
def test_a_slip_on_the_command_line_gets_one_line(prune, tmp_path, arguments, message):
    assert message in refusal(prune("--method", "magnitude", *arguments))
    assert not (tmp_path / "pruned").exists()


def test_a_record_holds_it_and_what_it_cost(prunebench, tmp_path):
    suite = write_suite(tmp_path, methods="magnitude", patterns=["0.5"])
    suite.write_text(
        suite.read_text().replace('name = "magnitude"', 'name = "magnitude"\nallocation = "owl"')
    )
    code, _, err = prunebench("run", suite, "--out", "runs")
    assert code == 0, err
    (record,) = [
        s.record for s in ResultStore(tmp_path / "runs").records().records if not s.record.cell.is_dense
    ]
    seconds = {phase.name: phase.seconds for phase in record.phases}
    (total,) = [metric.value for metric in record.metrics if metric.name == "prune_seconds"]
    assert total == pytest.approx(seconds["calibrate"] + seconds["allocate"] + seconds["prune"])
    assert record.code.part_versions == {"owl": OWL.version}
    assert "magnitude + owl" in (tmp_path / "runs" / "report.html").read_text()


def test_a_new_version_of_a_part_makes_records_stale(monkeypatch):
    _, magnitude, _ = cells_of(SUITE)
    cell = magnitude.model_copy(
        update={"method": "llm-barber", "settings": {"initial": "dsnot", "initial_settings": {}}}
    )
    made_by = present_code(cell)
    assert made_by.part_versions == {"dsnot": 1, "wanda": 1, "owl": 1}
    monkeypatch.setattr(OWL, "version", 2)
    assert code_difference(made_by, present_code(cell)) == "made with version 1 of owl, now 2"
    assert code_difference(made_by, made_by) is None
