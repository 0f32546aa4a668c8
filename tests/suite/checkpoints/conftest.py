"""A `pruning.json` in the layout that prunebench 0.1.0 wrote."""

import json
from pathlib import Path

import pytest

STORED = Path(__file__).with_name("pruning_v1.json")
"""Of the tiny model, Wanda, 2:4, on 4 x 32 tokens."""


@pytest.fixture
def first_layout():
    """Lays the stored file in the place of a folder's own, which is of the same prune."""

    def call(folder):
        path = folder / "pruning.json"
        own, stored = json.loads(path.read_text())["record"], json.loads(STORED.read_text())
        # Paths, and bits that may be others on another machine.
        stored |= {"model": own["model"], "mask_digest": own["mask_digest"]}
        stored["calibration"]["source"] = own["calibration"]["source"]
        path.write_text(json.dumps(stored, indent=2) + "\n")
        return path

    return call
