"""Which file becomes which: inputs as typed -> (source, output) pairs; what cannot be done is known before any work."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Final

from bbcu_cli.batch.manifest import Manifest
from bbcu_cli.errors import ImageError, UsageError
from bbcu_cli.files import name_complaint
from bbcu_cli.image.formats import FORMATS, SUFFIXES, format_of, is_image_name

STDIO: Final = "-"
SAME: Final = "same"
"""As the format or extension of outputs: that of each source, or PNG where it is not written."""
EXCLUDED: Final = ("@eaDir", "#recycle", ".*")
"""What is left out of every searched folder: what file servers put there, and what is hidden."""


@dataclass(frozen=True, slots=True)
class Job:
    """One image to restore; None stands for stdin (source) or stdout (output).

    Attributes:
        notes: what is to be said of its output.
        error: why it fails without being tried, in a sentence; empty for nearly all.
        folder: that was searched, if the source was found and not given.
    """

    source: Path | None
    output: Path | None
    notes: tuple[str, ...] = ()
    error: str = ""
    folder: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The source as a person calls it."""
        return "stdin" if self.source is None else str(self.source)

    @property
    def place(self) -> str:
        """The path of the source below the folder that was searched, without extension."""
        if self.source is None:
            return ""
        return (
            (self.source.relative_to(self.folder) if self.folder else Path(self.source.name)).with_suffix("").as_posix()
        )


@dataclass(frozen=True, slots=True)
class JobList:
    """What becomes of the inputs.

    Attributes:
        jobs: in order.
        skipped: files of searched folders that are no images by their name.
        results: inputs that bbcu made of others of the inputs, or as side-by-sides; they are left out.
        batch: a folder was searched or several files were given.
    """

    jobs: tuple[Job, ...]
    skipped: tuple[Path, ...] = ()
    results: tuple[Path, ...] = ()
    batch: bool = False

    @property
    def possible(self) -> list[Job]:
        """The jobs that are worth a try."""
        return [job for job in self.jobs if not job.error]

    @property
    def left_out(self) -> str:
        """What is to be said of `results`."""
        names = f"{self.results[0]} and {len(self.results) - 1} more" if self.results[1:] else self.results[0]
        return f"left out, as made by bbcu of other inputs or as a side-by-side: {names}; name one alone to restore it."


def _expand(text: str) -> list[Path]:
    """A typed input -> existing paths, or links; a pattern that the shell left alone is expanded here.

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
        return [path]  # which leads nowhere: the other inputs are restored all the same
    raise UsageError(f"{text!r} does not exist.")


def matches(name: str, path: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern is of the name, or of the path below the searched folder."""
    return any(fnmatch.fnmatchcase(name, one) or fnmatch.fnmatchcase(path, one) for one in patterns)


def walk(folder: Path, *, recursive: bool, results: Path | None, patterns: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Files of a folder in name order; what matches a pattern, `results` and link cycles are not entered.

    Yields:
        (path, what is wrong with it in a sentence, or ""): an unreadable folder below, a pipe, a broken link.

    Raises:
        UsageError: the folder itself cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    locked: list[tuple[Path, str]] = []

    def unreadable(error: OSError) -> None:
        path, complaint = Path(error.filename), f"Folder {error.filename!r} cannot be read ({error.strerror})."
        if path == folder:
            raise UsageError(complaint) from error
        locked.append((path, complaint))

    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        yield from locked
        locked.clear()
        here = Path(root)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen or (results and here.resolve() == results):
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))

        def kept(names: Iterable[str], here: Path = here) -> list[str]:
            below = here.relative_to(folder).as_posix()
            prefix = "" if below == "." else f"{below}/"
            return sorted(name for name in names if not matches(name, prefix + name, patterns))

        folders[:] = kept(folders) if recursive else []
        for path in (here / name for name in kept(files)):
            yield path, _complaint(path, may_be_folder=recursive)
    yield from locked


def _complaint(path: Path, *, may_be_folder: bool) -> str:
    """What is wrong with a file that was found, as far as one can tell without opening it; a link may lead nowhere."""
    image = is_image_name(path)
    try:
        mode = path.stat().st_mode
    except OSError:
        lost = path.is_symlink() and not path.exists()
        return f"{path} is a symbolic link that leads nowhere." if lost and (image or may_be_folder) else ""
    return "" if stat.S_ISREG(mode) or not image else f"{path} is not a regular file."


def plan_jobs(
    inputs: Iterable[str],
    output: str | None,
    *,
    tag: str,
    suffix: str | None,
    extension: str | None,
    recursive: bool,
    exclude: Sequence[str] = (),
) -> JobList:
    """Pair every input with its output.

    Args:
        inputs: files, folders, patterns, or "-".
        output: a file, a folder or "-"; None puts a file beside its input as `photo<tag>.png` and the files of
            `folder` into `folder<tag>/`.
        tag: what marks a result beside its input: "_x4", "_denoised", "_deblocked".
        suffix: put behind every stem; None means `tag` beside the input and nothing in an output folder.
        extension: of the output files, with the dot, or `SAME`; None takes it from `output` or is ".png".
        recursive: enter sub-folders and mirror the tree.
        exclude: patterns of names, or of paths below a searched folder, that are left out beside `EXCLUDED`.

    Returns:
        A list with at least one job that has no error. Inputs that would become one output get their full names
        (`a.jpg.png`, `a.png.png`).

    Raises:
        UsageError: an input is missing or empty, the output is of the wrong kind, or no job is possible.
    """
    typed = list(inputs)
    if STDIO in typed:
        return _stdin_job(typed, output)
    paths = _paths(typed)
    folders = [path for path in paths if path.is_dir()]
    target = Path(output).expanduser() if output is not None and output != STDIO else None
    if output == STDIO or (target and output and _is_image(target, output)):
        if len(paths) != 1 or folders:
            raise UsageError(f"Output {output!r} is one image, but there are several inputs; give a folder.")
        return _checked(JobList((Job(paths[0], target, error=_complaint(paths[0], may_be_folder=True)),)))
    if target and output:
        _check_folder(target, output, alone=len(paths) == 1 and not folders)
    found = _Found(tag, suffix, extension or ".png", target, (*EXCLUDED, *exclude))
    for path in paths:
        if path.is_dir():
            found.search(path, recursive=recursive)
        else:
            found.add(path)
    if not found.jobs:
        hint = "" if recursive else " (--recursive enters sub-folders)"
        raise UsageError(f"No image in {', '.join(str(folder) for folder in folders)}{hint}.")
    return _checked(found.listing(batch=bool(folders) or len(paths) > 1))


def _paths(typed: Sequence[str]) -> list[Path]:
    """Every typed input -> existing paths; one that is missing and comes last may be meant as the output."""
    paths: list[Path] = []
    for index, text in enumerate(typed):
        try:
            paths += _expand(text)
        except UsageError as error:
            if paths and index == len(typed) - 1:
                raise UsageError(f"{error} If it is the output, give it with -o.") from None
            raise
    return paths


def _is_image(target: Path, output: str) -> bool:
    """Whether an output as it was typed names an image and not a folder."""
    return target.suffix.lower() in SUFFIXES and not target.is_dir() and not output.endswith(("/", os.sep))


def _check_folder(target: Path, output: str, *, alone: bool) -> None:
    """Raise a UsageError if `output` cannot be, or is not likely meant to be, a folder."""
    if alone and target.suffix and not target.exists() and not output.endswith(("/", os.sep)):
        endings = ", ".join(form.suffixes[0] for form in FORMATS.values() if form.writable)
        raise UsageError(
            f"Output {output!r}: images are not written under {target.suffix!r}, but under {endings}; "
            f"for a folder of that name, give '{output}/'."
        )
    for path in (target, *target.parents):
        if path.is_dir():
            return
        if os.path.lexists(path):
            raise UsageError(f"Output {output!r} cannot be a folder: {str(path)!r} is a file; choose another --output.")


def ending(file: PurePath, extension: str) -> str:
    """Of the output of a file: an extension with its dot, or with `SAME` that of the file where it can be written."""
    if extension != SAME:
        return extension
    try:
        format_of(file)
    except ImageError:  # a format that is only read
        return ".png"
    return file.suffix


@dataclass(slots=True)
class _Found:
    """Jobs as they are found."""

    tag: str
    suffix: str | None
    extension: str
    target: Path | None
    exclude: Sequence[str]
    jobs: list[Job] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    def add(self, file: Path) -> None:
        """A file that was typed."""
        home = self.target or file.parent
        mark = self.suffix if self.suffix is not None else ("" if self.target else self.tag)
        output = home / f"{file.stem}{mark}{ending(file, self.extension)}"
        self.jobs.append(Job(file, output, error=_complaint(file, may_be_folder=True)))

    def search(self, folder: Path, *, recursive: bool) -> None:
        """The images of a folder."""
        here = folder if folder.name not in ("", "..") else folder.resolve()
        root = self.target or here.with_name(here.name + self.tag)
        if root.resolve() == folder.resolve():
            raise UsageError(f"Input and output are the same folder {folder}; choose another --output.")
        for file, complaint in walk(folder, recursive=recursive, results=root.resolve(), patterns=self.exclude):
            if complaint or is_image_name(file):
                name = f"{file.stem}{self.suffix or ''}{ending(file, self.extension)}"
                mirrored = root / file.relative_to(folder).parent / name
                self.jobs.append(Job(file, mirrored, error=complaint, folder=folder))
            else:
                self.skipped.append(file)

    def listing(self, *, batch: bool) -> JobList:
        """All that was found, without what bbcu made of it before."""
        results = _results([job.source for job in self.jobs if job.source]) if batch else []
        known = set(results)
        jobs = dict.fromkeys(job for job in self.jobs if job.source not in known)  # what was given twice is done once
        return JobList(tuple(jobs), tuple(self.skipped), tuple(results), batch)


def _results(sources: Sequence[Path]) -> list[Path]:
    """Those that the records beside them know as made of others of them, or as side-by-sides."""
    records = Manifest("")
    given = {os.path.realpath(path) for path in sources}
    found = []
    for path in sources:
        made = records.known(path)
        if made and (made.comparison or made.source in given):
            found.append(path)
    return found


def _stdin_job(typed: list[str], output: str | None) -> JobList:
    if len(typed) > 1:
        raise UsageError("'-' (stdin) cannot be combined with other inputs.")
    target = None if output in (None, STDIO) else Path(output).expanduser()
    if target and output and not _is_image(target, output):
        raise UsageError(f"Output {output!r} for stdin must be a file with an image extension, such as out.png.")
    return _checked(JobList((Job(None, target),)))


def _folds_case(folder: Path) -> bool:
    """Whether the file system of the nearest existing parent takes upper and lower case for the same name."""
    existing = next(p for p in (folder, *folder.parents) if p.exists()).resolve()
    twin = existing.with_name(existing.name.swapcase())
    return twin.name != existing.name and twin.exists() and twin.samefile(existing)


def _checked(listing: JobList) -> JobList:
    """Every output different from the others and from all inputs, or its job has an error.

    Raises:
        UsageError: no job is possible.
    """
    folds: dict[Path, bool] = {}

    def key(output: Path) -> str:
        if output.parent not in folds:
            folds[output.parent] = _folds_case(output.parent)
        # realpath, unlike resolve, takes a link that leads to itself; reading it will fail on its own.
        final = os.path.realpath(output)
        return final.casefold() if folds[output.parent] else final

    sources = {os.path.realpath(job.source) for job in listing.jobs if job.source}
    jobs = [_harmless(job, sources) for job in _apart(listing.jobs, key)]
    if all(job.error for job in jobs):
        raise UsageError(jobs[0].error)
    return replace(listing, jobs=tuple(jobs))


def _harmless(job: Job, sources: set[str]) -> Job:
    """The job, failed if it would write over an input, or under a name that cannot be."""
    if job.error or job.output is None:
        return job
    if complaint := name_complaint(job.output):
        return replace(job, error=complaint)
    if job.source is None or os.path.realpath(job.output) not in sources:
        return job
    return replace(
        job, error=f"{job.source} would overwrite the input {job.output}; choose another --output or --suffix."
    )


def _apart(jobs: Iterable[Job], key: Callable[[Path], str]) -> list[Job]:
    """Jobs with the same output get it under their full names; those that still have the same fail."""
    jobs, named = list(jobs), set[int]()

    def clashes() -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for index, job in enumerate(jobs):
            if job.output and job.source and not job.error:
                groups.setdefault(key(job.output), []).append(index)
        return [group for group in groups.values() if len(group) > 1]

    while crowded := [(index, group) for group in clashes() for index in group if index not in named]:
        for index, group in crowded:
            jobs[index] = _in_full(jobs[index], jobs[group[group[0] == index]])
            named.add(index)
    for group in clashes():
        for index in group:
            job, other = jobs[index], jobs[group[group[0] == index]]
            clash = (
                f"{job.source} and {other.source} would both be written to {job.output}; restore them one at a time."
            )
            jobs[index] = replace(job, error=clash)
    return jobs


def _in_full(job: Job, other: Job) -> Job:
    """The job with the whole name of its input before what follows the stem."""
    if job.output is None or job.source is None:
        return job
    output = job.output.with_name(job.source.name + job.output.name.removeprefix(job.source.stem))
    said = f"named in full, since {other.source} would be written to {job.output.name} as well"
    return replace(job, output=output, notes=(said,))


def compare_path(output: Path) -> Path:
    """Where the side-by-side of an output is written."""
    return output.with_name(f"{output.stem}_compare.png")


def refuse_existing(outputs: Iterable[Path]) -> None:
    """Raise a UsageError if an output is already there."""
    existing = [output for output in outputs if os.path.lexists(output)]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]} exists{more}; give --overwrite, --skip-existing or another --output.")
