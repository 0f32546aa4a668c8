"""Which counts of pruned weights a sparsity pattern allows, with the rounding that its groups bring.

`check_sparsity` holds records to these rules, and with them what the `pruning.json` of a checkpoint says.
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
"""What loses the share that a pattern names: each target module, the modules of each block together, or all
modules of the model: because an `allocation` divided it, or because nothing narrower is known."""

_SLACK: Mapping[Span, Fraction] = {
    "module": Fraction(0),
    "block": Fraction(0),
    "allocation": Fraction(1, 10**6),  # allocations round a module's sparsity to so much
    "model": Fraction(1, 50),  # as much as `methods.conformance` allows methods whose groups span weights
}


def read_pattern(written: str | None) -> UniformPattern | None:
    """A pattern as records have it; None where it is none, or spelled otherwise."""
    try:
        pattern = parse_pattern(written or "")
    except InputError:
        return None
    return pattern if str(pattern) == written else None


def span_of(method: str | None, settings: Mapping[str, object], *, allocated: bool) -> Span:
    """What loses the share that a pattern names, by what pruned.

    Args:
        method: its name. Methods of other packages may compare weights in groups of any form, and so may
            those that they start from.
        settings: of the method, defaults written out.
        allocated: whether an allocation gave each module a sparsity of its own.
    """
    if not all(name in methods.built_in for name in (method, *_initial(settings))):
        return "model"
    if allocated:
        return "allocation"
    # A rebuild may move weights between the modules of a block, whose number it leaves.
    return "block" if _says(settings, "block") else "module"


def impossible_counts(
    modules: Sequence[ModuleReport], pattern: UniformPattern, written: str, span: Span
) -> Iterator[str]:
    """The numbers of pruned weights that a pattern does not allow, a sentence each.

    Args:
        modules: all target modules, with shapes of at least one weight.
        pattern: what they were pruned to.
        written: the pattern, as a message names it.
        span: what loses the share; of N:M every module loses exactly it.
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
    """The modules whose pruned weights are counted together, with what a message calls them."""
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
    """Whether so many weights can have gone, by comparison groups no finer than a row or a column.

    Each group of n loses floor(n * s): together never more than the floor of the whole, and less than one
    weight a group below it.
    """
    n_weights = sum(module.n_weights for module in modules)
    n_pruned = sum(module.n_pruned for module in modules)
    n_groups = sum(max(module.shape) for module in modules)
    return n_weights * (sparsity - slack) - n_groups < n_pruned <= n_weights * (sparsity + slack)


def _initial(settings: object) -> Iterator[object]:
    """The methods that a method starts from, whatever they start from included."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            if name == "initial":
                yield value
            yield from _initial(value)


def _says(settings: object, word: str) -> bool:
    """Whether a setting, or one of a method that this one builds on, has that value."""
    if isinstance(settings, Mapping):
        return any(_says(value, word) for value in settings.values())
    return settings == word


__all__ = ["Span", "impossible_counts", "read_pattern", "span_of"]
