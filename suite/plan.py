"""From what a user asks for on the command line to devices, dtypes and cells."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from methods.errors import InputError
from suite.cell import (
    DENSE,
    AllocationSpec,
    AnswersSpec,
    CalibrationSpec,
    Cell,
    DType,
    FirstToken,
    PerplexitySpec,
    SpeedSpec,
    TaskSpec,
)

if TYPE_CHECKING:
    import torch


NOTHING = "none"
"""In place of a task or of prompts: do not."""


def resolve_device(wanted: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {wanted}: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # its memory counters cannot be reset before
    return device


def resolve_devices(wanted: str, workers: int | None) -> list[torch.device]:
    """A device for each worker of this machine.

    Args:
        wanted: `auto` (every GPU, or else the CPU), `cpu`, `cuda` (every GPU), or GPUs such as
            `cuda:0,cuda:2`.
        workers: how many; None = one a GPU, and one on the CPU.

    Raises:
        InputError: there is no such device here, or fewer GPUs than workers.
    """
    import torch

    names = [name.strip() for name in wanted.split(",")]
    if names in (["auto"], ["cuda"]):
        first = resolve_device(names[0])
        n_gpus = torch.cuda.device_count() if first.type == "cuda" else 0
        devices = [torch.device("cuda", n) for n in range(n_gpus)] if n_gpus > 1 else [first]
    else:
        devices = [resolve_device(name) for name in names]
    if len(set(devices)) < len(devices):
        raise InputError(f"--device {wanted}: names a device twice")
    if {device.type for device in devices} == {"cpu"}:
        return devices * (workers or 1)
    if workers is not None and workers > len(devices):
        raise InputError(f"--workers {workers}: {len(devices)} GPUs run {len(devices)} cells at a time")
    return devices[:workers]


def resolve_dtype(wanted: str, device: torch.device) -> DType:
    """`auto` is bf16 where the hardware multiplies it natively, else fp32."""
    from suite.results.environment import native_bf16

    if wanted == "auto":
        return "bfloat16" if native_bf16(device) else "float32"
    return cast(DType, wanted)


def written_dtype(wanted: str, stored: Sequence[torch.dtype], device: torch.device) -> DType:
    """The dtype in which a model is pruned and written.

    `auto` is the one in which most of its weights are stored, where the device computes in it natively; else
    fp32, which holds every value of the 16-bit types.

    Args:
        wanted: what the user says.
        stored: the types in which the model's weights are stored, that of most bytes first.
        device: where it computes.
    """
    import torch

    from suite.results.environment import native_bf16

    if wanted != "auto":
        return cast(DType, wanted)
    if stored[:1] == [torch.bfloat16] and native_bf16(device):
        return "bfloat16"
    return "float16" if stored[:1] == [torch.float16] and device.type == "cuda" else "float32"


def matching(cells: Sequence[Cell], words: Sequence[str]) -> list[Cell]:
    """The cells whose label or file name holds one of `words` or fits it as a glob; all without words.

    Raises:
        InputError: none does.
    """
    if not words:
        return list(cells)
    chosen = [
        cell
        for cell in cells
        if any(w in name or fnmatchcase(name, w) for w in words for name in (cell.label, cell.stem))
    ]
    if not chosen:
        wanted = " ".join(words)
        raise InputError(f"--only {wanted}: fits none of {len(cells)} cells, such as {cells[-1].label!r}")
    return chosen


def pruning_cell(
    model: str,
    method: str,
    *,
    sparsity: str | None,
    pattern: str | None,
    assignments: Sequence[str],
    allocation: str | None,
    allocation_assignments: Sequence[str],
    calibration: CalibrationSpec,
    dtype: DType,
    revision: str | None,
    trust_remote_code: bool,
) -> Cell:
    """The cell that `prunebench prune` runs.

    Raises:
        InputError: unknown names, a bad setting, or a pattern that makes no sense.
    """
    from methods.pattern import parse_pattern
    from methods.registry import allocations, build, method_class, settings_of
    from suite.corpora import check_source
    from suite.model_source import resolve_model

    resolve_model(model)
    needs_calibration = method_class(method).needs_calibration
    built = build(method, parse_assignments(assignments))
    chosen = one_pattern(sparsity, pattern)
    if allocation_assignments and allocation is None:
        raise InputError("--set-allocation needs --allocation NAME (prunebench list allocations)")
    spec = None
    if allocation is not None:
        divides = allocations.build(
            allocation, parse_assignments(allocation_assignments, option="--set-allocation")
        )
        divides.check_pattern(parse_pattern(chosen))
        spec = AllocationSpec(name=allocation, settings=settings_of(divides))
        needs_calibration = needs_calibration or divides.needs_calibration
    if needs_calibration:
        check_source(calibration.source)
    return Cell(
        model=model,
        revision=revision,
        method=method,
        settings=settings_of(built),
        pattern=chosen,
        allocation=spec,
        calibration=calibration if needs_calibration else None,
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
    """What `prunebench evaluate` measures of a model, as a dense cell of it.

    Raises:
        InputError: an unknown model, corpus, task or file of prompts.
    """
    from suite.corpora import check_source
    from suite.evaluation.task_names import check_task, expand_sets
    from suite.model_source import resolve_model
    from suite.prompts import load_prompts

    for name in (model, dense):
        if name is not None:
            resolve_model(name)
    for corpus in corpora:
        check_source(corpus, "evaluation")
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


def one_pattern(sparsity: str | None, pattern: str | None) -> str:
    """The canonical pattern of `--sparsity` and `--pattern`, of which one is enough.

    Raises:
        InputError: neither is given, one is wrong, or they contradict each other.
    """
    from methods.pattern import SemiStructured, parse_pattern

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
    """`["rebuild_ratio=0.1", "initial=magnitude"]` as settings; `a.b=1` sets a key of a table.

    Values are read as TOML where they are TOML (numbers, true, false) and as text otherwise.

    Raises:
        InputError: one has no `=`, or sets what another has set.
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
                raise InputError(f"{option} {assignment}: {table} has a value already")
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
    "matching",
    "one_pattern",
    "parse_assignments",
    "pruning_cell",
    "resolve_device",
    "resolve_devices",
    "resolve_dtype",
]
