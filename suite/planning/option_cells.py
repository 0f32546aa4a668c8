"""Builds cells from command-line options."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from methods.errors import InputError
from suite.cell import (
    DENSE,
    AnswersSpec,
    CalibrationSpec,
    Cell,
    DType,
    FirstToken,
    PerplexitySpec,
    SpeedSpec,
    TaskSpec,
)

NOTHING = "none"
"""Given in place of a task or of prompts, to leave them out."""


def pruning_cell(
    model: str,
    method: str,
    *,
    sparsity: str | float | None,
    pattern: str | None,
    settings: Mapping[str, Any],
    allocation: str | None,
    allocation_settings: Mapping[str, Any],
    calibration: CalibrationSpec,
    dtype: DType,
    revision: str | None,
    trust_remote_code: bool,
) -> Cell:
    """Builds the cell that `prunebench prune` runs.

    Raises:
        InputError: an unknown name, or an invalid setting or pattern.
    """
    from methods.registry import settings_of
    from suite.data.corpora import check_source
    from suite.models.source import resolve_model
    from suite.planning.method_of_cell import full_allocation, needs_calibration, pruned_by

    resolve_model(model)
    chosen = one_pattern(sparsity, pattern)
    if allocation_settings and allocation is None:
        raise InputError("--set-allocation needs --allocation NAME (prunebench list allocations)")
    spec = None
    if allocation is not None:
        spec = full_allocation(allocation, allocation_settings, [chosen])
    built, spec = pruned_by(method, settings, spec, [chosen])
    calibrates = needs_calibration(built, spec)
    if calibrates:
        check_source(calibration.source)
    return Cell(
        model=model,
        revision=revision,
        method=built.name,
        settings=settings_of(built),
        pattern=chosen,
        allocation=spec,
        calibration=calibration if calibrates else None,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )


def evaluation_cell(
    model: str,
    dense: str | None,
    *,
    corpora: Sequence[str],
    seqlen: int,
    max_tokens: int | None,
    first_token: FirstToken,
    tasks: Sequence[str],
    task_folder: str | None,
    num_fewshot: int | None,
    limit: int | None,
    prompts: str,
    max_new_tokens: int,
    speed: bool,
    dtype: DType,
    revision: str | None,
    trust_remote_code: bool,
) -> Cell:
    """Builds the cell of what `prunebench evaluate` measures, as a dense cell of the model.

    Raises:
        InputError: an unknown model, corpus, task or file of prompts.
    """
    from suite.data.corpora import check_source
    from suite.data.prompts import load_prompts
    from suite.evaluation.lm_eval_tasks.names import check_folder, check_task, expand_sets
    from suite.models.source import resolve_model

    for name in (model, dense):
        if name is not None:
            resolve_model(name)
    for corpus in corpora:
        check_source(corpus, "evaluation")
    check_folder(task_folder)
    asked = [name for name in dict.fromkeys(expand_sets(tasks)) if name != NOTHING]
    for name in asked:
        check_task(name, task_folder)
    if prompts != NOTHING:
        load_prompts(prompts)
    return Cell(
        model=model,
        revision=revision,
        method=DENSE,
        dtype=dtype,
        perplexity=tuple(
            PerplexitySpec(corpus=corpus, seqlen=seqlen, max_tokens=max_tokens, first_token=first_token)
            for corpus in dict.fromkeys(corpora)
        ),
        divergence=dense is not None,
        tasks=tuple(
            TaskSpec(name=name, num_fewshot=num_fewshot, limit=limit, folder=task_folder) for name in asked
        ),
        answers=None if prompts == NOTHING else AnswersSpec(prompts=prompts, max_new_tokens=max_new_tokens),
        speed=SpeedSpec() if speed else None,
        trust_remote_code=trust_remote_code,
    )


def one_pattern(sparsity: str | float | None, pattern: str | None) -> str:
    """Returns the canonical pattern for `--sparsity` and `--pattern`, of which one is enough.

    Raises:
        InputError: neither is given, one is invalid, or they contradict each other.
    """
    from methods.masks.pattern import SemiStructured, parse_pattern

    if pattern is None:
        if sparsity is None:
            raise InputError("give --sparsity such as 0.5, or --pattern such as 2:4")
        return str(parse_pattern(sparsity))
    chosen = parse_pattern(pattern)
    if sparsity is not None:
        share = parse_pattern(sparsity)
        if isinstance(share, SemiStructured) or share.target != chosen.target:
            raise InputError(
                f"--sparsity {sparsity} contradicts --pattern {pattern}, which removes {chosen.target:.4g}: "
                "give one of them"
            )
    return str(chosen)


def parse_assignments(assignments: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """Parses assignments like `["rebuild_ratio=0.1", "initial=magnitude"]`; `a.b=1` sets a key of a table.

    Values that are valid TOML (numbers, true, false) are read as such, others as text.

    Raises:
        InputError: an assignment has no `=`, or sets a key that is already set.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not key:
            raise InputError(f"{option} {assignment}: write it as key=value")
        *tables, last = key.split(".")
        home = settings
        for table in tables:
            home = home.setdefault(table, {})
            if not isinstance(home, dict):
                raise InputError(f"{option} {assignment}: {table} already has a value")
        if last in home:
            raise InputError(f"{option} {assignment}: {key} is set twice")
        home[last] = _value(text)
    return settings


def _value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


__all__ = [
    "evaluation_cell",
    "one_pattern",
    "parse_assignments",
    "pruning_cell",
]
