"""lm-eval without its bars and its running commentary; what they would say is checked or recorded here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Holds back everything below an error while the body runs."""
    from lm_eval.api import task

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    # Its bar over the building of requests has no other switch.
    bar = task.tqdm
    task.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        task.tqdm = bar
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


__all__ = ["quiet_lm_eval"]
