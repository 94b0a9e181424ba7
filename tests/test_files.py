"""Atomic writing: whatever happens, a name stands for a whole file, old or new, and nothing is left lying about."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest

import bbcu_cli.files
from bbcu_cli.errors import BbcuError, ImageError, OutputError, UsageError
from bbcu_cli.files import (
    append_line,
    make_folder,
    name_complaint,
    parts_folder,
    remove_stale_parts,
    unlimited,
    write_atomic,
)
from bbcu_cli.hub import Catalogue, push

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX modes, links and signals")


def put(data: bytes) -> Callable[..., int]:
    """A writer of `data`."""
    return lambda file: file.write(data)


def names(folder: Path) -> list[str]:
    """Everything in the folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    """The content is there, under an awkward name too, and nothing else is."""
    path = tmp_path / ("ü 猫 " + "x" * 240)
    write_atomic(path, put(b"one"))
    assert path.read_bytes() == b"one"
    write_atomic(path, put(b"two"))
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == [path.name]


def test_an_existing_file_is_safe_without_overwrite(tmp_path: Path) -> None:
    """Also one that appears while we write: the other program's file stays."""
    path = tmp_path / "a.png"

    def write_while_another_does(_: object) -> None:
        path.write_bytes(b"other")

    with pytest.raises(UsageError, match="--overwrite"):
        write_atomic(path, write_while_another_does, overwrite=False)
    with pytest.raises(UsageError, match="--overwrite"):
        write_atomic(path, put(b"mine"), overwrite=False)
    assert path.read_bytes() == b"other"
    assert names(tmp_path) == ["a.png"]
    write_atomic(tmp_path / "b.png", put(b"mine"), overwrite=False)
    assert (tmp_path / "b.png").read_bytes() == b"mine"
    assert names(tmp_path) == ["a.png", "b.png"]


@posix
def test_modes_are_those_of_normal_files(tmp_path: Path) -> None:
    """A new file obeys the umask; a replaced one keeps its mode, so a private file stays private."""
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new", put(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o600)
    write_atomic(tmp_path / "new", put(b"again"))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


@posix
def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    """The link stays a link and its target gets the content, as with any program that opens and writes."""
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomic(link, put(b"new"))
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "real") == ["a"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), ImageError("no"), RuntimeError("bug"), MemoryError()]
)
def test_nothing_is_left_when_the_writer_fails(tmp_path: Path, error: BaseException) -> None:
    """Ctrl-C included; the error passes through unchanged and the old file stays."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        put(b"half")(file)
        raise error

    with pytest.raises(type(error)):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.open", "write"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failing_system_leaves_the_old_file_and_no_litter(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    code: int,
    exists: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Disk full, no permission, broken disk, at each step in turn: one clear sentence, nothing changed."""
    path = tmp_path / "a.png"
    if exists:
        path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    if step != "write":
        monkeypatch.setattr(step, fail)
    with pytest.raises(OutputError, match=f"a.png cannot be written: {os.strerror(code)}"):
        write_atomic(path, fail if step == "write" else put(b"new"))
    monkeypatch.undo()
    assert names(tmp_path) == (["a.png"] if exists else [])
    assert not exists or path.read_bytes() == b"old"


def test_a_file_system_without_hard_links_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT and some network shares: an existing file is safe there too."""

    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr("pathlib.Path.hardlink_to", fail)
    write_atomic(tmp_path / "a", put(b"new"), overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"new"

    def write_while_another_does(_: object) -> None:
        (tmp_path / "b").write_bytes(b"other")

    with pytest.raises(UsageError):
        write_atomic(tmp_path / "b", write_while_another_does, overwrite=False)
    assert (tmp_path / "b").read_bytes() == b"other"
    assert names(tmp_path) == ["a", "b"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message says which file and why."""
    with pytest.raises(OutputError, match=r"gone.a\.png cannot be written: No such file"):
        write_atomic(tmp_path / "gone" / "a.png", put(b""))


WRITER = """
import sys, time
from pathlib import Path
from bbcu_cli.files import write_atomic
def slow(file):
    for number in range(10_000):
        file.write(b"x" * 1000)
        if number == 3:
            print("begun", flush=True)
            time.sleep(60)
write_atomic(Path(sys.argv[1]), slow)
"""


@posix
def test_a_killed_writer_leaves_the_old_file_and_litter_that_the_next_run_removes(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing; a live writer's part is not touched by the cleaning."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    (tmp_path / "somebody's .part").write_bytes(b"")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(names(tmp_path)) == 3
        assert remove_stale_parts(tmp_path) == 0  # it lives
        process.kill()
    assert path.read_bytes() == b"old"
    assert remove_stale_parts(tmp_path) == 1
    assert names(tmp_path) == ["a.png", "somebody's .part"]


@posix
def test_parts_of_a_linked_file_lie_where_the_link_leads(tmp_path: Path) -> None:
    """Whoever cleans up after a killed writer is told that folder, not the link's own."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "a")
    seen = []
    write_atomic(link, lambda _: seen.extend(names(tmp_path / "real")))
    assert len(seen) == 1
    assert parts_folder(link) == (tmp_path / "real").resolve()


@pytest.mark.parametrize(
    "write", [lambda folder: Catalogue({}).save(folder), lambda folder: push.write({"a": b""}, folder)]
)
def test_every_room_says_what_cannot_be_written_as_one_kind_of_error(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """A file in the place of a folder: an OutputError that names it, not an error about images or usage."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write(tmp_path / "file" / "folder")


def test_writers_and_cleaners_at_once_lose_nothing(tmp_path: Path) -> None:
    """Threads write one name over and over while others clean: the name always holds one whole content."""
    path, failures = tmp_path / "a", []
    path.write_bytes(b"\0" * 5000)
    until = time.monotonic() + 0.7

    def write(mark: int) -> None:
        while time.monotonic() < until:
            try:
                write_atomic(path, put(bytes([mark]) * 5000))
            except BbcuError as error:
                failures.append(error)

    def clean() -> None:
        while time.monotonic() < until:
            remove_stale_parts(tmp_path)

    def look() -> None:
        while time.monotonic() < until:
            data = path.read_bytes()
            if len(data) != 5000 or len(set(data)) != 1:
                failures.append(ValueError(data[:10]))

    threads = [threading.Thread(target=write, args=(mark,)) for mark in range(4)]
    threads += [threading.Thread(target=work) for work in (clean, clean, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(tmp_path) == ["a"]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as this module can tell, the system is Windows."""
    monkeypatch.setattr(bbcu_cli.files, "_WINDOWS", True)
    monkeypatch.setattr(bbcu_cli.files, "fcntl", None)
    monkeypatch.setattr(bbcu_cli.files, "_PAUSES", (0.0, 0.0))
    monkeypatch.delattr(os, "fchmod", raising=False)
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nul.png", "'nul.png', which is a device"),
        (r"C:\out\CON", "'CON', which is a device"),
        (r"out\com1.tar.png", "'com1.tar.png', which is a device"),
        (r"LPT9 .png", "'LPT9 .png', which is a device"),
        (r"out\aux\a.png", "'aux', which is a device"),
        ("photo:1.png", "'photo:1.png', which has ':'"),
        (r"C:\photos\a?.png", "'a?.png', which has '?'"),
        ("tab\t.png", r"'tab\t.png', which has '\t'"),
        (r"holiday.\a.png", "'holiday.', which ends with a dot or a space"),
        (r"\\server\share\a ", "'a ', which ends with a dot or a space"),
    ],
)
def test_names_that_windows_takes_for_something_else_are_named(path: str, reason: str) -> None:
    """A picture would be swallowed by a device, hidden in a stream of another file, or called otherwise."""
    assert name_complaint(PureWindowsPath(path)) == (
        f"{path} cannot be written: on Windows, no file can be called {reason}."
    )


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(
    "path",
    [
        r"C:\photos\a.png",
        r"c:a.png",
        r"..\..\a.png",
        r"\\server\share\a.png",
        r"\\?\C:\a.png",
        "console.png",
        "com10.png",
        "日本 größe.png",
        ".bbcu-manifest.jsonl",
    ],
)
def test_names_that_windows_takes_are_left_alone(path: str) -> None:
    """Drives, shares and dots at the front are no trouble."""
    assert name_complaint(PureWindowsPath(path)) == ""


def test_elsewhere_any_name_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another system forbids is no reason here."""
    monkeypatch.setattr(bbcu_cli.files, "_WINDOWS", False)
    assert name_complaint(PureWindowsPath("nul.png")) == ""


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("write", [lambda path: write_atomic(path, put(b"")), make_folder], ids=["file", "folder"])
def test_nothing_is_written_under_such_a_name(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """An error before anything is made."""
    with pytest.raises(OutputError, match=r"which is a device\.$"):
        write(tmp_path / "nul.png")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "long"),
    [
        ("C:\\" + "a" * 300, "\\\\?\\C:\\" + "a" * 300),
        ("\\\\server\\share\\" + "a" * 300, "\\\\?\\UNC\\server\\share\\" + "a" * 300),
        ("\\\\?\\C:\\" + "a" * 300, "\\\\?\\C:\\" + "a" * 300),
        (r"C:\photos\a.png", r"C:\photos\a.png"),
    ],
    ids=["drive", "share", "long form", "short"],
)
def test_long_windows_paths_get_the_form_without_a_limit(path: str, long: str) -> None:
    """Only they: the form knows no forward slashes and looks odd."""
    assert unlimited(path) == long


def test_long_paths_are_written(tmp_path: Path) -> None:
    """More than the 260 characters that a Windows path has by default, and our names on top."""
    folder = tmp_path.joinpath(*["deep" * 20] * 4)
    make_folder(folder)
    path = folder / f"{'photo' * 30}.png"
    write_atomic(path, put(b"one"), overwrite=False)
    write_atomic(path, put(b"two"))
    append_line(folder / f"{'record' * 10}.jsonl", "{}")
    with pytest.raises(UsageError, match="--overwrite"):
        write_atomic(path, put(b"three"), overwrite=False)
    (found,) = parts_folder(path).glob("*.png")
    assert found.read_bytes() == b"two"


def test_line_breaks_of_records_are_one_byte(tmp_path: Path) -> None:
    """On every system, so that a folder of outputs means the same to all of them."""
    append_line(tmp_path / "a", "one")
    append_line(tmp_path / "a", "two")
    assert (tmp_path / "a").read_bytes() == b"\none\ntwo"


@pytest.mark.usefixtures("windows")
def test_without_locks_files_are_as_whole(tmp_path: Path) -> None:
    """Windows has no fcntl: written, replaced, kept, and what a killed run left goes once it is old."""
    path = tmp_path / "a.png"
    write_atomic(path, put(b"one"), overwrite=False)
    with pytest.raises(UsageError, match="--overwrite"):
        write_atomic(path, put(b"two"), overwrite=False)
    write_atomic(path, put(b"three"))
    assert path.read_bytes() == b"three"
    for name in ("0" * 16, "1" * 16):
        (tmp_path / f".bbcu-{name}.part").touch()
    os.utime(tmp_path / f".bbcu-{'0' * 16}.part", (0, 0))
    assert remove_stale_parts(tmp_path) == 1
    assert names(tmp_path) == [f".bbcu-{'1' * 16}.part", "a.png"]


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("refusals", [0, 1, 2, 3])
def test_a_file_that_is_looked_at_for_a_moment_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    """Windows refuses while a scanner reads it: that is tried again, and said if it stays so."""
    path, left, replace = tmp_path / "a.png", [refusals], Path.replace
    path.write_bytes(b"old")

    def replaced(part: Path, target: Path) -> Path:
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", replaced)
    if refusals < 3:
        write_atomic(path, put(b"new"))
    else:
        with pytest.raises(OutputError, match=r"a\.png cannot be written: Access is denied"):
            write_atomic(path, put(b"new"))
    assert path.read_bytes() == (b"new" if refusals < 3 else b"old")
    assert names(tmp_path) == ["a.png"]
