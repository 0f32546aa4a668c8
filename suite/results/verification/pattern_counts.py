"""The numbers of pruned weights that a sparsity pattern allows, given the rounding in comparison groups.

`check_sparsity` applies these rules to records, including those in the `pruning.json` of checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Literal

from methods.errors import InputError
from methods.masks.pattern import SemiStructured, UniformPattern, parse_pattern
from methods.registry import methods
from suite.results.records.record import ModuleReport

Span = Literal["module", "block", "allocation", "model"]
"""Scope in which the sparsity of the pattern must be met: each target module, the modules of each block
together, or all modules, either because an `allocation` divided the sparsity among them or (`model`) because
no narrower scope is known."""

_SLACK: Mapping[Span, Fraction] = {
    "module": Fraction(0),
    "block": Fraction(0),
    "allocation": Fraction(1, 10**6),  # precision to which allocations round the sparsity of a module
    "model": Fraction(1, 50),  # same as in `methods.conformance` for methods with groups across weights
}


def read_pattern(written: str | None) -> UniformPattern | None:
    """Parses the pattern of a record; None if it is not a pattern or not in canonical spelling."""
    try:
        pattern = parse_pattern(written or "")
    except InputError:
        return None
    return pattern if str(pattern) == written else None


def span_of(method: str | None, settings: Mapping[str, object], *, allocated: bool) -> Span:
    """Returns the scope in which the sparsity of the pattern must be met.

    Args:
        method: name of the method. Methods of other packages, and initial methods of other packages, may
            compare weights in groups of any form, so the scope is `model`.
        settings: settings of the method, including defaults.
        allocated: whether an allocation gave each module its own sparsity.
    """
    if not all(name in methods.built_in for name in (method, *_initial(settings))):
        return "model"
    if allocated:
        return "allocation"
    # A rebuild may exchange pruned weights between the modules of a block, but keeps their total number.
    return "block" if _has_value(settings, "block") else "module"


def impossible_counts(
    modules: Sequence[ModuleReport], pattern: UniformPattern, written: str, span: Span
) -> Iterator[str]:
    """Describes the numbers of pruned weights that a pattern does not allow, one sentence each.

    Args:
        modules: all target modules, with shapes of at least one weight.
        pattern: the pattern.
        written: the pattern as text, for messages.
        span: scope in which the sparsity must be met; N:M must be met exactly in every module.
    """
    if isinstance(pattern, SemiStructured):
        for module in modules:
            due = Fraction(module.n_weights * (pattern.m - pattern.n), pattern.m)
            if module.shape[-1] % pattern.m or module.n_pruned != due:
                yield f"{module.module}: {module.n_pruned} of {list(module.shape)} pruned, by {written} {due}"
        return
    for name, together in _together(modules, span):
        if not _is_within(together, pattern.sparsity, _SLACK[span]):
            n_weights = sum(module.n_weights for module in together)
            yield (
                f"{name}: {sum(module.n_pruned for module in together)} of {n_weights} weights pruned, "
                f"by pattern {written} {float(n_weights * pattern.sparsity):g}"
            )


def _together(modules: Sequence[ModuleReport], span: Span) -> Iterator[tuple[str, Sequence[ModuleReport]]]:
    """Yields the modules whose pruned weights are counted together, with their name for messages."""
    if span == "module":
        yield from ((module.module, (module,)) for module in modules)
    elif span == "block":
        blocks: dict[str, list[ModuleReport]] = {}
        for module in modules:
            blocks.setdefault(f"layer {module.layer}, {module.block}", []).append(module)
        yield from blocks.items()
    else:
        yield "all modules", modules


def _is_within(modules: Sequence[ModuleReport], sparsity: Fraction, slack: Fraction) -> bool:
    """Whether this number of pruned weights is possible with comparison groups of at least a row or column.

    A group of n weights loses floor(n * s) of them, so the total is at most the exact share, and falls short
    of it by less than one weight per group.
    """
    n_weights = sum(module.n_weights for module in modules)
    n_pruned = sum(module.n_pruned for module in modules)
    n_groups = sum(max(module.shape) for module in modules)
    return n_weights * (sparsity - slack) - n_groups < n_pruned <= n_weights * (sparsity + slack)


def _initial(settings: object) -> Iterator[object]:
    """Yields the initial methods in the settings of a method, recursively."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            if name == "initial":
                yield value
            yield from _initial(value)


def _has_value(settings: object, word: str) -> bool:
    """Whether any setting of the method, or of a method that it builds on, has that value."""
    if isinstance(settings, Mapping):
        return any(_has_value(value, word) for value in settings.values())
    return settings == word


__all__ = ["Span", "impossible_counts", "read_pattern", "span_of"]
