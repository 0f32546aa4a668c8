"""Which counts of pruned weights a pattern allows, and which it cannot have left."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import pytest

from suite.results.records.record import ModuleReport
from suite.results.verification.pattern_counts import impossible_counts, read_pattern, span_of


def module(n_pruned: int, shape: tuple[int, int] = (64, 64), **changes: Any) -> ModuleReport:
    fields: dict[str, Any] = {"module": "layers.0.q", "layer": 0, "block": "attention", "shape": shape}
    return ModuleReport(**{**fields, "n_weights": shape[0] * shape[1], "n_pruned": n_pruned, **changes})


def told(
    pattern: str,
    *modules: ModuleReport,
    method: str = "wanda",
    settings: dict[str, object] | None = None,
    allocated: bool = False,
) -> list[str]:
    read = read_pattern(pattern)
    assert read is not None
    span = span_of(method, settings or {}, allocated=allocated)
    return list(impossible_counts(modules, read, pattern, span))


@pytest.mark.parametrize("written", ["0.7", "0.29", "0.3", "0.01", "0.999", "0.07", "0.57"])
@pytest.mark.parametrize("group", [(1, 100), (50, 1), (50, 100), (50, 32)])
def test_whatever_groups_round_down_to_is_possible(written: str, group: tuple[int, int]) -> None:
    """0.29 of 100 is 29, not the 28 of floats; of 100 columns in blocks of 32 four are left over."""
    rows, columns = 50, 100
    n_pruned = sum(
        floor(min(group[0], rows - row) * min(group[1], columns - column) * Fraction(written))
        for row in range(0, rows, group[0])
        for column in range(0, columns, group[1])
    )
    assert told(written, module(n_pruned, (rows, columns))) == []


def test_beyond_rounding_is_not_possible() -> None:
    assert told("0.7", module(64 * 44)) == []
    (over,) = told("0.7", module(floor(0.7 * 4096) + 1))
    assert over == "layers.0.q: 2868 of 4096 weights pruned, by pattern 0.7 2867.2"
    assert told("0.7", module(floor(0.7 * 4096) - 64))


def test_of_n_to_m_exactly_the_share_is_gone() -> None:
    assert told("2:4", module(2048)) == []
    assert told("2:4", module(2049)) and told("2:4", module(2047))
    assert told("2:4", module(32, (8, 8)), module(33, (8, 8), module="other")) == [
        "other: 33 of [8, 8] pruned, by 2:4 32"
    ]
    assert told("2:4", module(30, (10, 6))), "4 does not divide 6 inputs"


def test_an_allocation_holds_for_all_modules_together() -> None:
    modules = (module(1024), module(3072))
    assert told("0.5", *modules, allocated=True) == []
    assert len(told("0.5", *modules)) == 2
    assert told("0.5", module(1024), module(2048), allocated=True)


def test_a_rebuild_moves_weights_within_a_block() -> None:
    block = {"initial": "wanda", "granularity": "block"}
    modules = (module(1024), module(3072))
    assert told("0.5", *modules, method="llm-barber", settings=block) == []
    apart = (modules[0], modules[1].model_copy(update={"block": "mlp"}))
    assert len(told("0.5", *apart, method="llm-barber", settings=block)) == 2


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("theirs", {}),
        ("dsnot", {"initial": "theirs"}),
        ("llm-barber", {"initial": "dsnot", "initial_settings": {"initial": "theirs"}}),
    ],
)
def test_methods_of_other_packages_may_compare_weights_of_the_whole_model(
    method: str, settings: dict[str, object]
) -> None:
    modules = (module(1024), module(3072))
    assert told("0.5", *modules, method=method, settings=settings) == []
    assert told("0.8", *modules, method=method, settings=settings)
    assert told("2:4", *modules, method=method, settings=settings), "N:M is N:M, whoever prunes"
