"""Checks the rows of a task, above all that each label refers to one of the row's options.

If a label refers to none, lm-eval counts every answer as wrong; for an example with a negative label it shows
an option counted from the end, as Python indexes. Both make the score meaningless. For missing rows and empty
options, lm-eval raises Python errors that name neither the task nor the row.
"""

from __future__ import annotations

import operator
import reprlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from methods.errors import InputError


def check_labels(name: str, task: Any, limit: int | None) -> None:
    """Checks the label of every question that is asked.

    Args:
        name: the task's name.
        task: lm-eval's task.
        limit: number of questions that are asked, from the start; None = all.

    Raises:
        InputError: lm-eval cannot score a label, or scores it as wrong whatever the answer.
    """
    fault_of = _rule(task)
    if fault_of is None:
        return
    for row, doc in enumerate(islice(task.eval_docs, limit)):
        if fault := fault_of(doc):
            raise _refusal(name, row, "questions", fault)


@contextmanager
def checked_examples(name: str, task: Any) -> Iterator[None]:
    """Checks the label of every few-shot example that is drawn while the body runs, before it is shown.

    Raises:
        InputError: the answer shown with an example would be missing or not the labelled one, or there are
            fewer examples than each question needs.
    """
    if not (_is_own(task, "fewshot_context") and hasattr(task, "sampler")):
        yield
        return
    sampler, draw = task.sampler, task.sampler.sample
    has_options = bool(task.fewshot_cfg.doc_to_choice)
    seen: dict[int, Any] = {}  # by identity; keeping the examples ensures that no identity is reused

    def sample(*args: Any, **kwargs: Any) -> Any:
        try:
            drawn = draw(*args, **kwargs)
        except (ValueError, AssertionError) as error:
            raise InputError(
                f"task {name!r}: {task.get_config('num_fewshot')} examples were asked for before each "
                f"question, but there are {len(sampler.df)} to draw from (num_fewshot)"
            ) from error
        for example in drawn if has_options else ():
            if id(example) in seen:
                continue
            seen[id(example)] = example
            if fault := _example_fault(task, example):
                row = next((row for row, one in enumerate(sampler.df) if one is example), None)
                raise _refusal(name, row, "examples", fault)
        return drawn

    sampler.sample = sample
    try:
        yield
    finally:
        del sampler.sample


@contextmanager
def explain_build_errors() -> Iterator[None]:
    """Explains the errors that lm-eval raises when it cannot build a task from its data.

    lm-eval reads the splits and row 0 while it builds a task, so they cannot be checked earlier.

    Raises:
        InputError: a split is missing or empty, or row 0 has an empty option or a label without an option.
    """
    from lm_eval.api.task import ConfigurableTask

    try:
        yield
    except (IndexError, KeyError, StopIteration) as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        made = [f for f in frames if f.f_code is ConfigurableTask.__init__.__code__]
        if made:
            tried = made[-1].f_locals
            name = tried["self"].config.task
            if (fault := _data_fault(tried["self"], error)) is not None:
                raise InputError(f"task {name!r}: {fault}") from error
            if frames[-1] is made[-1] and (fault := _first_row_fault(tried)) is not None:
                raise _refusal(name, 0, "questions", fault) from error
        raise


def _data_fault(task: Any, error: BaseException) -> str | None:
    """Describes the fault in the splits of a task that could not be built; None if there is none."""
    splits = getattr(task, "dataset", None)
    if splits is None:
        return "its data set has no rows" if isinstance(error, StopIteration) else None
    config = task.config
    for name in (config.training_split, config.validation_split, config.test_split, config.fewshot_split):
        if name is not None and name not in splits:
            return f"its file names the split {name!r}, but its data set has {', '.join(map(repr, splits))}"
        if name is not None and len(splits[name]) == 0:
            return f"its split {name!r} has no rows"
    return None


def _first_row_fault(tried: Mapping[str, Any]) -> str | None:
    """Describes the fault in row 0, read from the local variables of lm-eval's function; None if none."""
    label, options = tried.get("test_target"), tried.get("test_choice")
    if isinstance(options, list) and "" in options:
        return f"has an empty option ({_short(options)})"
    # Later in that function the label has become the option's text.
    return _number_fault(label, options) if isinstance(label, int) and isinstance(options, list) else None


def _rule(task: Any) -> Callable[[Any], str | None] | None:
    """Returns a function that describes the fault in a row's label; None for tasks without options."""
    if not _is_own(task, "process_results") or callable(task.config.process_results):
        return None
    if task.OUTPUT_TYPE == "multiple_choice":
        # If the options are contexts, as in Winogrande, the text is the label.
        label_of = task.doc_to_text if task.multiple_input else task.doc_to_target
        fault = _list_fault if task.multiple_target else _label_fault
        return lambda doc: fault(label_of(doc), task.doc_to_choice(doc))
    if task.OUTPUT_TYPE == "generate_until" and task.config.doc_to_choice is not None:
        return lambda doc: _number_fault(task.doc_to_target(doc), task.doc_to_choice(doc))
    return None


def _label_fault(label: Any, options: Sequence[Any]) -> str | None:
    """Describes the fault in a label that has to be an option's number or its text; None if none."""
    if label == []:  # an empty list in row 0 makes lm-eval expect single labels
        return _list_fault(label, options)
    if isinstance(label, list):
        return f"is labelled {_short(label)}, a list, where row 0 has a single label"
    if label in options if isinstance(label, str) else _is_number(label, options):
        return None
    return f"is labelled {_short(label)}, neither the number (from 0) nor the text of {_one_of(options)}"


def _list_fault(labels: Any, options: Sequence[Any]) -> str | None:
    """Describes the fault in a list of correct labels, which must be numbers for lm-eval; None if none."""
    if not isinstance(labels, list):
        return f"is labelled {_short(labels)}, where row 0 has a list of labels"
    if not labels:
        return f"has an empty list of labels, and so none of {_one_of(options)}"
    stray = [label for label in labels if not _is_number(label, options)]
    if not stray:
        return None
    which = f"is labelled {_short(labels)}, of which {_short(stray[0])}"
    return f"{which} is not the number (from 0) of {_one_of(options)}"


def _number_fault(label: Any, options: Sequence[Any]) -> str | None:
    """Describes the fault in a label that has to be an option's number; None if there is none."""
    if _is_number(label, options):
        return None
    return f"is labelled {_short(label)}, which is not the number (from 0) of {_one_of(options)}"


def _example_fault(task: Any, example: Any) -> str | None:
    """Describes the fault in a few-shot example's numeric label; lm-eval shows or refuses other labels."""
    shown = task.fewshot_cfg
    if task.multiple_input:
        label = task.doc_to_text(example, shown.doc_to_text)
    else:
        label = task.doc_to_target(example, shown.doc_to_target)
    if label is None or isinstance(label, int):
        return _number_fault(label, task.doc_to_choice(example, shown.doc_to_choice))
    return None


def _is_number(label: Any, options: Sequence[Any]) -> bool:
    """Whether a label is the number of an option; a bool counts as 0 or 1, as in lm-eval."""
    try:
        return 0 <= operator.index(label) < len(options)
    except TypeError:
        return False


def _one_of(options: Sequence[Any]) -> str:
    return "its only option" if len(options) == 1 else f"one of its {len(options)} options"


def _short(label: Any) -> str:
    """Returns a label as a short text in one line."""
    return " ".join(reprlib.repr(label).split())


def _refusal(name: str, row: int | None, rows: str, fault: str) -> InputError:
    which = f"one of its {rows}" if row is None else f"row {row} of its {rows} (counted from 0)"
    return InputError(f"task {name!r}: {which} {fault}")


def _is_own(task: Any, method: str) -> bool:
    """Whether a method is lm-eval's own and not overridden by the task."""
    from lm_eval.api.task import ConfigurableTask

    return getattr(type(task), method) is getattr(ConfigurableTask, method)


__all__ = ["check_labels", "checked_examples", "explain_build_errors"]
