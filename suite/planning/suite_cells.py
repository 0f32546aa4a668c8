"""Suites: found by name, read, and turned into cells. Every error names file, line and key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from methods.registry import allocations, build, did_you_mean, method_class, settings_of
from suite.cell import (
    DENSE,
    AllocationSpec,
    AnswersSpec,
    CalibrationSpec,
    Cell,
    DType,
    PerplexitySpec,
    SpeedSpec,
    TaskSpec,
)
from suite.planning.suite_file import AllocationTable, MethodTable, SuiteConfig, parse_suite
from suite.planning.toml_lines import KeyPath

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


@dataclass(frozen=True)
class _Variant:
    """A method with everything a cell holds of it."""

    path: KeyPath
    name: str
    settings: Mapping[str, Any]
    patterns: tuple[str, ...]
    allocation: AllocationSpec | None
    needs_calibration: bool


def builtin_suites() -> list[str]:
    """The names of the suites that come with prunebench."""
    return sorted(entry.name.removesuffix(".toml") for entry in _templates() if entry.name.endswith(".toml"))


def load_suite(name_or_path: str) -> SuiteConfig:
    """Reads a built-in suite, or a suite file (a path that ends in `.toml` or has a folder).

    Raises:
        InputError: there is none, or it is no suite file; see `parse_suite`.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.name != name_or_path:
        try:
            return parse_suite(path.read_bytes(), file=name_or_path)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"suite file {name_or_path!r} cannot be read: {reason}") from error
    for entry in _templates():
        if entry.name == f"{name_or_path}.toml":
            return parse_suite(entry.read_bytes(), file=entry.name)
    hint = did_you_mean(name_or_path, builtin_suites())
    if Path(f"{name_or_path}.toml").is_file():
        hint = f"; did you mean the file '{name_or_path}.toml'?"
    raise InputError(f"unknown suite {name_or_path!r}{hint}")


def plan(config: SuiteConfig, *, dtype: DType = "float32") -> list[Cell]:
    """The cells of a suite, model by model, the dense one of each first.

    Args:
        config: the suite.
        dtype: in which all of them run. Where `config.dtype` is `auto`, `in_dtype` gives them the one of the
            device, once that is known.

    Raises:
        InputError: an unknown method, setting, model or corpus, a pattern that is none, or one cell asked for
            twice: file, line, key.
    """
    variants = [_variant(config, place, table) for place, table in enumerate(config.methods)]
    _check_names(config, variants)
    _check_prompts(config)
    calibrations = _calibrations(config)
    base = {
        "dtype": dtype,
        "threads": config.threads,
        "perplexity": _perplexity(config),
        "divergence": config.divergence,
        "tasks": _tasks(config),
        "answers": config.answers and AnswersSpec(**config.answers.model_dump()),
        "speed": config.speed and SpeedSpec(**config.speed.model_dump()),
    }
    cells: list[Cell] = []
    asked: dict[str, KeyPath] = {}
    for model in config.models:
        of_model = {**base, "model": model.name, **model.model_dump(exclude={"name"})}
        cells.append(Cell(method=DENSE, **of_model))
        for variant in variants:
            for cell in _cells(variant, calibrations, of_model):
                if cell.digest in asked:
                    where = config.places.error(asked[cell.digest], "")
                    raise config.places.error(
                        variant.path, f"asks for the cell {cell.label} once more (first: {str(where)[:-2]})"
                    )
                asked[cell.digest] = variant.path
                cells.append(cell)
    return cells


def in_dtype(cells: Sequence[Cell], dtype: DType) -> list[Cell]:
    """The same cells, all of them in `dtype`."""
    return [cell.model_copy(update={"dtype": dtype}) for cell in cells]


def _templates() -> list[Traversable]:
    return list(files("suite").joinpath("templates").iterdir())


def _cells(
    variant: _Variant, calibrations: tuple[CalibrationSpec, ...], of_model: Mapping[str, Any]
) -> Iterator[Cell]:
    for pattern in variant.patterns:
        for calibration in calibrations if variant.needs_calibration else (None,):
            yield Cell(
                method=variant.name,
                settings=dict(variant.settings),
                pattern=pattern,
                allocation=variant.allocation,
                calibration=calibration,
                **of_model,
            )


def _variant(config: SuiteConfig, place: int, table: MethodTable) -> _Variant:
    path: KeyPath = ("methods", place)
    if table.name == DENSE:
        raise config.places.error((*path, "name"), "the dense model is always measured: leave it out")
    try:
        needs_calibration = method_class(table.name).needs_calibration
    except InputError as error:
        raise config.places.error((*path, "name"), error) from error
    try:
        method = build(table.name, table.settings)
    except InputError as error:
        raise config.places.error((*path, "settings", *_guilty(table)), error) from error
    if table.patterns is not None:
        patterns = _patterns(config, table.patterns, (*path, "patterns"))
    elif config.patterns is not None:
        patterns = _patterns(config, config.patterns, ("patterns",))
    else:
        raise config.places.error((*path, "patterns"), "is missing, and the suite has no patterns either")
    allocation = _allocation(config, table.allocation, patterns, path)
    if allocation is not None:
        needs_calibration = needs_calibration or allocations.class_of(allocation.name).needs_calibration
    return _Variant(path, table.name, settings_of(method), patterns, allocation, needs_calibration)


def _allocation(
    config: SuiteConfig, table: AllocationTable | None, patterns: Iterable[str], path: KeyPath
) -> AllocationSpec | None:
    """The method's allocation in full, which must be able to divide each of its patterns."""
    from methods.masks.pattern import parse_pattern

    if table is None:
        return None
    try:
        allocation = allocations.build(table.name, table.settings)
        for pattern in patterns:
            allocation.check_pattern(parse_pattern(pattern))
    except InputError as error:
        raise config.places.error((*path, "allocation"), error) from error
    return AllocationSpec(name=table.name, settings=settings_of(allocation))


def _guilty(table: MethodTable) -> tuple[str, ...]:
    """The one setting without which the others are accepted; nothing if there is not exactly one."""
    suspects = []
    for key in table.settings:
        try:
            build(table.name, {k: v for k, v in table.settings.items() if k != key})
        except InputError:
            continue
        suspects.append(key)
    return (suspects[0],) if len(suspects) == 1 else ()


def _patterns(config: SuiteConfig, texts: Iterable[str], path: KeyPath) -> tuple[str, ...]:
    from methods.masks.pattern import parse_pattern

    found: list[str] = []
    for place, text in enumerate(texts):
        try:
            pattern = str(parse_pattern(text))
        except InputError as error:
            raise config.places.error((*path, place), error) from error
        if pattern in found:
            raise config.places.error((*path, place), f"{pattern} is there already")
        found.append(pattern)
    return tuple(found)


def _check_names(config: SuiteConfig, variants: list[_Variant]) -> None:
    """Looks up models and corpora, as far as that needs no download."""
    from suite.data.corpora import check_source
    from suite.models.source import resolve_model

    for place, model in enumerate(config.models):
        path: KeyPath = ("models", place)
        if model in config.models[:place]:
            raise config.places.error(path, f"{model.name!r} is there already")
        try:
            kind = resolve_model(model.name).kind
        except InputError as error:
            raise config.places.error((*path, "name"), error) from error
        if model.revision is not None and kind != "hub":
            raise config.places.error((*path, "revision"), f"a {kind} model has none")
    if any(variant.needs_calibration for variant in variants):
        for place, calibration in enumerate(config.calibration):
            try:
                check_source(calibration.source, "calibration")
            except InputError as error:
                raise config.places.error(("calibration", place, "source"), error) from error
    for place, table in enumerate(config.perplexity):
        try:
            check_source(table.corpus, "evaluation")
        except InputError as error:
            raise config.places.error(("perplexity", place, "corpus"), error) from error


def _calibrations(config: SuiteConfig) -> tuple[CalibrationSpec, ...]:
    specs: list[CalibrationSpec] = []
    for table_place, table in enumerate(config.calibration):
        for place, seed in enumerate(table.seeds):
            spec = CalibrationSpec(**table.model_dump(exclude={"seeds"}), seed=seed)
            if spec in specs:
                path = ("calibration", table_place, "seeds", place)
                raise config.places.error(path, f"{seed} is there already")
            specs.append(spec)
    return tuple(specs)


def _tasks(config: SuiteConfig) -> tuple[TaskSpec, ...]:
    from suite.evaluation.lm_eval_tasks.names import check_task, expand_sets

    specs: list[TaskSpec] = []
    for place, table in enumerate(config.tasks):
        for name in expand_sets([table.name]):
            try:
                check_task(name, table.folder)
            except InputError as error:
                key = "folder" if "folder" in str(error).split("'")[0] else "name"
                raise config.places.error(("tasks", place, key), error) from error
            spec = TaskSpec(**{**table.model_dump(), "name": name})
            if (spec.name, spec.num_fewshot) in [(other.name, other.num_fewshot) for other in specs]:
                raise config.places.error(("tasks", place), f"task {name!r} is there already")
            specs.append(spec)
    return tuple(specs)


def _check_prompts(config: SuiteConfig) -> None:
    from suite.data.prompts import load_prompts

    if config.answers is not None:
        try:
            load_prompts(config.answers.prompts)
        except InputError as error:
            raise config.places.error(("answers", "prompts"), error) from error


def _perplexity(config: SuiteConfig) -> tuple[PerplexitySpec, ...]:
    specs: list[PerplexitySpec] = []
    for place, table in enumerate(config.perplexity):
        spec = PerplexitySpec(**table.model_dump())
        if twice := {name for other in specs for name in other.protocols} & set(spec.protocols):
            raise config.places.error(("perplexity", place), f"protocol {max(twice)} is there already")
        specs.append(spec)
    return tuple(specs)


def matching(cells: Sequence[Cell], words: Sequence[str]) -> list[Cell]:
    """The cells whose label or file name holds one of `words` or fits it as a glob; all without words.

    Raises:
        InputError: none does, or a word is empty.
    """
    if not words:
        return list(cells)
    if not all(words):
        raise InputError("--only '': an empty text fits every cell")
    chosen = [
        cell
        for cell in cells
        if any(w in name or fnmatchcase(name, w) for w in words for name in (cell.label, cell.stem))
    ]
    if not chosen:
        wanted = " ".join(words)
        raise InputError(f"--only {wanted}: fits none of {len(cells)} cells, such as {cells[-1].label!r}")
    return chosen


__all__ = ["SuiteConfig", "builtin_suites", "in_dtype", "load_suite", "matching", "parse_suite", "plan"]
