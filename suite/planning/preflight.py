"""Reads all inputs before the first cell runs, so that wrong input is found before any work is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from methods.errors import InputError, StructureError
from suite.cell import CalibrationSpec, Cell, PerplexitySpec, SpeedSpec, TaskSpec
from suite.data.corpora import holds_tokens
from suite.evaluation.inputs import Inputs, ModelKey, Text, Timed, both_ways, model_key, with_first_token

if TYPE_CHECKING:
    from methods.base import CalibrationSet
    from suite.data.corpora import EvaluationWindows
    from suite.evaluation.first_token import FirstTokenProbe
    from suite.evaluation.lm_eval_tasks.loading import LoadedTask


def preflight(cells: Sequence[Cell]) -> dict[ModelKey, Inputs]:
    """Reads and checks all inputs of cells before anything is run.

    Checks the files of each model, and reads its configuration and tokenizer. Also checks that the patterns
    fit the model's dimensions, that the methods support them, and that no text or sequence is too short or
    too long.

    Returns:
        The inputs of the cells, by model.

    Raises:
        InputError: an input is invalid; the message names the module, the source or the setting at fault.
    """
    by_model: dict[ModelKey, list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(model_key(cell), []).append(cell)
    return {key: _preflight_model(key, of_model) for key, of_model in by_model.items()}


def _preflight_model(key: ModelKey, cells: Sequence[Cell]) -> Inputs:
    from methods.masks.pattern import parse_pattern
    from methods.registry import build
    from methods.structure.decoder import read_decoder
    from suite.data.corpora import calibration_set, check_vocabulary, evaluation_windows
    from suite.data.prompts import load_prompts
    from suite.data.tokenized_text import first_tokens
    from suite.evaluation.lm_eval_tasks.loading import load_task
    from suite.evaluation.lm_eval_tasks.zero_shot import prepare_task
    from suite.evaluation.scoring.responses import check_prompts
    from suite.models.loading import load_skeleton
    from suite.models.structure import check_chain

    name, revision, trust_remote_code = key
    skeleton = load_skeleton(name, revision=revision, trust_remote_code=trust_remote_code)
    try:
        decoder = read_decoder(skeleton.model)
        check_chain(skeleton.model)
    except StructureError as error:
        raise InputError(f"model {name!r} cannot be pruned or measured: {error}") from error
    for cell in cells:
        if cell.prunes:
            method, pattern = build(cell.method, cell.settings), parse_pattern(cell.pattern or "")
            decoder.check_pattern(pattern)
            for _, _, target in decoder.targets():
                method.comparison_group(target.shape, pattern.for_module(target.name))
    n_tokens = vocabulary_size(skeleton.model)
    asked = {choice for cell in cells for choice in cell.first_tokens}
    first: tuple[int, ...] = ()
    if skeleton.tokenizer is not None and asked & {"auto", "always"}:
        first = first_tokens(skeleton.tokenizer)
        if "always" in asked and not first:
            raise InputError(
                f"model {name!r}: first_token is 'always', and its tokenizer puts no token first"
            )
    if skeleton.tokenizer is None:
        _check_needs_no_tokenizer(name, cells)
    calibrations: dict[CalibrationSpec, Timed] = {}
    for spec in dict.fromkeys(cell.calibration for cell in cells if cell.calibration is not None):
        _check_positions(name, skeleton.model, spec.seqlen, f"calibration {spec.source!r}")
        for each in [spec] if holds_tokens(spec.source) else _ways(spec, first):
            build_set = partial(calibration_set, each, skeleton.tokenizer)
            calibrations[each] = _timed(build_set, first_token=each.first_token == "always")
            with _naming(name):
                check_vocabulary(calibrations[each].calibration.input_ids, n_tokens, each)
    windows: dict[PerplexitySpec, EvaluationWindows] = {}
    for corpus in dict.fromkeys(corpus for cell in cells for corpus in cell.perplexity):
        _check_positions(name, skeleton.model, corpus.seqlen, f"corpus {corpus.corpus!r}")
        for text in _ways(corpus, first):
            windows[text] = evaluation_windows(text, skeleton.tokenizer)
            with _naming(name):
                check_vocabulary(windows[text].input_ids, n_tokens, text)
    tasks = {spec: load_task(spec) for spec in dict.fromkeys(s for cell in cells for s in cell.tasks)}
    prompts = {name: load_prompts(name) for name in {c.answers.prompts for c in cells if c.answers}}
    _check_asked_once(tasks)
    for task in tasks.values():
        assert skeleton.tokenizer is not None, "checked above"
        with _naming(name):
            prepare_task(skeleton.model, skeleton.tokenizer, task)
    for cell in cells:
        if cell.speed is not None:
            _check_speed(name, skeleton.model, cell.speed)
        if cell.answers is not None and skeleton.tokenizer is not None:
            asked_prompts = prompts[cell.answers.prompts].prompts
            with _naming(name):
                check_prompts(skeleton.model, skeleton.tokenizer, asked_prompts, cell.answers.max_new_tokens)
    return Inputs(
        calibrations=calibrations,
        windows=windows,
        revision=skeleton.revision,
        folder_digest=skeleton.folder_digest,
        tasks=tasks,
        prompts=prompts,
        remarks=skeleton.remarks,
        first_token=_probe(calibrations, windows, len(first)),
    )


def _ways(spec: Text, first: Sequence[int]) -> list[Text]:
    """Returns `both_ways` if the tokenizer puts tokens first and leaves text to predict, else the spec."""
    return both_ways(spec) if 0 < len(first) < spec.seqlen - 1 else [spec]


def _probe(
    calibrations: Mapping[CalibrationSpec, Timed],
    windows: Mapping[PerplexitySpec, EvaluationWindows],
    n_first: int,
) -> FirstTokenProbe | None:
    """Returns windows to test whether the model needs its first tokens: the first text with `auto`."""
    from suite.evaluation.first_token import PROBED_WINDOWS, FirstTokenProbe

    for text in windows:
        if text.first_token == "auto" and (led := windows.get(with_first_token(text))) is not None:
            return FirstTokenProbe(text.corpus, led.input_ids[:PROBED_WINDOWS], n_first)
    for spec in calibrations:
        if spec.first_token == "auto" and (drawn := calibrations.get(with_first_token(spec))) is not None:
            return FirstTokenProbe(spec.source, drawn.calibration.input_ids[:PROBED_WINDOWS], n_first)
    return None


def _timed(build: Callable[[], CalibrationSet], *, first_token: bool) -> Timed:
    """Builds the calibration set, and measures the time to tokenize the text and draw from it.

    It is built once before the clock starts, so that downloads are not counted, and again under the clock
    without the cache, so that the order of calibration sets does not matter.
    """
    from suite.data.tokenized_text import forget_texts

    build()
    forget_texts()
    start = time.perf_counter()
    return Timed(build(), time.perf_counter() - start, first_token)


def vocabulary_size(model: Any) -> int:
    """Returns the number of tokens that `model` has embeddings for."""
    return int(model.get_input_embeddings().weight.shape[0])


def _check_asked_once(tasks: Mapping[TaskSpec, LoadedTask]) -> None:
    """Raises `InputError` if two specs contain the same task with the same number of examples."""
    seen: dict[str, TaskSpec] = {}
    for spec, task in tasks.items():
        for protocol in task.digests:
            if protocol in seen:
                raise InputError(
                    f"tasks {seen[protocol].name!r} and {spec.name!r} both contain {protocol}: remove one"
                )
            seen[protocol] = spec


def _check_needs_no_tokenizer(name: str, cells: Sequence[Cell]) -> None:
    """Raises `InputError` if an input of the cells has to be tokenized."""
    for cell in cells:
        drawn = cell.calibration
        if cell.perplexity or (drawn is not None and not holds_tokens(drawn.source)):
            raise InputError(
                f"model {name!r} has no tokenizer, so no text can be read: leave texts out, and calibrate on "
                "token ids, a .safetensors file with input_ids [n, seqlen]"
            )
        if cell.tasks or cell.answers:
            raise InputError(f"model {name!r} has no tokenizer, so tasks and prompts cannot be used with it")


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the model's name before error messages, because a suite may have several models."""
    try:
        yield
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from error


def _check_positions(name: str, model: Any, seqlen: int, what: str) -> None:
    """Raises `InputError` if a sequence is longer than the positions that `model` has."""
    from methods.structure.decoder import n_positions

    longest = n_positions(model)
    if longest is not None and seqlen > longest:
        raise InputError(
            f"model {name!r}: seqlen {seqlen} of {what} is longer than the {longest} positions of "
            f"{type(model).__name__}"
        )


def _check_speed(name: str, model: Any, spec: SpeedSpec) -> None:
    """Raises `InputError` if measuring the speed takes more positions than `model` has."""
    from methods.structure.decoder import n_positions

    longest = n_positions(model)
    if longest is not None and spec.prompt_tokens + spec.new_tokens > longest:
        raise InputError(
            f"model {name!r}: measuring its speed reads {spec.prompt_tokens} tokens and generates "
            f"{spec.new_tokens}, but {type(model).__name__} has {longest} positions: leave speed out "
            "(--no-speed), or lower prompt_tokens and new_tokens under [speed] in a suite"
        )


__all__ = [
    "preflight",
    "vocabulary_size",
]
