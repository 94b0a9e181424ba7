"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final

from bbcu_cli.errors import OutputError, UsageError

# The lock is on the part itself: it dies with its writer, and there is no lock file to be left behind, as filelock's
# would be.
try:
    import fcntl
except ImportError:  # Windows: there an open file cannot be removed, which serves as well; see _MOMENT
    fcntl = None  # type: ignore[assignment]

TEMP_PREFIX: Final = ".bbcu-"  # temporary files and manifests of ours; never an input
_PART: Final = re.compile(r"\.bbcu-[0-9a-f]{16}\.part")
_WINDOWS: Final = os.name == "nt"
# Source: Microsoft, "Naming Files, Paths, and Namespaces" and "Maximum Path Length Limitation".
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[1-9\xb9\xb2\xb3]|lpt[1-9\xb9\xb2\xb3]) *(\..*)?", re.IGNORECASE
)
_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_MOMENT: Final = (
    60.0  # seconds; an open file of Windows cannot take its name, so a part is closed a moment before it does
)
_PAUSES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)  # while somebody has a file open there: a scanner for viruses, say
_LONG: Final = 200  # characters; a folder takes 248, a file 260, and one of ours beside it has 27 of them


def name_complaint(path: PurePath) -> str:
    """What Windows has against a path as that of a new file, in a sentence; empty where nothing, and on other systems.

    Such names would be devices (`nul.png` swallows what is written), streams of other files (`a:b.png`), or lose their
    last character.
    """
    if not _WINDOWS:
        return ""
    for name in path.parts[1:] if path.anchor else path.parts:
        if name == "..":
            continue
        if _DEVICE.fullmatch(name):
            reason = "is a device"
        elif found := _FORBIDDEN.search(name):
            reason = f"has {found[0]!r}"
        elif name.endswith((".", " ")):
            reason = "ends with a dot or a space"
        else:
            continue
        return f"{path} cannot be written: on Windows, no file can be called {name!r}, which {reason}."
    return ""


def write_atomic(path: Path, write: Callable[[BinaryIO], Any], *, overwrite: bool = True) -> None:
    """Write a file so that `path` is at every moment what it was before or the whole new file.

    The bytes go to a temporary file in the same folder, are forced to the disk, and take the name in one step. A new
    file gets the mode that any new file gets; one that replaces another keeps its mode. A symbolic link is followed.

    Args:
        path: the file to write; its folder exists.
        write: puts the content into the binary file that it is given.
        overwrite: whether an existing file may be replaced; if not, one that appears meanwhile is safe too.

    Raises:
        UsageError: the file exists and `overwrite` is False.
        OutputError: the system refused (disk full, no permission, ...). Nothing is left behind, whatever is raised.
    """
    if complaint := name_complaint(path):
        raise OutputError(complaint)
    target = _target(path)
    if not overwrite and target.exists():
        raise _in_the_way(path)
    try:
        part, file = _create_part(target.parent)
        try:
            with file:
                write(file)
                _finish(file, target)
                if fcntl:  # still locked, so that no `remove_stale_parts` takes it for litter
                    _publish(part, target, overwrite=overwrite)
            if not fcntl:
                _publish(part, target, overwrite=overwrite)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        _sync_folder(target.parent)
    except FileExistsError as error:
        raise _in_the_way(path) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file whose content is at hand; otherwise as `write_atomic`."""
    write_atomic(path, lambda file: file.write(content), overwrite=overwrite)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file that several processes, on several machines even, append to.

    In one write to a file opened for appending, so that they do not tear each other's lines. The line break comes
    first, so that a torn predecessor spoils only itself.

    Raises:
        OSError: the system refused.
    """
    binary = getattr(os, "O_BINARY", 0)  # Windows writes two characters for a line break otherwise
    descriptor = os.open(_of_any_length(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary, 0o666)
    try:
        hold(descriptor)  # where the folder is shared, appending alone is not atomic
        os.write(descriptor, f"\n{line}".encode())
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder with those above it, unless it is there.

    Raises:
        OutputError: a file is in the way, or the system refused.
    """
    if complaint := name_complaint(path):
        raise OutputError(complaint)
    try:
        _of_any_length(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"folder {path} cannot be made: a file is in the way") from error
    except OSError as error:
        raise OutputError(f"folder {path} cannot be made: {error.strerror or error}") from error


def parts_folder(path: Path) -> Path:
    """The folder of the temporary files that `write_atomic` makes for `path`: that of a link's target."""
    return _target(path).parent


def remove_stale_parts(folder: Path) -> int:
    """Remove the temporary files that killed runs left in `folder`; those of live runs stay. Returns how many went."""
    removed = 0
    for part in folder.iterdir():
        if not _PART.fullmatch(part.name) or part.is_symlink():
            continue
        with contextlib.suppress(OSError):  # locked or open: its writer lives; gone: so much the better
            if fcntl:
                with part.open("rb") as file:
                    if not is_free(file):
                        continue
                    part.unlink()
            elif time.time() - part.stat().st_mtime < _MOMENT:
                continue
            else:
                part.unlink()
            removed += 1
    return removed


def hold(file: BinaryIO | int) -> None:
    """Lock an open file until it is closed, or until its process dies; wait for whoever holds it.

    Nothing happens on a file system without locks, and on Windows, where an open file cannot be removed.
    """
    if fcntl:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def is_free(file: BinaryIO) -> bool:
    """Whether nobody else held this open file, which is now locked as by `hold`; False where it cannot be told."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _target(path: Path) -> Path:
    """Where a symbolic link leads; realpath, unlike resolve, takes a link that leads to itself."""
    return _of_any_length(Path(os.path.realpath(path)))


def _of_any_length(path: Path) -> Path:
    """The same path in the form that Windows takes with more than 260 characters."""
    # Without "..", which that form does not know.
    return Path(unlimited(os.path.abspath(path))) if _WINDOWS else path  # noqa: PTH100


def unlimited(path: str) -> str:
    """An absolute Windows path, in the form that may be long if it is."""
    if len(path) < _LONG or path.startswith("\\\\?\\"):
        return path
    return f"\\\\?\\UNC{path[1:]}" if path.startswith("\\\\") else f"\\\\?\\{path}"


def _in_the_way(path: Path) -> UsageError:
    return UsageError(f"{path} exists; use --overwrite to replace it or --skip-existing to keep it")


def _create_part(folder: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file, locked for as long as it is open."""
    while True:
        part = folder / f".bbcu-{secrets.token_hex(8)}.part"
        file = part.open("xb+")
        if fcntl is None:
            return part, file
        hold(file)  # waits for a `remove_stale_parts` that was quicker ...
        if os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()  # ... and took the file away


def _finish(file: BinaryIO, target: Path) -> None:
    """Everything to the disk, with the mode of the file that is going to be replaced."""
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(target.stat().st_mode)
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), mode)
    file.flush()
    os.fsync(file.fileno())


def _publish(part: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite:
        _rename(part, target)
        return
    try:
        target.hardlink_to(part)  # unlike a rename, this fails when the name is taken
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        _rename(part, target)
        return
    part.unlink()


def _rename(part: Path, target: Path) -> None:
    """Windows refuses while somebody has one of the two open, which passes."""
    for pause in _PAUSES if _WINDOWS else ():
        try:
            part.replace(target)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    part.replace(target)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself last; not every system can."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
