"""Methods and allocations are found by name, those of other packages too, and their settings are checked."""

import importlib
import sys
from pathlib import Path

import pytest

from methods import registry
from methods.allocation import Allocation
from methods.allocations.owl import OWL
from methods.base import PruningMethod
from methods.errors import InputError, did_you_mean
from methods.llm_barber import LLMBarber
from methods.registry import allocations, build, method_class, names, origin, settings_of
from methods.scores.sparsegpt import SparseGPT
from methods.scores.wanda import Wanda

BUILT_IN = [
    "magnitude",
    "wanda",
    "sparsegpt",
    "llm-barber",
    "ria",
    "dsnot",
    "admm",
    "alps",
    "wanda-rgs",
    "recipe",
]

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar

from methods.scores.magnitude import Magnitude
from methods.masks.pattern import Allocated


@dataclass(frozen=True)
class Coin(Magnitude):
    """Heads or tails."""

    name: ClassVar[str] = "coin"
    bias: float = 0.5
    rounds: int | None = None


@dataclass(frozen=True)
class Even:
    """Every module alike."""

    name: ClassVar[str] = "even"
    version: ClassVar[int] = 1
    needs_calibration: ClassVar[bool] = False
    slack: float = 0.0

    def check_pattern(self, pattern):
        pass

    def allocate(self, model, pattern, calibration, *, placement=None):
        return Allocated(pattern, {})
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch):
    """Installs a distribution `acme-pruners` with the given entry points, methods if nothing else is said."""

    def add(entry_points: str, group: str = registry.ENTRY_POINT_GROUP) -> None:
        info = tmp_path / "acme_pruners-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pruners\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")
        (tmp_path / "acme_pruners.py").write_text(PLUGIN)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        registry._registered.cache_clear()

    yield add
    sys.modules.pop("acme_pruners", None)
    monkeypatch.undo()
    registry._registered.cache_clear()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_method_is_found_and_knows_its_name(name):
    method = build(name)
    assert isinstance(method, PruningMethod)
    assert isinstance(method, method_class(name))
    assert method.name == name
    assert origin(name) == "built-in"
    assert name in names()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sparsgpt", "unknown method 'sparsgpt'; did you mean 'sparsegpt'?"),
        ("Wanda", "unknown method 'Wanda'; did you mean 'wanda' or 'wanda-rgs'?"),
        ("barber", "unknown method 'barber'; did you mean 'llm-barber'?"),
        (
            "zzz",
            f"unknown method 'zzz'; known: {', '.join(BUILT_IN)}",
        ),
        ("owl", "unknown method 'owl'; "),
    ],
)
def test_an_unknown_method_is_answered_with_the_nearest_names(name, said):
    with pytest.raises(InputError) as raised:
        build(name)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("sparsegpt", {"dampening": 0.1}, "has no setting 'dampening'; did you mean 'damping'?"),
        ("sparsegpt", {"q": 1}, "has no setting 'q'; known: damping, block_size"),
        ("wanda", {"damping": 0.1}, "method 'wanda' has no setting 'damping'"),
        ("llm-barber", {"name": "x"}, "has no setting 'name'"),
        ("sparsegpt", {"damping": "0.1"}, "setting damping cannot be '0.1'; it takes a finite number"),
        ("sparsegpt", {"damping": True}, "setting damping cannot be True; it takes a finite number"),
        ("sparsegpt", {"damping": None}, "setting damping cannot be None; it takes a finite number"),
        ("sparsegpt", {"block_size": 64.0}, "setting block_size cannot be 64.0; it takes a whole number"),
        ("sparsegpt", {"block_size": True}, "setting block_size cannot be True; it takes a whole number"),
        ("llm-barber", {"nm_guard": 1}, "setting nm_guard cannot be 1; it takes true or false"),
        ("llm-barber", {"initial": 3}, "setting initial cannot be 3; it takes text"),
        ("llm-barber", {"initial_settings": "x"}, "cannot be 'x'; it takes a table of settings"),
        (
            "llm-barber",
            {"granularity": "row"},
            "cannot be 'row'; it takes 'layer', 'output', 'input', 'block'",
        ),
        ("llm-barber", {"granularity": ["row"]}, "cannot be ['row']"),
    ],
)
def test_a_setting_that_does_not_exist_or_fit_is_refused(name, settings, said):
    with pytest.raises(InputError) as raised:
        build(name, settings)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [10**400, float("inf")], ids=["int", "infinity"])
def test_a_number_beyond_all_bounds_is_refused(value):
    with pytest.raises(InputError, match="damping"):
        build("sparsegpt", {"damping": value})


def test_a_whole_number_is_taken_where_a_number_is_wanted():
    method = build("sparsegpt", {"damping": 1})
    assert method == SparseGPT(damping=1.0)
    assert type(method.damping) is float


def test_no_settings_are_the_defaults():
    assert build("wanda") == build("wanda", {}) == build("wanda", None) == Wanda()


def test_settings_are_told_in_full_and_build_the_same_method_again():
    method = build(
        "llm-barber", {"initial": "sparsegpt", "initial_settings": {"block_size": 64}, "rebuild_ratio": 0}
    )
    told = settings_of(method)
    assert told == {
        "initial": "sparsegpt",
        "granularity": "output",
        "rebuild_ratio": 0.0,
        "score": "weight_gradient",
        "keep_reconstruction": False,
        "nm_guard": True,
        "initial_settings": {"damping": 0.01, "block_size": 64},
    }
    assert build("llm-barber", told) == method
    assert settings_of(Wanda()) == {}


def test_what_barber_starts_from_says_whether_it_reconstructs():
    assert not LLMBarber(initial="sparsegpt").reconstructs
    assert LLMBarber(initial="sparsegpt", keep_reconstruction=True).reconstructs
    assert not LLMBarber(initial="wanda", keep_reconstruction=True).reconstructs


def test_a_method_of_another_package_joins_by_its_entry_point(install):
    install("coin = acme_pruners:Coin")
    assert names() == [*BUILT_IN, "coin"]
    assert origin("coin") == "acme-pruners"
    method = build("coin", {"bias": 1, "rounds": 3})
    assert isinstance(method, PruningMethod)
    assert settings_of(method) == {"bias": 1.0, "rounds": 3}
    assert build("coin", {"rounds": None}).rounds is None
    with pytest.raises(InputError, match="rounds cannot be 'x'; it takes a whole number or nothing"):
        build("coin", {"rounds": "x"})
    with pytest.raises(InputError, match="did you mean 'coin'"):
        build("coins")
    assert build("llm-barber", {"initial": "coin"}).initial == "coin"


def test_another_package_cannot_take_a_built_in_name(install):
    install("wanda = acme_pruners:Coin")
    assert method_class("wanda") is Wanda
    assert names() == BUILT_IN


@pytest.mark.parametrize("target", ["acme_pruners:Missing", "acme_missing:Coin"])
def test_an_entry_point_that_leads_nowhere_is_an_error_when_it_is_used(install, target):
    install(f"coin = {target}")
    assert "coin" in names()
    with pytest.raises(InputError, match=rf"method 'coin' \({target}\) cannot be imported"):
        build("coin")


def test_an_allocation_is_found_and_knows_its_name():
    allocation = allocations.build("owl", {"max_deviation": 0})
    assert allocation == OWL(max_deviation=0.0)
    assert isinstance(allocation, Allocation)
    assert allocations.names() == ["owl", "alphapruning", "atp"]
    assert allocations.origin("owl") == "built-in"
    assert allocations.class_of("owl") is OWL
    assert settings_of(allocation) == {"outlier_threshold": 5.0, "max_deviation": 0.0}


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("howl", {}, "unknown allocation 'howl'; did you mean 'owl'?"),
        ("wanda", {}, "unknown allocation 'wanda'; known: owl"),
        (
            "owl",
            {"deviation": 0.1},
            "allocation 'owl' has no setting 'deviation'; did you mean 'max_deviation'?",
        ),
        (
            "owl",
            {"max_deviation": "x"},
            "allocation 'owl': setting max_deviation cannot be 'x'; it takes a finite",
        ),
        ("owl", {"max_deviation": -1}, "allocation 'owl': max_deviation must be at least 0"),
    ],
)
def test_what_does_not_fit_an_allocation_is_refused_in_its_own_words(name, settings, said):
    with pytest.raises(InputError) as raised:
        allocations.build(name, settings)
    assert str(raised.value).startswith(said)


def test_an_allocation_of_another_package_joins_by_a_door_of_its_own(install):
    install("even = acme_pruners:Even", group="prunebench.allocations")
    assert allocations.names() == ["owl", "alphapruning", "atp", "even"]
    assert allocations.origin("even") == "acme-pruners"
    assert names() == BUILT_IN
    allocation = allocations.build("even", {"slack": 1})
    assert isinstance(allocation, Allocation)
    assert settings_of(allocation) == {"slack": 1.0}
    with pytest.raises(InputError, match="unknown method 'even'"):
        build("even")


def test_a_method_is_no_allocation_and_the_other_way_round():
    assert not isinstance(build("wanda"), Allocation)
    assert not isinstance(allocations.build("owl"), PruningMethod)


def test_listing_names_imports_no_method(install):
    install("coin = acme_pruners:Coin")
    names()
    assert "acme_pruners" not in sys.modules


def test_where_nothing_is_near_all_names_are_told():
    assert did_you_mean("xyz", ["damping"]) == "; known: damping"
    assert did_you_mean("xyz", []) == ""
