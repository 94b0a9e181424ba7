"""What the documentation shows is true: its commands run, its example runs, its names exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from small import SMALL_SPECS
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import _layout
from bbcu_cli.cli.app import app
from bbcu_cli.hub import Catalogue

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Code blocks of the README in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples speak of, small."""
    rng = np.random.default_rng(3)
    for name in ("photo.jpg", "folder/a.png", "hr/a.png", "out/a_x4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pillow.fromarray(rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture that can be read whole."""
    with Pillow.open(path) as picture:
        picture.load()
        return picture.size


def test_the_example_commands_run(home: Path) -> None:
    """Every line of "In 60 seconds", as it stands, in a shell."""
    [block] = [block for block in blocks("sh") if "bbcu sr photo.jpg" in block]
    shim = home / "bin" / "bbcu"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bbcu_cli "$@"\n')
    shim.chmod(0o755)
    environment = {**os.environ, "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}"}
    bash = shutil.which("bash") or "sh"
    done = subprocess.run(
        [bash, "-euo", "pipefail", "-c", block], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in (
        "photo_x4.png",
        "folder_denoised/a.png",
        "photo_deblocked.png",
        "photo_deblocked_compare.png",
        "large.webp",
    ):
        assert size_of(home / name)[0] > 0


def test_the_python_example_runs(home: Path) -> None:
    """The notebook example gives an image four times as large."""
    [example] = blocks("python")
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own documentation
    assert size_of(home / "large.png") == (80, 64)


def test_every_command_is_in_the_readme() -> None:
    """The table of commands lists what `bbcu --help` lists."""
    listed = set(re.findall(r"^\| `bbcu (\w+)", README, re.MULTILINE))
    registered = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert listed == registered | {group.name for group in app.registered_groups}


@pytest.mark.parametrize("command", ["sr", "denoise", "deblock", "eval", "models", "train", "bench", "doctor"])
def test_help_is_complete_and_opens_with_what_the_command_does(command: str) -> None:
    """No option without a word about it."""
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_environment_variables_of_the_readme_are_those_of_the_options() -> None:
    """Every BBCU_ variable that an option reads is documented."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bbcu_cli").rglob("*.py"))
    used = set(re.findall(r'"(BBCU_[A-Z_]+)"', sources))
    assert used <= set(re.findall(r"BBCU_[A-Z_]+", README))


def test_the_format_page_names_every_tensor() -> None:
    """The page of the packed format and the reader know the same tensors."""
    page = README[README.index("## The packed format") :]
    for spec in SMALL_SPECS.values():
        for name in _layout(spec):
            group, part = name.rsplit(".", 1)
            assert (
                f"`{group}.*`" in page
                or f"`{name}`" in page
                or f"`.{part}`" in page
                or f"`{group.split('.')[0]}.*`" in page
            ), name


def test_the_measured_figures_are_those_of_the_shipped_files() -> None:
    """The README shows what the catalogue records for exactly these weights."""
    for entry in Catalogue.load():
        for label, value in entry.measured.items():
            assert f"{label} **{value:.2f}**" in README, (entry.name, label)


def test_the_readme_has_no_loose_ends() -> None:
    """No placeholder is left, and every local link leads somewhere."""
    assert "@@" not in README
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
