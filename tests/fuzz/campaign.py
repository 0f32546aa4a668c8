"""Runs libFuzzer on a corpus and a dictionary that are made in code, and leaves nothing but what it found."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris


def run(
    one_input: Callable[[bytes], None],
    *,
    seeds: Iterable[bytes],
    keys: Iterable[str],
    max_len: int,
    mutate: Callable[[bytes, int, int], bytes] | None = None,
) -> None:
    """Fuzzes with the options of the command line, and ends with libFuzzer's exit code.

    Args:
        one_input: raises where an input shows a defect.
        seeds: what to begin with.
        keys: what to put into inputs.
        max_len: bytes of the longest input.
        mutate: makes another input of one, given the most bytes it may have and a seed.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for place, data in enumerate(seeds):
            (corpus / str(place)).write_bytes(data)
        dictionary = Path(folder) / "keys.dict"
        dictionary.write_text("".join(f"{json.dumps(key)}\n" for key in keys))
        options = [f"-dict={dictionary}", f"-max_len={max_len}", *sys.argv[1:], str(corpus)]
        child = os.fork()  # libFuzzer ends its process, which then tidies nothing up
        if child == 0:
            more = {} if mutate is None else {"custom_mutator": mutate}
            atheris.Setup([sys.argv[0], *options], one_input, **more)
            atheris.Fuzz()
        status = os.waitpid(child, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(status))
