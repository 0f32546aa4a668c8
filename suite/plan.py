"""What is settled before the first cell runs, so that wrong input is found while nothing is lost."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from methods.errors import InputError
from suite.cell import AllocationSpec, CalibrationSpec, Cell, DType, PerplexitySpec

if TYPE_CHECKING:
    import torch

    from methods.base import CalibrationSet
    from suite.corpora import EvaluationWindows
    from suite.results.record import CalibrationIdentity, Record


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


def resolve_dtype(wanted: str, device: torch.device) -> DType:
    """`auto` is bf16 where the hardware multiplies it natively, else fp32."""
    from suite.results.environment import native_bf16

    if wanted == "auto":
        return "bfloat16" if native_bf16(device) else "float32"
    return cast(DType, wanted)


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
    from suite.models import resolve_model

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


@dataclass(frozen=True)
class Timed:
    """A calibration set, and the seconds it took to build, which every cell that uses it is charged."""

    calibration: CalibrationSet
    seconds: float

    @property
    def identity(self) -> CalibrationIdentity:
        """Which tokens these are, for a record."""
        from suite.results.record import CalibrationIdentity

        return CalibrationIdentity(
            source=self.calibration.source,
            n_samples=self.calibration.n_samples,
            seqlen=self.calibration.seqlen,
            seed=self.calibration.seed,
            digest=self.calibration.digest,
        )


@dataclass(frozen=True)
class Inputs:
    """What the cells of one model read: tokens, and which weights (as `ModelIdentity` has it)."""

    calibrations: Mapping[CalibrationSpec, Timed]
    windows: Mapping[PerplexitySpec, EvaluationWindows]
    revision: str | None
    folder_digest: str | None


ModelKey = tuple[str, str | None, bool]
"""Name, revision and whether its code may run: what decides a tokenizer."""


def model_key(cell: Cell) -> ModelKey:
    """The key of the cell's model."""
    return cell.model, cell.revision, cell.trust_remote_code


def preflight(cells: Sequence[Cell]) -> dict[ModelKey, Inputs]:
    """Finds out what would fail for reasons that lie in the input, before anything is run.

    Of each model only the configuration and the tokenizer are read. Do the patterns fit its dimensions, can
    the methods do them, is each text long enough, is any sequence too long?

    Returns:
        What the cells read, by model.

    Raises:
        InputError: names the module, the source or the setting at fault.
    """
    by_model: dict[ModelKey, list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(model_key(cell), []).append(cell)
    return {key: _preflight_model(key, of_model) for key, of_model in by_model.items()}


def _preflight_model(key: ModelKey, cells: Sequence[Cell]) -> Inputs:
    from methods.decoder import read_decoder
    from methods.pattern import parse_pattern
    from methods.registry import build
    from suite.corpora import calibration_set, evaluation_windows
    from suite.models import load_skeleton

    name, revision, trust_remote_code = key
    skeleton = load_skeleton(name, revision=revision, trust_remote_code=trust_remote_code)
    decoder = read_decoder(skeleton.model)
    for cell in cells:
        if not cell.is_dense:
            method, pattern = build(cell.method, cell.settings), parse_pattern(cell.pattern or "")
            decoder.check_pattern(pattern)
            for _, _, target in decoder.targets():
                method.comparison_group(target.shape, pattern.for_module(target.name))
    calibrations: dict[CalibrationSpec, Timed] = {}
    for cell in cells:
        spec = cell.calibration
        if spec is not None and spec not in calibrations:
            _check_positions(skeleton.model, spec.seqlen)
            calibrations[spec] = _timed(
                lambda spec=spec: calibration_set(  # type: ignore[misc]
                    spec, skeleton.tokenizer, vocab_size=vocabulary_size(skeleton.model)
                )
            )
    windows: dict[PerplexitySpec, EvaluationWindows] = {}
    for corpus in (corpus for cell in cells for corpus in cell.perplexity):
        if corpus not in windows:
            _check_positions(skeleton.model, corpus.seqlen)
            windows[corpus] = evaluation_windows(
                corpus, skeleton.tokenizer, vocab_size=vocabulary_size(skeleton.model)
            )
    return Inputs(calibrations, windows, skeleton.revision, skeleton.folder_digest)


def input_difference(record: Record, inputs: Inputs) -> str | None:
    """Why the numbers of `record` may not be those of the present inputs; None where they must be."""
    model, cell = record.model, record.cell
    if model is not None and (model.revision, model.folder_digest) != (inputs.revision, inputs.folder_digest):
        return f"the model {cell.model} was changed since"
    if cell.calibration is not None and record.calibration is not None:
        present = inputs.calibrations[cell.calibration].calibration.digest
        if present != record.calibration.digest:
            return f"the calibration text {cell.calibration.source} was changed since"
    digests = {
        windows.protocol: windows.corpus_digest
        for windows in map(inputs.windows.get, cell.perplexity)
        if windows
    }
    for losses in record.windows:
        if digests.get(losses.protocol, losses.corpus_digest) != losses.corpus_digest:
            return f"the text of {losses.protocol} was changed since"
    return None


def _timed(build: Callable[[], CalibrationSet]) -> Timed:
    """The calibration set, charged what it takes to tokenize the text and draw from it.

    Built once before the clock starts, so that nobody is charged a download; tokenized anew under the clock,
    so that it does not matter who came first.
    """
    from suite.tokenized_text import forget_texts

    build()
    forget_texts()
    start = time.perf_counter()
    return Timed(build(), time.perf_counter() - start)


def vocabulary_size(model: Any) -> int:
    """How many tokens `model` has embeddings for."""
    return int(model.get_input_embeddings().weight.shape[0])


def _check_positions(model: Any, seqlen: int) -> None:
    """Raises `InputError` if a sequence is longer than the positions that `model` has."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(longest, int) and seqlen > longest:
        raise InputError(f"seqlen {seqlen} is longer than the {longest} positions of {type(model).__name__}")


__all__ = [
    "Inputs",
    "ModelKey",
    "Timed",
    "input_difference",
    "matching",
    "model_key",
    "one_pattern",
    "parse_assignments",
    "preflight",
    "pruning_cell",
    "resolve_device",
    "resolve_dtype",
    "vocabulary_size",
]
