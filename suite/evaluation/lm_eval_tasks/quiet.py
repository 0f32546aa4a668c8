"""Runs lm-eval without progress bars and log messages; prunebench checks or records the problems itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

_SINGLE = "DISABLE_MULTIPROC"


@contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Silences everything below the level of errors while the body runs."""
    import datasets
    from lm_eval.api import task

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    # Otherwise bootstrapping standard errors starts a pool of processes for every metric.
    parallel = os.environ.get(_SINGLE)
    os.environ[_SINGLE] = "1"
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    # The progress bar for building requests cannot be disabled in any other way.
    bar = task.tqdm
    task.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        task.tqdm = bar
        if shown:
            datasets.enable_progress_bars()
        if parallel is None:
            del os.environ[_SINGLE]
        else:
            os.environ[_SINGLE] = parallel
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


__all__ = ["quiet_lm_eval"]
