"""The command line, run inside the process of the tests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout, stderr without colours."""

    code: int
    out: str
    err: str


Bbcu = Callable[..., Done]


def size_of(path: str) -> tuple[int, int]:
    """(width, height) of a picture that can be read whole."""
    with Pillow.open(path) as picture:
        picture.load()
        return picture.size


@pytest.fixture
def bbcu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bbcu:
    """Run a command in an empty folder with one photo in it."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BBCU_")]:
        monkeypatch.delenv(name)
    for name, spec in SMALL_SPECS.items():
        Path(f"{name}.safetensors").write_bytes(to_bytes(small_model(spec)))
    pixels = np.random.default_rng(1).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save("photo.png")
    Pillow.fromarray(pixels).save("photo.jpg", quality=20)

    def run(*arguments: object, stdin: bytes | None = None) -> Done:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, re.sub(r"\x1b\[[0-9;]*m", "", result.stderr))

    return run
