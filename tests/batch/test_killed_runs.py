"""SIGKILL at any moment of a folder run: outputs are whole or absent, nothing else changes, the next run tidies up."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.batch.manifest import NAME
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL")

# Runs bbcu and kills it before its n-th dealing with a file of the folder, or some time after the first.
DRIVER = """
import os, signal, sys, threading, time
folder, kind, moment = sys.argv[1], sys.argv[2], float(sys.argv[3])
steps, begun = 0, 0.0
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
def step(*_):
    global steps, begun
    steps += 1
    if steps == 1:
        begun = time.monotonic()
        if kind == "seconds":
            threading.Timer(moment, kill).start()
    if kind == "steps" and steps == moment:
        kill()
def hook(event, arguments):
    if event == "fcntl.flock" or any(isinstance(a, str) and a.startswith(folder) for a in arguments):
        step()
real = os.fsync
os.fsync = lambda descriptor: (step(), real(descriptor), step())
sys.argv = ["bbcu", *sys.argv[4:]]
from bbcu_cli.cli.app import main
sys.addaudithook(hook)
try:
    main()
except SystemExit as end:
    print(steps, time.monotonic() - begun, flush=True)
    os._exit(end.code or 0)
"""

Tree = dict[str, str]


def tree(folder: Path) -> Tree:
    """Relative name -> digest of every file, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class Place:
    """A folder of pictures, what a run makes of it, and files of somebody else among the outputs."""

    root: Path
    inputs: Tree
    foreign: Tree
    expected: Tree
    steps: int
    seconds: float

    @property
    def out(self) -> Path:
        """Where the results go."""
        return self.root / "out"

    def difference(self, name: str) -> str:
        """What is wrong with an output, for whoever reads that a test failed."""
        file, good = self.out / name, self.root / "good" / name
        if not good.exists():
            return "no such output is expected"
        try:
            now, then = (np.asarray(Pillow.open(path), np.int32) for path in (file, good))
        except OSError as error:
            return f"{file.stat().st_size} bytes, expected {good.stat().st_size}: {error}"
        if now.shape != then.shape:
            return f"{now.shape}, expected {then.shape}"
        wrong = np.argwhere(now != then)
        if not len(wrong):
            return "the same pixels in other bytes"
        return f"{len(wrong)} samples differ by up to {abs(now - then).max()}, from {wrong.min(0)} to {wrong.max(0)}"

    def command(self, existing: str) -> list[str]:
        """The run, with --skip-existing or --overwrite."""
        root = self.root
        options = ["--weights", str(root / "w.safetensors"), "--threads", "1", "--compare", existing, "--quiet"]
        return ["sr", str(root / "in"), "-r", "-o", str(root / "out"), "--scale", "2", *options]

    def run(self, existing: str, kind: str = "never", moment: float = 0) -> tuple[int, str]:
        """Run in a process of its own; returns its exit code and stdout."""
        command = [sys.executable, "-c", DRIVER, str(self.root), kind, str(moment), *self.command(existing)]
        # Not where the sources are: Python looks there first, and they may lack the compiled module.
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=self.root)
        return done.returncode, done.stdout

    def reset(self, *, complete: bool) -> None:
        """Bring the outputs back to nothing, or to what a whole run made; somebody else's files stay."""
        for path in [path for path in self.out.rglob("*") if path.is_file()]:
            name = str(path.relative_to(self.out))
            if name not in self.foreign and not complete:
                path.unlink()
        if complete:
            assert CliRunner().invoke(app, self.command("--skip-existing")).exit_code == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Five pictures, one in a sub-folder, restored once without trouble."""
    root = tmp_path_factory.mktemp("killed")
    rng = np.random.default_rng(8)
    (root / "in" / "sub").mkdir(parents=True)
    (root / "out" / "sub").mkdir(parents=True)
    (root / "w.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    for name in ("a.png", "b.png", "c.jpg", "d.tif", "sub/e.png"):
        Pillow.fromarray(rng.integers(0, 255, (70, 110, 3), dtype=np.uint8)).save(root / "in" / name)
    for name in ("notes.txt", "other.png", ".hidden", "half.part", "sub/.bbcu.part"):
        (root / "out" / name).write_bytes(name.encode())
    inputs, foreign = tree(root / "in"), tree(root / "out")
    untold = Place(root, inputs, foreign, {}, 0, 0)
    code, out = untold.run("--skip-existing")
    assert code == 0
    steps, seconds = out.split()
    shutil.copytree(root / "out", root / "good")
    expected = {name: digest for name, digest in tree(root / "out").items() if Path(name).name != NAME}
    assert len(expected) == len(foreign) + 2 * len(inputs)
    return Place(root, inputs, foreign, expected, int(steps), float(seconds))


def check(place: Place, existing: str, kind: str, moment: float) -> bool:
    """Kill one run, look at what is there, let the next run finish; returns whether the kill came in time."""
    place.reset(complete=existing == "--overwrite")
    code, _ = place.run(existing, kind, moment)
    assert code in (0, -signal.SIGKILL)
    where = f"{existing}, killed at {moment} {kind}"
    assert tree(place.root / "in") == place.inputs, where
    for name, digest in tree(place.out).items():
        if not Path(name).name.startswith(".bbcu-"):
            assert place.expected.get(name, "litter") == digest, (where, name, place.difference(name))
    assert tree(place.out).items() >= place.foreign.items(), where
    assert existing != "--overwrite" or tree(place.out).keys() >= place.expected.keys(), where

    following = CliRunner().invoke(app, place.command("--skip-existing"))
    assert following.exit_code == 0, (where, following.stderr)
    left = {name: digest for name, digest in tree(place.out).items() if Path(name).name != NAME}
    changed = [name for name, digest in left.items() if place.expected.get(name) != digest]
    assert left == place.expected, (where, [(name, place.difference(name)) for name in changed])
    assert tree(place.root / "in") == place.inputs, where
    return code != 0


def kill_often(place: Place, times: int) -> int:
    """Spread kills over both modes, half of them by dealings with files and half by time; returns how many struck."""
    struck = 0
    for number in range(times):
        existing = ("--skip-existing", "--overwrite")[number % 2]
        share = (number // 4 + 0.5) / ((times + 3) // 4)
        by_steps = number // 2 % 2 == 0
        moment = 1 + int(share * place.steps) if by_steps else share * place.seconds
        struck += check(place, existing, "steps" if by_steps else "seconds", moment)
    return struck


def test_a_killed_run_loses_nothing(place: Place) -> None:
    """Eight moments; `pytest -m long` takes 200."""
    assert kill_often(place, 8) >= 5


@pytest.mark.long
def test_two_hundred_killed_runs_lose_nothing(place: Place) -> None:
    """Every output whole or absent, inputs and other files untouched, no litter after the next run."""
    struck = kill_often(place, 200)
    print(f"{struck} of 200 runs were killed on their way ({place.steps} dealings with files, {place.seconds:.2f} s)")
    assert struck >= 150
