"""Ctrl-C at any time: exit code 130, one sentence, no traceback, no litter; Ctrl-Break of Windows is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np
import pytest
from loopback_hub import LoopbackHub
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model

from bbcu_cli.batch import queue
from bbcu_cli.batch.manifest import NAME
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.streams import LEFT
from bbcu_cli.engines.base import Session

SENTENCE = f"bbcu: {LEFT}{os.linesep}".encode()
X2 = ("--weights", "m-x2.safetensors", "--scale", "2")

by_signals = pytest.mark.skipif(os.name == "nt", reason="no signal can be sent to another process there")

AT_AN_IMPORT = """
import sys
from bbcu_cli.__main__ import main

class Interrupted:
    at = sys.argv.pop(1)

    def find_spec(self, name, path=None, target=None):
        if name == self.at:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
main()
"""
BEFORE_A_COMMAND = """
import sys
from bbcu_cli.__main__ import main
from bbcu_cli.cli.help import Group

def make_context(*arguments, **options):
    raise KeyboardInterrupt

Group.make_context = make_context
main()
"""
# There the only signal that another process can send; here one stands in that would otherwise end the program.
CTRL_BREAK = """
import signal
signal.SIGBREAK = signal.SIGUSR1
from bbcu_cli.__main__ import main
main()
"""


def started(code: str, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """The command line, as a program runs it that says no more than `code`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with pictures in `in` that take a while."""
    monkeypatch.chdir(tmp_path)
    Path("m-x2.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    Path("in").mkdir()
    rng = np.random.default_rng(1)
    Pillow.fromarray(rng.integers(0, 255, (9, 14, 3), dtype=np.uint8)).save("in/a.png")
    for name in "bcde":
        Pillow.fromarray(rng.integers(0, 255, (600, 900, 3), dtype=np.uint8)).save(f"in/{name}.png")
    return tmp_path


@pytest.mark.parametrize("module", ["bbcu_cli.cli.front", "typer", "bbcu_cli.cli.train", "bbcu_cli.hub.catalogue"])
def test_ctrl_c_while_the_program_starts(module: str) -> None:
    """Modules are imported then, for up to a second."""
    with started(AT_AN_IMPORT, module, "models", "list") as process:
        out, told = process.communicate()
    assert (process.returncode, out, told) == (130, b"", SENTENCE)


def test_ctrl_c_before_a_command_begins() -> None:
    """While options are read."""
    with started(BEFORE_A_COMMAND, "models", "list") as process:
        out, told = process.communicate()
    assert (process.returncode, out, told) == (130, b"", SENTENCE)


@by_signals
@pytest.mark.parametrize("kind", ["SIGINT", "SIGBREAK"])
def test_ctrl_c_within_a_folder(kind: str, folder: Path) -> None:
    """What has a row is there, whole; nothing is half there; the next run makes the rest."""
    number = signal.SIGUSR1 if kind == "SIGBREAK" else signal.SIGINT
    with started(CTRL_BREAK, "sr", "in", *X2, "-o", "out", "--json", "--threads", "1") as process:
        assert process.stdout is not None
        rows = [json.loads(process.stdout.readline())]
        process.send_signal(number)
        out, told = process.communicate()
    assert (process.returncode, told) == (130, SENTENCE)
    rows.extend(map(json.loads, out.splitlines()))
    made = [path for path in (folder / "out").iterdir() if path.name != NAME]
    assert {Path(row["output"]).name for row in rows} <= {path.name for path in made}
    assert all(path.suffix == ".png" for path in made)
    assert len(made) < 5
    for path in made:
        with Pillow.open(path) as picture:
            picture.load()
    with started(CTRL_BREAK, "sr", "in", *X2, "-o", "out", "--skip-existing", "--json") as process:
        out, told = process.communicate()
    assert process.returncode == 0, told
    assert [json.loads(line)["status"] for line in out.splitlines()].count("skipped") == len(made)


@by_signals
def test_ctrl_c_while_an_image_is_awaited_on_stdin(folder: Path) -> None:  # noqa: ARG001
    """Nobody has piped anything yet."""
    import pty  # not there on Windows

    ours, theirs = pty.openpty()
    with started(CTRL_BREAK, "sr", "-", *X2, "-o", "out.png", stdin=theirs) as process:
        os.close(theirs)
        assert process.stderr is not None
        assert b"waiting for an image" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    os.close(ours)
    assert (process.returncode, told) == (130, SENTENCE)


@by_signals
@pytest.mark.parametrize("where", ["look-up", "download"])
def test_ctrl_c_within_a_download(where: str, tmp_path: Path) -> None:
    """The hub does not answer, or stops in the middle of the file; the next run gets the whole model."""
    with LoopbackHub() as hub:
        hub.repo("me/m").commit({"model.safetensors": to_bytes(small_model(SMALL_SPECS["m-x2"]))})
        reached, goes_on = threading.Event(), threading.Event()

        def pause(method: str, sent: int) -> None:
            if (method == "HEAD") if where == "look-up" else sent:
                reached.set()
                goes_on.wait(20)

        hub.pause = pause
        pull = ("models", "pull", "hf://me/m:model.safetensors")
        with started(CTRL_BREAK, *pull, env=hub.environment(tmp_path)) as process:
            assert reached.wait(60)
            process.send_signal(signal.SIGINT)
            out, told = process.communicate()
        goes_on.set()
        assert (process.returncode, out, told) == (130, b"", SENTENCE)
        with started(CTRL_BREAK, *pull, env=hub.environment(tmp_path)) as process:
            out, told = process.communicate()
        assert process.returncode == 0, told


def test_a_thread_of_windows_that_waits_looks_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C does not reach it otherwise: the condition is asked for again though nobody calls `wake`."""
    monkeypatch.setattr(queue, "_PATIENCE", 0.001)
    asked = iter([False, False, False, True])
    with queue.EngineQueue(1) as engine:
        engine.serve(until=lambda: next(asked))
    assert next(asked, None) is None


def test_ctrl_c_between_two_lines_of_the_engines_thread_leaves_nobody_waiting() -> None:
    """A tile that was taken and is never answered: its thread ends with the run, as those whose tile nobody took."""

    class Taken(SimpleQueue[Any]):
        def get(self, *arguments: Any, **named: Any) -> Any:
            super().get(*arguments, **named)
            raise KeyboardInterrupt

    ended: list[type[BaseException]] = []

    def image() -> None:
        try:
            engine.run(cast("Session", None), np.zeros((1, 3, 4, 4), np.float32))
        except BaseException as error:  # noqa: BLE001 - whatever it is
            ended.append(type(error))

    engine = queue.EngineQueue(1)
    engine._calls = Taken()
    thread = threading.Thread(target=image, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt), engine:
        engine.serve(until=lambda: False)
    thread.join(10)
    assert ended == [queue.StoppedError]
