"""Finds the line numbers of a TOML file's keys, which `tomllib` does not report."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

KeyPath = tuple[str | int, ...]
"""The path to a value: keys of tables, and indices of arrays (from 0)."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_STRING = re.compile(
    # If a multi-line string ends in five quotes, the first two belong to it.
    r'"""(?:\\[\s\S]|[^\\])*?"""(?:"{0,2})'
    r"|'''[\s\S]*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
)
_PLAIN_VALUE = re.compile(r"[^,\]}#\r\n]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Returns the line number, from 1, of every table, key and array element of a TOML document.

    The line of a table or an array of tables is that of its header or, without one, of its first mention.

    Args:
        text: a document that `tomllib` can read.

    Returns:
        The line of every path in the document; empty if this scanner reads the document differently from
        `tomllib`, because a wrong line would be worse than none.
    """
    scanner = _Scanner(text)
    try:
        scanner.scan()
    except (_LostError, RecursionError):
        return {}
    return scanner.lines if set(scanner.lines) == {path for path, _ in paths_of(tomllib.loads(text))} else {}


def nearest_line(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Returns the line of `path`, or of its innermost parent that has one."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


class _LostError(Exception):
    """The scanner encountered something that it does not understand."""


class _Scanner:
    """Scans a document once and collects `lines`."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line_starts = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
        self._lengths: dict[KeyPath, int] = {}  # of arrays of tables

    def scan(self) -> None:
        """Reads headers and pairs to the end of the document."""
        table: KeyPath = ()
        while self._skip_blank() < len(self._text):
            table = self._header() if self._next_is("[") else self._pair(table)

    def _header(self) -> KeyPath:
        """Reads `[a.b]` or `[[a.b]]`; returns the path of the table that it opens."""
        line = self._line()
        is_array = self._next_is("[[")
        self._take("[[" if is_array else "[")
        *parents, last = self._key()
        self._take("]]" if is_array else "]")
        path: KeyPath = ()
        for part in parents:
            path = (*path, part)
            self.lines.setdefault(path, line)
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        path = (*path, last)
        if not is_array:
            self.lines[path] = line
            return path
        self.lines.setdefault(path, line)
        place = self._lengths.get(path, 0)
        self._lengths[path] = place + 1
        self.lines[(*path, place)] = line
        return (*path, place)

    def _pair(self, table: KeyPath) -> KeyPath:
        """Reads `key = value`; returns the path of the table that contains it."""
        line = self._line()
        path = table
        for part in self._key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self._take("=")
        self._match(_SPACE)
        self._value(path)
        return table

    def _value(self, path: KeyPath) -> None:
        if self._next_is("["):
            self._take("[")
            place = 0
            while self._skip_blank() < len(self._text) and not self._next_is("]"):
                self.lines[(*path, place)] = self._line()
                self._value((*path, place))
                place += 1
                self._skip_comma()
            self._take("]")
        elif self._next_is("{"):
            self._take("{")
            while self._skip_blank() < len(self._text) and not self._next_is("}"):
                self._pair(path)
                self._skip_comma()
            self._take("}")
        elif self._next_is('"') or self._next_is("'"):
            self._match(_STRING)
        else:
            self._match(_PLAIN_VALUE)

    def _key(self) -> list[str]:
        """Reads a key, dotted or not, and the space around it; returns its parts."""
        self._match(_SPACE)
        parts = [self._key_part()]
        while _DOT.match(self._text, self._at):
            self._match(_DOT)
            parts.append(self._key_part())
        self._match(_SPACE)
        return parts

    def _key_part(self) -> str:
        if self._next_is('"') or self._next_is("'"):
            return str(tomllib.loads(f"key = {self._match(_STRING)}")["key"])
        return self._match(_BARE_KEY)

    def _skip_blank(self) -> int:
        self._match(_BLANK)
        return self._at

    def _skip_comma(self) -> None:
        self._skip_blank()
        if self._next_is(","):
            self._take(",")

    def _next_is(self, token: str) -> bool:
        return self._text.startswith(token, self._at)

    def _take(self, token: str) -> None:
        if not self._next_is(token):
            raise _LostError
        self._at += len(token)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _LostError
        self._at = found.end()
        return found.group()

    def _line(self) -> int:
        return bisect_right(self._line_starts, self._at)


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yields every path in a document with its value."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield (*path, key), inner
        yield from paths_of(inner, (*path, key))


__all__ = ["KeyPath", "key_lines", "nearest_line", "paths_of"]
