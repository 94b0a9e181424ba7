"""The three standard streams: there, able to take any text, and quiet when nobody reads on."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BROKEN_PIPE: Final = 141
"""The exit code when whoever read the output is gone: what a shell shows for a program that SIGPIPE ended."""

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C: what a shell shows for a program that SIGINT ended."""

LEFT: Final = "interrupted; finished files are complete, and nothing else was left behind."
"""What is said then."""

_WINDOWS: Final = os.name == "nt"


def prepare_streams() -> None:
    """Give closed streams somewhere to go, and write in escapes what an encoding lacks.

    A descriptor that is closed (`2>&-`) would be taken by the next file that is opened, and what a library prints
    would go into that file. On Windows a pipe takes the characters of one code page, and names have others.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - takes the lowest that is free
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            if _WINDOWS and not stream.isatty():
                stream = _breaking_as_elsewhere(stream)
                setattr(sys, name, stream)
            stream.reconfigure(errors="backslashreplace")


class _Pipe(io.RawIOBase):
    """A pipe of Windows, where writing to one that nobody reads is an "Invalid argument"."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def write(self, data: ReadableBuffer, /) -> int | None:
        """Write some of the data, as `io.RawIOBase` has it.

        Raises:
            BrokenPipeError: nobody reads on.
        """
        try:
            return self._raw.write(data)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            raise

    def writable(self) -> bool:
        """It is written to."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._raw.fileno()


def _breaking_as_elsewhere(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, raising a BrokenPipeError when nobody reads on."""
    encoding, lines, through = stream.encoding, stream.line_buffering, stream.write_through
    buffer: Any = stream.detach()  # under PYTHONUNBUFFERED the file itself
    pipe: Any = io.BufferedWriter(_Pipe(buffer.detach())) if isinstance(buffer, io.BufferedWriter) else _Pipe(buffer)
    return io.TextIOWrapper(pipe, encoding, line_buffering=lines, write_through=through)


def _nowhere(mode: str) -> io.TextIOWrapper:
    stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115 - lives as long as the process
    assert isinstance(stream, io.TextIOWrapper)  # noqa: S101 - what text mode gives
    return stream


def stdout_is_closed() -> bool:
    """Whether there was no stdout when the program started."""
    return getattr(sys.stdout, "name", None) == os.devnull


def silence_streams() -> None:
    """Send what is left in the buffers nowhere, or the interpreter complains about it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
