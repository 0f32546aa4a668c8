"""Makes text safe for LaTeX: no foreign string can end a group, start a command or stop the compiler."""

from __future__ import annotations

import re
import unicodedata

from reports.wording import visible

_SPECIALS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "\u00a0": "~",
    "–": "--",
    "—": "---",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "…": r"\dots{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "‖": r"$\Vert$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "µ": r"$\mu$",
    "°": r"\textdegree{}",
}
_LETTERS = frozenset(map(chr, range(0xC0, 0x100))) - {"×", "÷"} | frozenset(
    "ĂăĄąĆćČčĎďĐđĘęĚěĞğİŁłŃńŇňŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž"
)
"""Letters outside ASCII that every LaTeX with T1 fonts can typeset."""
LONG_RUN, LONG_NARROW_RUN = 24.0, 11.0
"""Longer runs of characters may break anywhere as a last resort; measured in widths of a small letter. The
second limit is for narrow columns of a table.
"""

_BREAK_AFTER = frozenset("/_.:;,=+@|&?!")
_WIDE = frozenset("MWmw@%&")
_BREAK = r"\allowbreak{}"
_LAST_RESORT = r"\penalty9000{}"


class Tex(str):
    """Text that is already LaTeX and is not escaped again."""

    __slots__ = ()


def tex(text: str, *, is_narrow: bool = False) -> Tex:
    """Converts text to LaTeX that prints it, whatever it contains.

    Control and direction characters are escaped visibly, white space becomes one space, and a character that
    common LaTeX fonts lack is replaced by its code point. Long names may break without a hyphen, so that they
    fit their column.

    Args:
        text: any text; LaTeX commands in it are printed as text.
        is_narrow: whether it goes into a narrow column.
    """
    longest = LONG_NARROW_RUN if is_narrow else LONG_RUN
    # Do not split at every kind of space: keep non-breaking ones.
    words = re.split(r"[ \t\n]+", unicodedata.normalize("NFC", visible(text)))
    return Tex(" ".join(_word(word, longest) for word in words if word))


def set_length(text: str) -> int:
    """Number of characters that the text takes when typeset."""
    return sum(1 if _is_settable(char) else len(_character_name(char)) for char in visible(text))


def clipped(text: str, most: int) -> str:
    """Cuts a text that would take more than `most` characters and appends an ellipsis."""
    text = visible(text)
    if set_length(text) <= most:
        return text
    kept, taken = "", 1
    for char in text:
        taken += set_length(char)
        if taken > most:
            break
        kept += char
    return f"{kept} …"


def _word(word: str, longest: float) -> str:
    runs = _runs(word) if sum(map(_weight, word)) > longest else [word]
    parts = []
    for i, run in enumerate(runs):
        cut = sum(map(_weight, run)) > longest
        parts.append((_LAST_RESORT if cut else "").join(_characters(run)))
        # TeX breaks after a hyphen by itself.
        if i + 1 < len(runs) and not run.endswith("-"):
            parts.append(_BREAK)
    return "".join(parts)


def _runs(word: str) -> list[str]:
    """Splits a long word into pieces between which a line may break."""
    runs = [""]
    for char in word:
        runs[-1] += char
        if char in _BREAK_AFTER or char == "-" or not _is_settable(char):
            runs.append("")
    return [run for run in runs if run]


def _weight(char: str) -> float:
    if not _is_settable(char):
        return float(len(_character_name(char)))
    return 2.0 if char in _WIDE else 1.5 if char.isupper() else 1.0


def _characters(run: str) -> list[str]:
    """Converts each character; separates two dashes or quotes in a row, which would become another sign."""
    follows = [*run[1:], ""]
    return [
        _character(char) + ("{}" if char in "-'`" and char == after else "")
        for char, after in zip(run, follows, strict=True)
    ]


def _is_settable(char: str) -> bool:
    return char in _SPECIALS or " " <= char <= "~" or char in _LETTERS


def _character(char: str) -> str:
    if _is_settable(char):
        return _SPECIALS.get(char, char)
    return "".join(_SPECIALS.get(c, c) for c in _character_name(char))


def _character_name(char: str) -> str:
    return f"<U+{ord(char):04X}>"
