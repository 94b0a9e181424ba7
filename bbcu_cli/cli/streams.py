"""The three standard streams: there, able to take any text, and quiet when nobody reads on."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

BROKEN_PIPE: Final = 141
"""The exit code when whoever read the output is gone: what a shell shows for a program that SIGPIPE ended."""


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
