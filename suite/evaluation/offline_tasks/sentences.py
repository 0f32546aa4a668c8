"""Where the sentences of an English text begin and end."""

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
    """Start and end of every sentence, in order, without the white space between them.

    A full stop after an initial, an abbreviation or a word that holds another full stop ends none: better two
    sentences taken for one than a name cut in two.
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
