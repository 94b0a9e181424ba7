"""Which file becomes which: inputs as typed -> (source, output) pairs, refused before any work when they clash."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bbcu_cli.errors import UsageError
from bbcu_cli.image.formats import SUFFIXES, is_image_name

STDIO: Final = "-"


@dataclass(frozen=True, slots=True)
class Job:
    """One image to restore; None stands for stdin (source) or stdout (output)."""

    source: Path | None
    output: Path | None

    @property
    def name(self) -> str:
        """The source as a person calls it."""
        return "stdin" if self.source is None else str(self.source)


@dataclass(frozen=True, slots=True)
class JobList:
    """Jobs in order, and the files of searched folders that are no images by their name."""

    jobs: tuple[Job, ...]
    passed_over: tuple[Path, ...] = ()
    batch: bool = False  # a folder was searched or several files were given


def _expand(text: str) -> list[Path]:
    """A typed input -> existing paths; a pattern that the shell left alone is expanded here.

    Raises:
        UsageError: nothing is there.
    """
    path = Path(text).expanduser()
    if path.exists():
        return [path]
    if glob.has_magic(text):
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        if matches:
            return sorted(map(Path, matches))
        raise UsageError(f"No file matches {text!r}.")
    if path.is_symlink():
        raise UsageError(f"{text!r} is a symbolic link to a file that does not exist.")
    raise UsageError(f"{text!r} does not exist.")


def _walk(folder: Path, *, recursive: bool, excluded: Path | None) -> Iterator[Path]:
    """Files of a folder in name order, hidden ones left out, `excluded` and link cycles not entered."""
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        raise UsageError(f"Folder {error.filename!r} cannot be read ({error.strerror}).") from error

    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        here = Path(root)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen or (excluded and here.resolve() == excluded):
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def plan_jobs(
    inputs: Iterable[str], output: str | None, *, tag: str, suffix: str | None, extension: str | None, recursive: bool
) -> JobList:
    """Pair every input with its output.

    Args:
        inputs: files, folders, patterns, or "-".
        output: a file, a folder or "-"; None puts a file beside its input as `photo<tag>.png` and the files of
            `folder` into `folder<tag>/`.
        tag: what marks a result beside its input: "_x4", "_denoised", "_deblocked".
        suffix: put behind every stem; None means `tag` beside the input and nothing in an output folder.
        extension: of the output files, with the dot; None takes it from `output` or is ".png".
        recursive: enter sub-folders and mirror the tree.

    Raises:
        UsageError: an input is missing or empty, two inputs want one output, or an output is an input.
    """
    typed = list(inputs)
    if STDIO in typed:
        return _stdin_job(typed, output)
    paths = [path for text in typed for path in _expand(text)]
    folders = [path for path in paths if path.is_dir()]
    target = Path(output).expanduser() if output is not None and output != STDIO else None
    if output == STDIO or (target and not target.is_dir() and target.suffix.lower() in SUFFIXES):
        if len(paths) != 1 or folders:
            raise UsageError(f"Output {output!r} is one image, but there are several inputs; give a folder.")
        return _checked(JobList((Job(paths[0], target),)))
    extension = extension or ".png"
    jobs: list[Job] = []
    passed_over: list[Path] = []
    for path in paths:
        if not path.is_dir():
            home = target or path.parent
            mark = suffix if suffix is not None else ("" if target else tag)
            jobs.append(Job(path, home / f"{path.stem}{mark}{extension}"))
            continue
        here = path if path.name not in ("", "..") else path.resolve()
        root = target or here.with_name(here.name + tag)
        if root.resolve() == path.resolve():
            raise UsageError(f"Input and output are the same folder {path}; choose another --output.")
        for file in _walk(path, recursive=recursive, excluded=root.resolve()):
            if is_image_name(file):
                mirrored = root / file.relative_to(path).parent / f"{file.stem}{suffix or ''}{extension}"
                jobs.append(Job(file, mirrored))
            else:
                passed_over.append(file)
    if not jobs:
        hint = "" if recursive else " (--recursive enters sub-folders)"
        raise UsageError(f"No image in {', '.join(str(folder) for folder in folders)}{hint}.")
    return _checked(JobList(tuple(jobs), tuple(passed_over), bool(folders) or len(paths) > 1))


def _stdin_job(typed: list[str], output: str | None) -> JobList:
    if len(typed) > 1:
        raise UsageError("'-' (stdin) cannot be combined with other inputs.")
    target = None if output in (None, STDIO) else Path(output).expanduser()
    if target and (target.is_dir() or target.suffix.lower() not in SUFFIXES):
        raise UsageError(f"Output {output!r} for stdin must be a file with an image extension, such as out.png.")
    return JobList((Job(None, target),))


def _folds_case(folder: Path) -> bool:
    """Whether the file system of the nearest existing parent takes upper and lower case for the same name."""
    existing = next(p for p in (folder, *folder.parents) if p.exists()).resolve()
    twin = existing.with_name(existing.name.swapcase())
    return twin.name != existing.name and twin.exists() and twin.samefile(existing)


def _checked(listing: JobList) -> JobList:
    # realpath, unlike resolve, takes a link that leads to itself; reading it will fail on its own.
    sources = {Path(os.path.realpath(job.source)) for job in listing.jobs if job.source}
    taken: dict[str, Path] = {}
    folds: dict[Path, bool] = {}
    for job in listing.jobs:
        if job.output is None or job.source is None:
            continue
        final = Path(os.path.realpath(job.output))
        if final in sources:
            raise UsageError(
                f"{job.source} would overwrite the input {job.output}; choose another --output or --suffix."
            )
        if job.output.parent not in folds:
            folds[job.output.parent] = _folds_case(job.output.parent)
        key = str(final).casefold() if folds[job.output.parent] else str(final)
        if key in taken:
            raise UsageError(
                f"{taken[key]} and {job.source} would both be written to {job.output}; restore them one at a time."
            )
        taken[key] = job.source
    return listing


def compare_path(output: Path) -> Path:
    """Where the side-by-side of an output is written."""
    return output.with_name(f"{output.stem}_compare.png")


def refuse_existing(outputs: Iterable[Path]) -> None:
    """Raise a UsageError if an output is already there."""
    existing = [output for output in outputs if os.path.lexists(output)]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]} exists{more}; give --overwrite, --skip-existing or another --output.")
