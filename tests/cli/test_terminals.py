"""Terminals of every kind: without colours, without any sequence, of unknown width."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model

from bbcu_cli.batch.settings import Row
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli import fleet
from bbcu_cli.cli.options import TalkOptions

X2 = ("--weights", "m-x2.safetensors", "--scale", "2")

WITHOUT_WIDTH = """
import os, sys
kind = {"OSError": OSError, "ValueError": ValueError}.get(sys.argv.pop(1))

def get_terminal_size(*_):
    raise kind("no terminal")

if kind:
    os.get_terminal_size = get_terminal_size
else:
    del os.get_terminal_size
from bbcu_cli.__main__ import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with two pictures in `in`."""
    monkeypatch.chdir(tmp_path)
    Path("m-x2.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    Path("in").mkdir()
    for name in "ab":
        Pillow.fromarray(np.random.default_rng(1).integers(0, 255, (9, 14, 3), dtype=np.uint8)).save(f"in/{name}.png")
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("variables", "sequences"),
    [({"NO_COLOR": "1", "TERM": "xterm-256color"}, rb"\x1b\[[0-9;]*m"), ({"TERM": "dumb"}, b"\x1b")],
)
def test_a_terminal_gets_what_it_takes(variables: dict[str, str], sequences: bytes, folder: Path) -> None:
    """No colours under NO_COLOR, and nothing but text where a terminal is no more than that."""
    import pty  # not there on Windows

    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    command = [sys.executable, "-m", "bbcu_cli", "sr", "in", *X2, "-o", "out"]
    with subprocess.Popen(
        command, env={**environment, **variables}, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # Linux ends a closed terminal with EIO
            while part := os.read(ours, 4096):
                seen += part
    os.close(ours)
    assert process.returncode == 0, seen
    assert b"in/b.png" in seen
    assert not re.search(sequences, seen), seen
    assert len(list(folder.glob("out/*.png"))) == 2


@pytest.mark.parametrize("kind", ["OSError", "ValueError", "absent"])
@pytest.mark.parametrize("arguments", [("--help",), ("sr", "--help"), ("sr", "in", *X2, "-o", "out")])
def test_nobody_knows_the_width(arguments: tuple[str, ...], kind: str, folder: Path) -> None:  # noqa: ARG001
    """A console that cannot be asked, streams that are closed, a system without the call: 80 columns."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-c", WITHOUT_WIDTH, kind, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Documentation")]
    assert max(map(len, lines), default=0) < 80


def test_the_line_of_a_long_run_is_cleared_on_any_console(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By spaces, and never in the last column, where a console of Windows begins a new line."""
    monkeypatch.setenv("COLUMNS", "36")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with fleet._told(TalkOptions(), fleet.Tally()) as tell:
        tell(Row("a.png", "b.png", "skipped"))
    seen = capsys.readouterr().err
    assert "\x1b" not in seen
    assert max(len(part) for part in re.split(r"[\r\n]", seen)) <= 35
    assert seen.endswith(f"\r{' ' * 35}\r")
