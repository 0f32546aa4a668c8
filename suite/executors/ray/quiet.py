"""Keeps what Ray prints off the user's terminal and out of what programs read.

Ray's core writes to the process's file descriptors, and its threads to Python's streams, whatever its logging
is set to. Its own log files have all of it.
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
    """While the body runs, only what is printed by threads that are not Ray's is seen."""
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
            own.goes_to(stream)  # somebody may have kept it
        for descriptor, copy in enumerate(copies, 1):
            os.dup2(copy, descriptor)
            os.close(copy)


class _NotOfRay(io.TextIOBase):
    """A stream that drops what Ray's threads write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def goes_to(self, stream: TextIO) -> None:
        """Writes there from now on."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes it, unless a thread of Ray does."""
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Likewise."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes the stream behind it."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether that is a terminal."""
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Of that stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of that stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What that stream does about characters it cannot write."""
        return self._stream.errors


def _own(stream: TextIO, descriptor: int, copy: int) -> TextIO:
    """A stream to where `stream` goes, whatever becomes of its descriptor."""
    try:
        is_descriptor = stream.fileno() == descriptor
    except (OSError, ValueError):  # it goes to no file
        is_descriptor = False
    if not is_descriptor:
        return stream
    return os.fdopen(copy, "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False)


def _move_logging(old: object, new: Any) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)


__all__ = ["quiet_ray"]
