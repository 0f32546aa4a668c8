"""Finds suites by name, reads them, and turns them into cells. Every error names file, line and key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import InputError, did_you_mean
from methods.registry import build, is_recipe, method_class, settings_of
from suite.cell import DENSE, CalibrationSpec, Cell, DType, TaskSpec
from suite.planning.method_of_cell import full_allocation, needs_calibration, pruned_by
from suite.planning.suite_file import MethodTable, SuiteConfig, parse_suite
from suite.planning.toml_lines import KeyPath

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


@dataclass(frozen=True)
class _Variant:
    """One entry of `methods`, with everything that its cells need."""

    path: KeyPath
    pruned_by: Mapping[str, Any]
    patterns: tuple[str, ...]
    needs_calibration: bool

    def cells(self, calibrations: Sequence[CalibrationSpec], of_model: Mapping[str, Any]) -> Iterator[Cell]:
        """Yields one cell per pattern and calibration."""
        for pattern in self.patterns:
            for calibration in calibrations if self.needs_calibration else (None,):
                yield Cell(**self.pruned_by, pattern=pattern, calibration=calibration, **of_model)


def builtin_suites() -> list[str]:
    """Returns the names of the suites that come with prunebench."""
    return sorted(entry.name.removesuffix(".toml") for entry in _templates() if entry.name.endswith(".toml"))


def load_suite(name_or_path: str) -> SuiteConfig:
    """Reads a built-in suite, or a suite file (a path that ends in `.toml` or contains a folder).

    Raises:
        InputError: there is no such suite, or the file is not a valid suite; see `parse_suite`.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.name != name_or_path:
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"suite file {name_or_path!r} cannot be read: {reason}") from error
        return parse_suite(data, file=name_or_path)
    for entry in _templates():
        if entry.name == f"{name_or_path}.toml":
            return parse_suite(entry.read_bytes(), file=entry.name)
    hint = did_you_mean(name_or_path, builtin_suites())
    if Path(f"{name_or_path}.toml").is_file():
        hint = f"; did you mean the file '{name_or_path}.toml'?"
    raise InputError(f"unknown suite {name_or_path!r}{hint}")


def plan(config: SuiteConfig, *, dtype: DType = "float32") -> list[Cell]:
    """Returns the cells of a suite, model by model, each model's dense cell first.

    Args:
        config: the suite.
        dtype: the dtype of all cells. If `config.dtype` is `auto`, use `in_dtype` to set the dtype once the
            device is known.

    Raises:
        InputError: an unknown method, setting, model or corpus, an invalid pattern, or a repeated cell; the
            message names file, line and key.
    """
    variants = [_variant(config, place, table) for place, table in enumerate(config.methods)]
    _check_models(config)
    _check_texts(config, calibrates=any(variant.needs_calibration for variant in variants))
    calibrations = _calibrations(config)
    measured = {key: getattr(config, key) for key in ("perplexity", "divergence", "answers", "speed")}
    base = {**measured, "tasks": _tasks(config), "dtype": dtype, "threads": config.threads}
    cells: list[Cell] = []
    asked: dict[str, KeyPath] = {}
    for model in config.models:
        of_model = {**base, "model": model.name, **model.model_dump(exclude={"name"})}
        cells.append(Cell(method=DENSE, **of_model))
        for variant in variants:
            for cell in variant.cells(calibrations, of_model):
                if cell.digest in asked:
                    first = config.places.where(asked[cell.digest])
                    message = f"repeats the cell {cell.label} (first: {first})"
                    raise config.places.error(variant.path, message)
                asked[cell.digest] = variant.path
                cells.append(cell)
    return cells


def in_dtype(cells: Sequence[Cell], dtype: DType) -> list[Cell]:
    """Returns the same cells with their dtype set to `dtype`."""
    return [cell.model_copy(update={"dtype": dtype}) for cell in cells]


def _templates() -> list[Traversable]:
    return list(files("suite").joinpath("templates").iterdir())


def _variant(config: SuiteConfig, place: int, table: MethodTable) -> _Variant:
    from methods.recipe import parse_recipe

    places, path = config.places, ("methods", place)
    key = "name" if table.recipe is None else "recipe"
    asked = table.name or table.recipe
    if asked is None or (table.name and table.recipe):
        raise places.error(path, "give either a name or a recipe")
    if asked == DENSE:
        raise places.error((*path, key), "the dense model is always measured: leave it out")
    with places.at(*path, key):
        if table.recipe is not None:
            asked = str(parse_recipe(table.recipe))
        elif is_recipe(asked):
            parse_recipe(asked)
            raise InputError(f"{asked!r} is a recipe: write recipe = {asked!r} in place of a name")
        else:
            method_class(asked)
    if table.patterns is not None:
        patterns = _patterns(config, table.patterns, (*path, "patterns"))
    elif config.patterns is not None:
        patterns = _patterns(config, config.patterns, ("patterns",))
    else:
        raise places.error((*path, "patterns"), "is missing, and the suite has no patterns either")
    allocation = None
    if table.allocation is not None:
        with places.at(*path, "allocation"):
            allocation = full_allocation(table.allocation.name, table.allocation.settings, patterns)
    try:
        method, allocation = pruned_by(asked, table.settings, allocation, patterns)
    except InputError as error:
        keys = ("recipe",) if table.recipe else ("settings", *_faulty_setting(table))
        raise places.error((*path, *keys), error) from error
    return _Variant(
        path,
        {
            "method": method.name,
            "settings": settings_of(method),
            "allocation": allocation,
            "title": table.label,
        },
        patterns,
        needs_calibration(method, allocation),
    )


def _faulty_setting(table: MethodTable) -> tuple[str, ...]:
    """Returns the only setting without which the others are accepted; empty if there is not exactly one."""
    suspects = []
    for key in table.settings:
        try:
            build(table.name or "", {k: v for k, v in table.settings.items() if k != key})
        except InputError:
            continue
        suspects.append(key)
    return (suspects[0],) if len(suspects) == 1 else ()


def _patterns(config: SuiteConfig, texts: Iterable[str], path: KeyPath) -> tuple[str, ...]:
    from methods.masks.pattern import parse_pattern

    found: list[str] = []
    for place, text in enumerate(texts):
        with config.places.at(*path, place):
            if (pattern := str(parse_pattern(text))) in found:
                raise InputError(f"{pattern} is listed twice")
        found.append(pattern)
    return tuple(found)


def _check_models(config: SuiteConfig) -> None:
    """Checks the models as far as possible without a download."""
    from suite.models.source import resolve_model

    for place, model in enumerate(config.models):
        path: KeyPath = ("models", place)
        if model in config.models[:place]:
            raise config.places.error(path, f"{model.name!r} is listed twice")
        with config.places.at(*path, "name"):
            kind = resolve_model(model.name).kind
        if model.revision is not None and kind != "hub":
            raise config.places.error((*path, "revision"), f"a {kind} model has none")


def _check_texts(config: SuiteConfig, *, calibrates: bool) -> None:
    """Checks the corpora as far as possible without a download, and reads the prompts."""
    from suite.data.corpora import check_source
    from suite.data.prompts import load_prompts

    places = config.places
    for place, table in enumerate(config.calibration if calibrates else ()):
        with places.at("calibration", place, "source"):
            check_source(table.source, "calibration")
    seen: set[str] = set()
    for place, text in enumerate(config.perplexity):
        with places.at("perplexity", place, "corpus"):
            check_source(text.corpus, "evaluation")
        if text.max_tokens is not None and text.max_tokens < text.seqlen:
            message = f"{text.max_tokens} tokens do not fill one window of {text.seqlen}"
            raise places.error(("perplexity", place, "max_tokens"), message)
        if twice := seen.intersection(text.protocols):
            raise places.error(("perplexity", place), f"protocol {max(twice)} is listed twice")
        seen.update(text.protocols)
    if config.answers is not None:
        with places.at("answers", "prompts"):
            load_prompts(config.answers.prompts)


def _calibrations(config: SuiteConfig) -> tuple[CalibrationSpec, ...]:
    specs: list[CalibrationSpec] = []
    for table_place, table in enumerate(config.calibration):
        for place, seed in enumerate(table.seeds):
            spec = CalibrationSpec(**table.model_dump(exclude={"seeds"}), seed=seed)
            if spec in specs:
                path = ("calibration", table_place, "seeds", place)
                raise config.places.error(path, f"{seed} is listed twice")
            specs.append(spec)
    return tuple(specs)


def _tasks(config: SuiteConfig) -> tuple[TaskSpec, ...]:
    from suite.evaluation.lm_eval_tasks.names import check_folder, check_task, expand_sets

    specs: list[TaskSpec] = []
    for place, asked in enumerate(config.tasks):
        with config.places.at("tasks", place, "folder"):
            check_folder(asked.folder)
        for name in expand_sets([asked.name]):
            with config.places.at("tasks", place, "name"):
                check_task(name, asked.folder)
            if (name, asked.num_fewshot) in [(other.name, other.num_fewshot) for other in specs]:
                raise config.places.error(("tasks", place), f"task {name!r} is listed twice")
            specs.append(asked.model_copy(update={"name": name}))
    return tuple(specs)


def matching(cells: Sequence[Cell], words: Sequence[str]) -> list[Cell]:
    """Returns the cells whose label, recipe or file name contains or (as a glob) matches one of `words`.

    Without words, returns all cells.

    Raises:
        InputError: no cell matches, or a word is empty.
    """
    if not words:
        return list(cells)
    if not all(words):
        raise InputError("--only '': an empty text matches every cell")
    chosen = [
        cell
        for cell in cells
        if any(
            w in name or fnmatchcase(name, w) for w in words for name in (cell.label, cell.pruner, cell.stem)
        )
    ]
    if not chosen:
        wanted = " ".join(words)
        raise InputError(f"--only {wanted}: matches none of {len(cells)} cells, such as {cells[-1].label!r}")
    return chosen


__all__ = ["SuiteConfig", "builtin_suites", "in_dtype", "load_suite", "matching", "parse_suite", "plan"]
