"""Command lines that nobody should type, for every command of the real parser."""

from __future__ import annotations

import enum
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app
from bbcu_cli.hub import Catalogue, Entry

NUMBERS = ["0", "-1", "1", "2", "3", "4", "16", "100", "9" * 30, "1e400", "nan", "-inf", "0x10", "\uff11", "1_0", "2.5"]
NAMES = [
    "a.png", "b.jpg", "in", "in/c.png", "*.png", "[", "**", "no.png", "text.png", "empty.png", ".", "-", "new/x.png",
    "x.safetensors", "bad.safetensors", "bad.pth", "denoise.safetensors", "denoise", "sr-m-x2", "\udcff.png", "ü猫",
    "out.avif", "out.xyz", "in/../../x.png", "a" * 300, "a/" * 3000, "a.png/b", "link.png",
]  # fmt: skip
WORDS = [
    "", " ", "--", "\x1b[2J\x1b]0;x\x07", "\n", "%s", "{0}", "hf://", "hf://me/m", "hf://../m", "me/m", "me/{name}",
    "cuda", "cuda:9", "cpu", "png", "jpg", "tif", "xyz", "#fff", "#ffffff", "zzzzzz", "2GB", "1KB", "infGB", "-1MB",
    "full", "auto", "4:2:0", "keep", "strip", "restore", "l", "m", "sr", "deblock", "8x8", "0x0", "x", "Set5=31", "=",
    "Set5=nan", "Set5=Set5=1", "mit", "none", "[red]", "[/]", "3,4", "0,0", "a" * 5000,
]  # fmt: skip
# What makes a command compute for long is an order, not an attack; these give it one step's work at the end.
MODEST = {"bench": ["--size", "8x8", "--runs", "1"], "train": ["--steps", "1", "--batch", "1", "--device", "cpu"]}
FITTING = {"sr": ["--weights", "x.safetensors", "--scale", "2"], "denoise": ["--weights", "denoise.safetensors"]}
RARE = {"bench": 0.02, "train": 0.1, "doctor": 0.02}
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)")  # rich's own colours are harmless


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that name it."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    else:
        yield path, command


def furnish(folder: Path) -> None:
    """Pictures good and bad, weights good and bad, a catalogue of two models."""
    (folder / "in").mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg", "in/c.png"):
        Pillow.fromarray(pixels).save(folder / name)
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "link.png").symlink_to("link.png")
    whole = to_bytes(small_model(SMALL_SPECS["denoise"]))
    for name in ("x", "m-x2"):
        (folder / f"{name}.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    (folder / "denoise.safetensors").write_bytes(whole)
    (folder / "bad.safetensors").write_bytes(whole[:5000])
    (folder / "bad.pth").write_bytes(b"PK\x03\x04")
    entries = [Entry("denoise", SMALL_SPECS["denoise"], "blind"), Entry("sr-m-x2", SMALL_SPECS["m-x2"], "twice")]
    Catalogue({entry.name: entry for entry in entries}).save(folder)


def arguments(path: tuple[str, ...], command: Any, rng: random.Random) -> list[str]:
    """One command line: options and arguments of the right kind, or odd, or out of place."""

    def odd() -> str:
        return rng.choice(rng.choice([NUMBERS, NAMES, WORDS]))

    def value(parameter: Any) -> str:
        kind = parameter.type_descriptor.annotation
        if isinstance(kind, type) and issubclass(kind, enum.Enum) and rng.random() < 0.8:
            return str(rng.choice(list(kind)).value)
        if rng.random() < 0.4:
            return odd()
        return rng.choice(NUMBERS if kind in (int, float) else [*NAMES, "x.safetensors", "in"])

    options = [p for p in command.params if p.param_type_name == "option" and p.name not in ("help", "debug")]
    chosen = rng.sample(options, min(len(options), rng.choice([0, 1, 1, 2, 3, 6])))
    line: list[str] = []
    for option in {o.name: o for o in chosen + [o for o in options if o.required and rng.random() < 0.9]}.values():
        name = rng.choice([*option.opts, *option.secondary_opts])
        line += [name] if option.is_flag else [name, value(option)]
    for parameter in command.params:
        if parameter.param_type_name == "argument" and rng.random() < 0.95:
            line += [rng.choice(["a.png", "in", rng.choice(NAMES)]) for _ in range(rng.choice([1, 1, 2]))]
    if rng.random() < 0.7:
        line += FITTING.get(path[0], [])
    if rng.random() < 0.1:
        line.insert(rng.randrange(len(line) + 1), odd())
    return [*path, *line, *MODEST.get(path[0], [])]


def command_lines() -> Callable[[random.Random], None]:
    """An attack that types one command line in a fresh folder."""
    for name in [name for name in os.environ if name.startswith(("BBCU_", "HF_"))]:
        del os.environ[name]
    home = Path.cwd()
    places = {"HOME": "home", "HF_HOME": "hf", "BBCU_WEIGHTS_DIR": "pristine"}
    os.environ |= {name: str(home / place) for name, place in places.items()} | {
        "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1",
        "_TYPER_FORCE_DISABLE_TERMINAL": "1",
    }  # fmt: skip
    furnish(home / "pristine")
    # What training loads of torch stays, some 200 MB: it is loaded before growth is measured.
    CliRunner().invoke(app, ["train", "--data", "none", "--out", "none", *MODEST["train"]])
    commands = list(leaves(typer.main.get_command(app)))
    work = home / "a" / "b" / "work"  # what climbs out stays in the folder

    def attack(rng: random.Random) -> None:
        path, command = rng.choice(commands)
        if rng.random() > RARE.get(path[0], 1):
            path, command = rng.choice([leaf for leaf in commands if leaf[0][0] not in RARE])
        os.chdir(home)
        shutil.rmtree(home / "a", ignore_errors=True)
        shutil.copytree(home / "pristine", work, symlinks=True)
        os.chdir(work)
        line = arguments(path, command, rng)
        result = CliRunner().invoke(app, line)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(line) from result.exception
        assert result.exit_code in (0, 1, 2, 3), line
        assert "Traceback" not in result.output, line
        assert not UNSAFE.search(result.output), (line, result.output)
        assert result.exit_code == 0 or result.output.strip(), line
        assert not list((home / "a").rglob("*.part")), line

    return attack
