"""Names and descriptions of the tasks that need no hub; their text is never used for calibration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

TASKS_FOLDER = Path(__file__).parent
"""The folder of the tasks' YAML files, for lm-eval's `TaskManager(include_path=...)`."""

OFFLINE_TASK_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "offline_cloze": "the last word of a held-out passage, one that came up in it before",
        "offline_next_paragraph": "which of four paragraphs of a held-out article comes before a given one",
        "offline_agreement": "the verb that agrees with a subject from which other nouns distract",
    }
)
"""What each task asks, in one line."""

OFFLINE_TASKS: tuple[str, ...] = tuple(OFFLINE_TASK_DESCRIPTIONS)
"""The names of the tasks, as lm-eval knows them."""

__all__ = ["OFFLINE_TASKS", "OFFLINE_TASK_DESCRIPTIONS", "TASKS_FOLDER"]
