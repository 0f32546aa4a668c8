"""Any method may start from any other, on the command line and in a suite as in Python."""

import itertools
import sys
import types

import pytest

from methods import registry
from methods.errors import ContractError, InputError
from methods.masks.pattern import Allocated, Unstructured
from methods.registry import allocations, names
from suite.cell import CalibrationSpec, Cell
from suite.commands.output.listing import listing
from suite.planning.method_of_cell import method_of, pattern_for
from suite.planning.option_cells import parse_assignments, pruning_cell
from suite.planning.suite_cells import plan
from suite.planning.suite_file import parse_suite
from tests.tiny import tiny_model

REFINERS = [name for name in names() if hasattr(registry.method_class(name), "initial_method")]
PAIRS = [(a, b) for a, b in itertools.product(REFINERS, names()) if a != b]


def cell_for(method: str, *assignments: str) -> Cell:
    return pruning_cell(
        "smollm2-135m",
        method,
        sparsity="0.5",
        pattern=None,
        settings=parse_assignments(assignments),
        allocation=None,
        allocation_settings={},
        calibration=CalibrationSpec(),
        dtype="float32",
        revision=None,
        trust_remote_code=False,
    )


@pytest.mark.parametrize(("refiner", "initial"), PAIRS)
def test_every_refiner_takes_every_initial_method(refiner, initial):
    cell = cell_for(refiner, f"initial={initial}")
    assert method_of(cell).initial_method.name == initial
    assert Cell.model_validate_json(cell.model_dump_json(), strict=True) == cell
    text = f"""
name = "mine"
models = ["smollm2-135m"]
patterns = ["0.5"]
[[methods]]
name = "{refiner}"
settings = {{ initial = "{initial}" }}
[[perplexity]]
corpus = "wiki-sample"
"""
    assert plan(parse_suite(text.encode(), file="mine.toml"), dtype="float32")[1].settings == cell.settings


def test_settings_reach_the_initial_method_of_the_initial_method():
    cell = cell_for("dsnot", "initial=llm-barber", "initial_settings.initial=ria",
                    "initial_settings.initial_settings.group=output")  # fmt: skip
    inner = method_of(cell).initial_method.initial_method
    assert (inner.name, inner.group) == ("ria", "output")


class _Broken:
    name, value, dist = "bad", "bad_module:Bad", None

    def load(self):
        raise SyntaxError("invalid syntax")


class _NoDataclass(_Broken):
    name = "plain"

    def load(self):
        return types.SimpleNamespace


def test_a_broken_package_of_somebody_else_costs_one_line(monkeypatch):
    others = {"bad": _Broken(), "plain": _NoDataclass()}
    monkeypatch.setattr(registry, "_registered", lambda group: others if "methods" in group else {})
    rows = {row["name"]: row["description"] for row in listing("methods")}
    assert rows["wanda"].startswith("Score")
    assert "SyntaxError: invalid syntax" in rows["bad"]
    assert "is not a frozen dataclass" in rows["plain"]
    with pytest.raises(InputError, match=r"bad_module:Bad.*SyntaxError"):
        cell_for("bad")
    assert "bad_module" not in sys.modules


def test_an_allocation_that_forgets_a_target_is_told_which(monkeypatch):
    class Forgetful:
        name = "forgetful"

        def allocate(self, model, pattern, calibration, *, placement):
            return Allocated(pattern, {"model.layers.0.self_attn.q_proj": Unstructured(pattern.sparsity)})

    monkeypatch.setattr(type(allocations), "build", lambda *_: Forgetful())
    spec = Cell.model_validate({**cell_for("magnitude").model_dump(), "allocation": {"name": "forgetful"}})
    with pytest.raises(
        ContractError, match=r"'forgetful' gives model\.layers\.0\.self_attn\.k_proj no sparsity"
    ):
        pattern_for(spec, tiny_model(), None, None)
