"""Recipes, which combine any score with any refinements and any update: `wanda | swaps | refit(steps=20)`."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from methods.engine.layerwise import LayerwiseMethod, Score
from methods.engine.steps import BlockRefinement, Refinement, Step, Update
from methods.errors import InputError, did_you_mean
from methods.registry import allocations, methods, settings_of, steps

if TYPE_CHECKING:
    from methods.allocation import Allocation
    from methods.base import PruningMethod
    from methods.masks.pattern import UniformPattern

GRAMMAR = "[allocation |] score {| refinement} [| update]"
LONGEST = 1000
"""Maximum number of characters of a recipe."""

STEP = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class ParsedRecipe:
    """A parsed recipe.

    Attributes:
        allocation: spreads the sparsity over the layers; None = all layers have the same.
        steps: a score, then refinements, then at most one update.
    """

    allocation: Allocation | None
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """The normalized text: settings only if they differ from the default, in their declared order."""
        allocation = [written(self.allocation)] if self.allocation else []
        return " | ".join([*allocation, *map(written, self.steps)])

    @property
    def method(self) -> str:
        """Name of the method that runs it: the score's if the recipe has no other step, else `recipe`."""
        alone = len(self.steps) == 1 and self.steps[0].name in methods.names()
        return self.steps[0].name if alone else Recipe.name

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `method`, without the allocation."""
        if self.method != Recipe.name:
            return settings_of(cast(Any, self.steps[0]))
        return {"recipe": str(dataclasses.replace(self, allocation=None))}


def parse_recipe(text: str) -> ParsedRecipe:
    """Parses `[allocation |] score {| refinement} [| update]`; a step may have settings: `refit(steps=20)`.

    Raises:
        InputError: an unknown step (with the nearest names), settings that a step does not have, or steps in
            the wrong order.
    """
    _check_length(text)
    parts = [_read(part, text) for part in _parted(text)]
    allocation = None
    if parts and parts[0][0] in allocations.names():
        name, settings = parts.pop(0)
        allocation = allocations.build(name, settings)
    built = tuple(_build(name, settings, first=not index) for index, (name, settings) in enumerate(parts))
    _check_order(text, built)
    parsed = ParsedRecipe(allocation, built)
    _check_length(str(parsed))
    return parsed


def _check_length(text: str) -> None:
    if len(text) > LONGEST:
        raise InputError(f"recipe {text[:40]!r}... is longer than {LONGEST} characters")


@dataclass(frozen=True)
class Recipe(LayerwiseMethod):
    """A score, refinements and an update, applied to every Linear in one pass through the layers.

    Attributes:
        recipe: the steps in the syntax of `parse_recipe`, without an allocation; normalized.
    """

    recipe: str = "wanda | swaps | refit"

    name: ClassVar[str] = "recipe"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        parsed = parse_recipe(self.recipe)
        if parsed.allocation is not None:
            raise InputError(
                f"recipe {self.recipe!r}: give the allocation {parsed.allocation.name!r} by --recipe or "
                "--allocation; the setting of the method contains only steps"
            )
        object.__setattr__(self, "recipe", str(parsed))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps, in order."""
        return parse_recipe(self.recipe).steps

    def as_steps(self) -> Sequence[Step]:
        """The steps, in order."""
        return self.steps

    @property
    def mask_score(self) -> Score:
        """The step that chooses the mask; the contract checks the mask by its comparison groups."""
        return cast(Score, self.steps[0])

    @property
    def refinements(self) -> tuple[Refinement | BlockRefinement, ...]:
        """The steps that improve the mask."""
        return tuple(step for step in self.steps if isinstance(step, Refinement | BlockRefinement))

    @property
    def needs_calibration(self) -> bool:
        """Whether any step reads calibration data."""
        return any(step.reads_inputs for step in self.steps)

    @property
    def reconstructs(self) -> bool:
        """Whether the last step changes surviving weights."""
        last = self.steps[-1]
        return isinstance(last, Update) or (isinstance(last, Score) and last.reconstructs)

    def comparison_group(self, shape: tuple[int, int], pattern: UniformPattern) -> tuple[int, int] | None:
        """The score's group; with refinements, the group within which all of them keep the count of weights.

        Raises:
            InputError: a step does not support `pattern`.
        """
        group = self.mask_score.comparison_group(shape, pattern)
        kept = {step.comparison_group(shape, pattern) for step in self.refinements}
        if not kept:
            return group
        if None in kept:
            return None
        return kept.pop() if len(kept) == 1 else shape


def written(part: PruningMethod | Step | Allocation, but: Collection[str] = ()) -> str:
    """Formats a step with the settings that differ from the default: `refit(steps=20)`.

    Args:
        part: a step, an allocation or a method.
        but: names of settings to leave out.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(cast(Any, part)) if field.init}
    settings = settings_of(cast(Any, part))
    shown = [
        f"{key}={_text(value)}"
        for key, value in settings.items()
        if value != defaults[key] and key not in but
    ]
    return f"{part.name}({', '.join(shown)})" if shown else part.name


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # A text needs quotes if it would be parsed as another type or as several settings.
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.:-]*", value)
    if isinstance(value, str) and not (plain and _value(value) == value):
        return f'"{value}"'
    return f"{value}"


def _parted(text: str) -> list[str]:
    """Splits a recipe into steps, at bars outside of brackets."""
    parts = re.split(r"\|(?![^(]*\))", text)
    for part in parts:
        if not part.strip():
            where = "is empty" if len(parts) == 1 else "has nothing between two bars, or at an end"
            raise InputError(
                f"recipe {text!r} {where}; a recipe is {GRAMMAR}, such as 'wanda | swaps | refit'"
            )
    return parts


def _read(part: str, recipe: str) -> tuple[str, dict[str, Any]]:
    """Parses one step into its name and settings."""
    match = STEP.fullmatch(part)
    if match is None:
        raise InputError(
            f"recipe {recipe!r}: cannot read {part.strip()!r}; a step is a name, or a name with settings "
            "such as refit(steps=20)"
        )
    name, inside = match.groups()
    settings: dict[str, Any] = {}
    for setting in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', inside or ""):
        key, equals, value = (piece.strip() for piece in setting.partition("="))
        if not setting.strip() and not (inside or "").strip():
            continue
        if not equals or not key or not value:
            raise InputError(f"recipe {recipe!r}: {name} has {setting.strip()!r} where key=value belongs")
        if key in settings:
            raise InputError(f"recipe {recipe!r}: {name} has the setting {key} twice")
        settings[key] = _value(value)
    return name, settings


def _value(text: str) -> Any:
    """Parses a number, true, false or a text, with or without quotes."""
    if re.search(r"[\n\r#]", text):
        raise InputError(f"recipe: cannot read the setting {text!r}; settings are separated by commas")
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _build(name: str, settings: dict[str, Any], *, first: bool) -> Step:
    known = steps.names()
    if name in known:
        step = steps.build(name, settings)
        if not isinstance(step, Score | Refinement | BlockRefinement | Update) or step.name != name:
            raise InputError(
                f"step {name!r} ({type(step).__qualname__}) has to be a methods.Score, Refinement, "
                f"BlockRefinement or Update whose name is {name!r}"
            )
        return step
    # A score that another package registers as a method is a step too.
    if name in methods.names() and issubclass(methods.class_of(name), Score):
        return cast(Step, methods.build(name, settings))
    if name in allocations.names():
        raise InputError(f"recipe: the allocation {name!r} has to come first; a recipe is {GRAMMAR}")
    if name in ("none", "uniform") and first:
        raise InputError(f"recipe: omit {name!r}: without an allocation all layers have the same sparsity")
    near = did_you_mean(name, [*known, *allocations.names()])
    raise InputError(f"recipe: unknown step {name!r}{near}")


def _check_order(text: str, built: Sequence[Step]) -> None:
    """Raises `InputError` unless the steps are a score, refinements, and at most one update."""
    if not built:
        raise InputError(f"recipe {text!r} has no score; a recipe is {GRAMMAR}")
    first, *rest = built
    if not isinstance(first, Score):
        kind = "an update" if isinstance(first, Update) else "a refinement"
        raise InputError(
            f"recipe {text!r}: {first.name} is {kind} and needs a mask; put a score before it, such as "
            f"'wanda | {first.name}'"
        )
    for before, step in zip(built, rest, strict=False):
        if isinstance(step, Score):
            raise InputError(
                f"recipe {text!r}: {step.name} chooses a mask of its own, which would discard that of "
                f"{before.name}; a recipe has one score"
            )
        if isinstance(before, Update):
            raise InputError(
                f"recipe {text!r}: {before.name} is an update and comes last; {step.name} would discard its "
                "weights"
            )


__all__ = ["GRAMMAR", "ParsedRecipe", "Recipe", "parse_recipe", "written"]
