"""Hostile input by the thousand: see `fuzz.py`. What was found once is a test of its own where it was mended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_surfaces import SURFACES
from typer.testing import CliRunner

from bbcu_cli.cli.app import app
from bbcu_cli.engines.cpu import kernel_sets

FUZZ = Path(__file__).parent / "fuzz.py"
QUICK = {"pictures": 400, "weights": 1000, "checkpoints": 600, "bindings": 500, "options": 150}
LONG = {"pictures": 40_000, "weights": 30_000, "checkpoints": 15_000, "bindings": 15_000, "options": 3_000}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does it"),
    pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here"),
]


def attack(surface: str, first: int, count: int) -> None:
    """Try that many seeds in a process of its own."""
    # The script imports what lies beside it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(FUZZ), surface, str(first), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    print(outcome)
    assert outcome["executions"] == count
    assert 0 < outcome["refused"] < count or surface in ("options", "records")  # both sides of every check were seen
    assert outcome["grown"] < 200, outcome


@pytest.mark.parametrize("surface", SURFACES)
def test_hostile_input_is_refused_in_a_sentence(surface: str) -> None:
    """No crash, hang, growth or undocumented exception in some thousands of executions."""
    attack(surface, 0, QUICK.get(surface, 1000))


@pytest.mark.parametrize(
    "line",
    [
        ["sr", "a" * 300],
        ["sr", "a/" * 3000],
        ["deblock", "--dry-run", str(FUZZ.parent / "data"), "--suffix", "a/" * 3000],
    ],
)
def test_a_name_that_no_system_takes_is_one_sentence(line: list[str]) -> None:
    """As input or in an output; found by the fuzzer."""
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 2, done.stderr
    assert "too long" in done.stderr


def test_a_name_that_is_no_unicode_is_one_sentence() -> None:
    """File systems allow it, model cards do not; found by the fuzzer."""
    done = CliRunner().invoke(app, ["models", "push", "--to", "\udcff.png", "denoise"])
    assert done.exit_code == 2, done.stderr
    assert "is not allowed" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        ["sr", "--scale", "2", str(FUZZ.parent / "data" / "chelsea.png"), "-o", "never.png"],
        ["train", "--data", str(FUZZ.parent / "data"), "--out", "never", "--device", "cpu"],
        ["bench", "denoise", "--size", "8x8", "--runs", "1"],
    ],
    ids=lambda line: line[0],
)
def test_threads_that_no_machine_has_are_one_sentence(line: list[str]) -> None:
    """The compiled module takes 64 bits, Python any number; found by the fuzzer."""
    done = CliRunner().invoke(app, [*line, "--threads", "9" * 30])
    assert done.exit_code == 2, done.stderr
    assert f"--threads is {'9' * 30}, expected 1 to 1024" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("surface", SURFACES)
def test_a_hundred_thousand_hostile_inputs_are_refused(surface: str) -> None:
    """The same with other seeds, 118,000 executions in all."""
    attack(surface, 1_000_000, LONG.get(surface, 5_000))
