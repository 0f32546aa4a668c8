"""Suppresses what Ray prints, on the terminal and in output that other programs read.

Whatever its logging settings, Ray's core writes to the process's file descriptors, and its threads write to
Python's streams. Ray's own log files contain all of it.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def quiet_ray() -> Iterator[None]:
    """Suppresses the output of Ray's core and threads while the body runs; other threads print as usual."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = sys.stdout, sys.stderr
    copies = [os.dup(descriptor) for descriptor in (1, 2)]
    streams = [_own(stream, n, copy) for n, (stream, copy) in enumerate(zip(before, copies, strict=True), 1)]
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)
    ours = [_NotOfRay(stream) for stream in streams]
    sys.stdout, sys.stderr = ours
    _move_logging(before[1], ours[1])
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        _move_logging(ours[1], before[1])
        sys.stdout, sys.stderr = before
        for stream, own in zip(before, ours, strict=True):
            own.goes_to(stream)  # something may have stored a reference to it
        for descriptor, copy in enumerate(copies, 1):
            os.dup2(copy, descriptor)
            os.close(copy)


class _NotOfRay(io.TextIOBase):
    """A stream that drops what Ray's threads write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def goes_to(self, stream: TextIO) -> None:
        """Writes to `stream` from now on."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text`, unless called by a thread of Ray."""
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Writes each line as `write` does."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes the underlying stream."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Returns whether the underlying stream is a terminal."""
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Returns the file descriptor of the underlying stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Returns True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the underlying stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Error handler of the underlying stream for characters that it cannot encode."""
        return self._stream.errors


def _own(stream: TextIO, descriptor: int, copy: int) -> TextIO:
    """Returns a stream with the target of `stream` that keeps working if `descriptor` is redirected."""
    try:
        is_descriptor = stream.fileno() == descriptor
    except (OSError, ValueError):  # a stream without a file
        is_descriptor = False
    if not is_descriptor:
        return stream
    return os.fdopen(copy, "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False)


def _move_logging(old: object, new: Any) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)


__all__ = ["quiet_ray"]
