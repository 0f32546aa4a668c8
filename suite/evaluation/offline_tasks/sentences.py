"""Finds the sentences of an English text."""

from __future__ import annotations

import re

_END = re.compile(r"""(?P<last>[\w.]*)[.!?]["'”’)\]]*(?P<gap>\s+)(?=["'“‘(\[]?[A-Z])""")
_ABBREVIATIONS = frozenset(
    {
        *("Mr", "Mrs", "Ms", "Dr", "Prof", "Rev", "Gen", "Sen", "Lt", "Col", "Capt", "Sgt", "Jr", "Sr"),
        *("St", "No", "Vol", "vs", "cf", "ca", "viz"),
    }
)


def sentence_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Returns start and end of every sentence, in order, without the white space between them.

    A full stop after an initial, an abbreviation or a word with another full stop does not end a sentence:
    joining two sentences is better than splitting a name.
    """
    spans: list[tuple[int, int]] = []
    start = len(text) - len(text.lstrip())
    for match in _END.finditer(text):
        word = match["last"]
        if word in _ABBREVIATIONS or "." in word or (len(word) == 1 and word.isupper()):
            continue
        spans.append((start, match.start("gap")))
        start = match.end()
    if end := len(text.rstrip()):
        spans.append((start, end))
    return tuple(spans)


__all__ = ["sentence_spans"]
