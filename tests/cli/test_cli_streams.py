"""The command line as other programs call it: pipes that break, streams that are closed, encodings that lack a name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model

from bbcu_cli.batch.manifest import NAME
from bbcu_cli.checkpoint.packed import to_bytes

BBCU = [sys.executable, "-m", "bbcu_cli"]
X2 = ("--weights", "m-x2.safetensors", "--scale", "2")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="closes descriptors and breaks pipes as POSIX shells do")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with eight pictures in `in`."""
    monkeypatch.chdir(tmp_path)
    Path("m-x2.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    Path("in").mkdir()
    rng = np.random.default_rng(1)
    for name in "abcdefgh":
        Pillow.fromarray(rng.integers(0, 255, (9, 14, 3), dtype=np.uint8)).save(f"in/{name}.png")
    return tmp_path


def run(*arguments: str, closed: tuple[int, ...] = (), **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run bbcu with some of the descriptors 0, 1 and 2 closed, as `2>&-` does."""
    shell = ["sh", "-c", 'exec "$@"' + "".join(f" {fd}>&-" for fd in closed), "sh", *BBCU, *arguments]
    return subprocess.run(shell, capture_output=True, check=False, **options)  # type: ignore[call-overload]


def broken(stream: str, *arguments: str, after: int = 0) -> tuple[int, bytes]:
    """Run bbcu, read so many lines of a stream and close it: the exit code, and what the other stream said."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*BBCU, *arguments], **streams) as process:  # type: ignore[call-overload]
        ours, other = getattr(process, stream), process.stderr if stream == "stdout" else process.stdout
        for _ in range(after):
            ours.readline()
        ours.close()
        rest = other.read()
        return process.wait(), rest


@pytest.mark.parametrize(
    ("stream", "arguments", "after"),
    [
        ("stdout", ("sr", "in", *X2, "-o", "out", "--json"), 1),
        ("stderr", ("sr", "in", *X2, "-o", "out"), 1),
        ("stdout", ("sr", "in", *X2, "--dry-run"), 0),
        ("stdout", ("sr", "in/a.png", *X2, "-o", "-"), 0),
        ("stdout", ("doctor", "--json"), 0),
        ("stdout", ("eval", "--gt", "in", "--pred", "in"), 0),
        ("stdout", ("--help",), 0),
        ("stdout", ("sr", "--help"), 0),
        ("stderr", ("sr", "missing.png"), 0),
    ],
)
def test_a_broken_pipe_ends_with_the_code_of_the_signal(
    stream: str, arguments: tuple[str, ...], after: int, folder: Path
) -> None:
    """141 as for any program in a shell, no traceback, no litter, and what is there is whole."""
    code, rest = broken(stream, *arguments, after=after)
    assert code == 141, rest
    assert b"Traceback" not in rest
    assert b"Exception ignored" not in rest
    for path in folder.glob("out/*"):
        if path.name != NAME:
            with Pillow.open(path) as picture:
                picture.load()


AS_ON_WINDOWS = """
import errno, io, os, sys
import bbcu_cli.cli.streams as streams
import bbcu_cli.files as files
from bbcu_cli.__main__ import main

class Raw(io.FileIO):
    def write(self, data):
        try:
            return super().write(data)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, "Invalid argument") from None

streams._WINDOWS = files._WINDOWS = True
files.fcntl = None
for name in ("fchmod", "O_DIRECTORY", "sched_getaffinity", "process_cpu_count"):
    if hasattr(os, name):
        delattr(os, name)
sys.stdout = io.TextIOWrapper(io.BufferedWriter(Raw(1, "w")), encoding="cp1252")
main()
"""


@pytest.mark.parametrize("arguments", [("sr", "in", *X2, "-o", "out", "--json"), ("sr", "in/a.png", *X2, "-o", "-")])
def test_a_pipe_that_breaks_as_on_windows_is_one(
    arguments: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, writing to a pipe that nobody reads is an "Invalid argument"."""
    assert folder.is_dir()
    monkeypatch.setattr("test_cli_streams.BBCU", [sys.executable, "-c", AS_ON_WINDOWS])
    code, rest = broken("stdout", *arguments)
    assert code == 141, rest
    assert b"Traceback" not in rest
    assert b"Invalid argument" not in rest


def test_a_run_as_on_windows_makes_the_same_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No locks, no modes, a narrow stdout: the bytes are the same, figures and names are all there."""
    (folder / "in/a.png").rename(folder / "in/日本.png")
    assert run("sr", "in", *X2, "-o", "here").returncode == 0
    monkeypatch.setattr("test_cli_streams.BBCU", [sys.executable, "-c", AS_ON_WINDOWS])
    done = run("sr", "in", *X2, "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_bytes() for path in folder.glob("out/*.png")}
    assert made == {path.name: path.read_bytes() for path in folder.glob("here/*.png")}
    assert len(made) == 8
    again = run("sr", "in", *X2, "-o", "out", "--skip-existing", "--json")
    assert [json.loads(line)["status"] for line in again.stdout.splitlines()] == ["skipped"] * 8
    scored = run("eval", "--gt", "in", "--pred", "in")
    assert scored.returncode == 0, scored.stderr
    assert rb"\u65e5\u672c" in scored.stdout
    for arguments in (("models", "list"), ("doctor",)):
        assert run(*arguments).returncode == 0
    refused = run("sr", "in/b.png", *X2, "-o", "out/nul.png")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert refused.stderr.endswith(
        b"on Windows, no file can be called 'nul.png', which is a device.\n".replace(b"\n", os.linesep.encode())
    )


@pytest.mark.parametrize("arguments", [("sr", "in", *X2, "-o", "out"), ("sr", "missing.png"), ("--help",)])
def test_a_program_without_streams_works(arguments: tuple[str, ...], folder: Path) -> None:
    """Under pythonw, and in services of Windows, Python has None for stdout and stderr."""
    code = "import sys\nfrom bbcu_cli.__main__ import main\nsys.stdin = sys.stdout = sys.stderr = None\nmain()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2 if "missing.png" in arguments else 0, b"", b"")
    assert len(list(folder.glob("out/*.png"))) == (8 if "out" in arguments else 0)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_a_run_without_streams_does_its_work(closed: tuple[int, ...], folder: Path) -> None:
    """Nobody hears of it, and nothing else is different: no file of ours gets the number of a closed stream."""
    done = run("sr", "in", *X2, "-o", "out", "--json", closed=closed)
    assert done.returncode == 0, done.stderr
    assert run("sr", "in", *X2, "-o", "heard").returncode == 0
    for name in "abcdefgh":
        assert (folder / f"out/{name}.png").read_bytes() == (folder / f"heard/{name}.png").read_bytes()


def test_an_error_keeps_its_exit_code_without_stderr(folder: Path) -> None:  # noqa: ARG001
    """The sentence is lost, the code is not, and stdout stays clean."""
    done = run("sr", "missing.png", closed=(2,))
    assert (done.returncode, done.stdout) == (2, b"")


def test_an_image_for_a_closed_stdout_is_an_error(folder: Path) -> None:  # noqa: ARG001
    """Nothing could come of it."""
    done = run("sr", "in/a.png", *X2, "-o", "-", closed=(1,))
    assert done.returncode == 2
    assert b"stdout, which is closed" in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_names_that_an_encoding_lacks_cost_nothing(encoding: str, folder: Path) -> None:
    """As in a pipe on Windows: figures and notes are all there, the name in escapes."""
    name = "日本 größe"
    (folder / "in/a.png").rename(folder / f"in/{name}.png")
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    shown = name.encode(encoding, "backslashreplace")
    for arguments in (
        ("sr", f"in/{name}.png", *X2, "--dry-run"),
        ("eval", "--gt", f"in/{name}.png", "--pred", f"in/{name}.png", "--csv", "a.csv", "--report", "a.html"),
    ):
        done = run(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
    assert name in (folder / "a.csv").read_text(encoding="utf-8")
    done = run("sr", f"in/{name}.png", *X2, "--json", env=environment)
    assert json.loads(done.stdout)["source"] == f"in/{name}.png"


def test_names_that_are_no_text_can_be_scored(folder: Path) -> None:
    """A name of other bytes than UTF-8 is written in escapes, on the table and in the files of a report."""
    source = folder / os.fsdecode(b"in/caf\xe9.png")
    try:
        (folder / "in/a.png").rename(source)
    except OSError as error:
        pytest.skip(f"this file system has no such names ({error})")
    reports = ("--csv", "a.csv", "--markdown", "a.md", "--report", "a.html")
    done = run("eval", "--gt", str(source), "--pred", str(source), *reports)
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9" in (folder / "a.csv").read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("sr", "--help"), ("doctor",), ("models", "list")])
def test_a_full_disk_under_stdout_is_one_sentence(arguments: tuple[str, ...], folder: Path) -> None:  # noqa: ARG001
    """No traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*BBCU, *arguments], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr == b"bbcu: error: No space left on device.\n"


@pytest.mark.parametrize("arguments", [("sr", "-", *X2, "-o", "out.png"), ("sr", "in/a.png", *X2)])
def test_a_run_that_waits_for_a_terminal_says_so(arguments: tuple[str, ...], folder: Path) -> None:  # noqa: ARG001
    """`bbcu sr -` with nothing piped into it; a run over files says nothing of the kind."""
    import pty  # not there on Windows

    ours, theirs = pty.openpty()
    with subprocess.Popen([*BBCU, *arguments], stdin=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        assert process.stderr is not None
        first = process.stderr.readline()
        os.write(ours, b"\x04")  # Ctrl-D: the input is empty
        process.wait()
    os.close(ours)
    assert ("waiting for an image on standard input" in first) == ("-" in arguments)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_doctor_tells_the_threads_in_force(threads: str, folder: Path) -> None:  # noqa: ARG001
    """Those of BBCU_THREADS, which come before OMP_NUM_THREADS."""
    environment = os.environ | {"BBCU_THREADS": threads, "OMP_NUM_THREADS": "2"}
    assert f"threads: {threads}".encode() in run("doctor", env=environment).stdout
    assert json.loads(run("doctor", "--json", env=environment).stdout)["threads"] == int(threads)
