"""The inputs as a stream: which picture becomes which, found while others are restored already."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from bbcu_cli.batch.jobs import EXCLUDED, SAME, STDIO, ending, matches, walk
from bbcu_cli.errors import UsageError
from bbcu_cli.files import name_complaint
from bbcu_cli.fleet import stores
from bbcu_cli.fleet.plan import Ask
from bbcu_cli.fleet.stores import is_url
from bbcu_cli.image.formats import SUFFIXES


@dataclass(frozen=True, slots=True)
class Naming:
    """How outputs are called; see `batch.jobs.plan_jobs`."""

    tag: str
    suffix: str | None
    extension: str
    recursive: bool
    exclude: Sequence[str] = ()


@dataclass(slots=True)
class Listing:
    """A stream of pictures; what it has passed over is counted as it goes.

    Attributes:
        batch: a folder is searched or several files were given.
        skipped: files that are no images by their name.
    """

    asks: Iterator[Ask]
    batch: bool
    skipped: int = 0


def list_inputs(inputs: Sequence[str], output: str | None, naming: Naming, *, refuse_existing: bool) -> Listing:
    """Pair every input with its output, one after the other.

    Args:
        inputs: one folder, or any number of files; paths, patterns of the last part of a path, or URLs.
        output: a file or a folder, path or URL; None puts results beside the inputs.
        naming: how they are called.
        refuse_existing: a picture whose output is a path that is taken fails. (Of a store that is asked when the
            picture's turn comes.)

    Raises:
        UsageError: an input is missing, there is no picture, or the output is of the wrong kind.
        StoreError: a store refuses, or cannot be reached.
    """
    if STDIO in inputs or output == STDIO:
        raise UsageError("'-' (stdin, stdout) does not go with URLs and --cluster; give files.")
    for place in filter(None, [*inputs, output]):
        if is_url(place):
            stores.open_store(place)
    if output and stores.is_web(output):
        raise UsageError(f"{output} cannot be written: bbcu only reads from web servers; give another --output.")
    typed = list(dict.fromkeys(chain.from_iterable(_expand(text) for text in inputs)))
    folders = [text for text in typed if _is_folder(text)]
    if folders and len(typed) > 1:
        raise UsageError("With URLs or --cluster, give one folder, or any number of files; for more, run bbcu again.")
    listing = Listing(iter(()), batch=bool(folders) or len(typed) > 1)
    found = _of_folder(listing, folders[0], output, naming) if folders else iter(_of_files(typed, output, naming))
    first = list(islice(found, 1))
    if not first:
        hint = "" if naming.recursive else " (--recursive enters sub-folders)"
        raise UsageError(f"No image in {typed[0]}{hint}.")
    listing.asks = (_checked(ask, refuse=refuse_existing) for ask in chain(first, found))
    return listing


def _expand(text: str) -> list[str]:
    """A typed input -> files, or a folder. Raises a UsageError where nothing is there."""
    if is_url(text):
        if not stores.is_web(text) and glob.has_magic(text) and stores.kind(text) is None:
            return _matching(text)
        return [text]
    path = Path(text).expanduser()
    if os.path.lexists(path):
        return [str(path)]
    if found := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute patterns
        return found
    raise UsageError(f"{text!r} does not exist.")


def _matching(text: str) -> list[str]:
    """The files of a store that a pattern means."""
    folder, _, pattern = text.rpartition("/")
    if glob.has_magic(folder):
        raise UsageError(f"{text}: in a URL, a pattern may stand in the last part only.")
    names = (entry.url for entry in stores.entries(folder, recursive=False))
    if found := [url for url in names if fnmatch.fnmatchcase(stores.name_of(url), pattern)]:
        return found
    raise UsageError(f"No file matches {text}.")


def _is_folder(text: str) -> bool:
    if not is_url(text):
        return Path(text).is_dir()
    if stores.is_web(text):
        return False
    found = stores.kind(text)
    if found is None:
        raise UsageError(f"{text} does not exist.")
    return found == "folder"


def _of_files(typed: Sequence[str], output: str | None, naming: Naming) -> list[Ask]:
    """The files that were typed; their number is one that a person types."""
    if output and _names_image(output):
        if len(typed) > 1:
            raise UsageError(f"Output {output!r} is one image, but there are several inputs; give a folder.")
        return [_listed(typed[0], output)]
    mark = naming.suffix if naming.suffix is not None else ("" if output else naming.tag)
    asks = []
    for text in typed:
        name, folder = _split(text)
        if output is None and stores.is_web(text):
            raise UsageError(f"{text} is on a web server, where nothing can be written beside it; give --output.")
        asks.append(_listed(text, _join(output or folder, f"{name.stem}{mark}{ending(name, naming.extension)}")))
    groups: dict[str, list[Ask]] = {}
    for ask in asks:
        groups.setdefault(ask.output, []).append(ask)
    if len({is_url(ask.output) for ask in asks}) > 1:
        raise UsageError("Some inputs are URLs and some are paths; give --output, so that all results go to one place.")
    return _different([ask for group in groups.values() for ask in _settled(group)])


def _different(asks: list[Ask]) -> list[Ask]:
    """Those that would still be written to one place fail."""
    seen: dict[str, Ask] = {}
    checked = []
    for ask in asks:
        other = seen.setdefault(ask.output, ask)
        clash = f"{ask.source} and {other.source} would both be written to {ask.output}; restore them one at a time."
        checked.append(ask if other is ask else replace(ask, error=clash))
    return checked


def _listed(source: str, output: str) -> Ask:
    """A file that was typed, with what its store says of it."""
    if not is_url(source):
        return Ask(source, output)
    entry = stores.look(source)
    return Ask(source, output, entry, error="" if entry else f"{source} does not exist.")


def _of_folder(listing: Listing, folder: str, output: str | None, naming: Naming) -> Iterator[Ask]:
    """The images of a folder, in the order of their names."""
    if not is_url(folder):
        here = Path(folder)
        folder = str(here if here.name not in ("", "..") else here.resolve())
    root = output or f"{folder.rstrip('/')}{naming.tag}"
    if _same(root, folder):
        raise UsageError(f"Input and output are the same folder {folder}; choose another --output.")
    if output and _names_image(output):
        raise UsageError(f"Output {output!r} is one image, but there are several inputs; give a folder.")
    search = _search_store if is_url(folder) else _search_disk
    return _apart(_paired(listing, search(folder, root, naming), root, naming))


def _paired(
    listing: Listing, found: Iterable[tuple[str, str, stores.Entry | None, str]], root: str, naming: Naming
) -> Iterator[Ask]:
    """(source, name below the folder, what the store says, what is wrong) -> the picture with its output."""
    for source, below, entry, complaint in found:
        path, suffix = _parted(below)
        if not (complaint or suffix.lower() in SUFFIXES):
            listing.skipped += 1
            continue
        end = ending(PurePosixPath(below), SAME) if naming.extension == SAME else naming.extension
        yield Ask(source, _join(root, f"{path}{naming.suffix or ''}{end}"), entry, error=complaint)


def _search_store(folder: str, root: str, naming: Naming) -> Iterator[tuple[str, str, stores.Entry | None, str]]:
    top, results = f"{folder.rstrip('/')}/", f"{root.rstrip('/')}/"
    patterns = (*EXCLUDED, *naming.exclude)

    @lru_cache(maxsize=64)  # names of one folder come one after the other
    def entered(below: str) -> bool:
        above, _, name = below.rpartition("/")
        return not below or (entered(above) and not matches(name, below, patterns))

    for entry in stores.entries(folder, recursive=naming.recursive):
        below = entry.url.removeprefix(top)
        above, _, name = below.rpartition("/")
        if entered(above) and not matches(name, below, patterns) and not entry.url.startswith(results):
            yield entry.url, below, entry, ""


def _search_disk(folder: str, root: str, naming: Naming) -> Iterator[tuple[str, str, stores.Entry | None, str]]:
    results = None if is_url(root) else Path(root).resolve()
    patterns = (*EXCLUDED, *naming.exclude)
    for path, complaint in walk(Path(folder), recursive=naming.recursive, results=results, patterns=patterns):
        yield str(path), path.relative_to(folder).as_posix(), None, complaint


def _apart(asks: Iterable[Ask]) -> Iterator[Ask]:
    """Pictures of one folder that differ in their endings only (`a.jpg`, `a.png`) get outputs of different names.

    In the order of their names, all that begin with "a." stand together: once a name does not, no other `a` comes. So
    only those few are held for which another may still come.
    """
    open_: list[tuple[str, list[Ask]]] = []
    for ask in asks:
        stem, _ = _parted(ask.source)
        while open_ and not ask.source.startswith(f"{open_[-1][0]}."):
            yield from _settled(open_.pop()[1])
        if open_ and open_[-1][0] == stem:
            open_[-1][1].append(ask)
            continue
        shadowed = any(other.source == stem for _, group in open_ for other in group)  # `a.jpg` beside `a.jpg.png`
        open_.append((stem, [_in_full(ask, stem) if shadowed else ask]))
    while open_:
        yield from _settled(open_.pop()[1])


def _settled(group: list[Ask]) -> list[Ask]:
    """Pictures that would become one output get it under their full names."""
    return group if len(group) == 1 else [_in_full(ask, group[ask is group[0]].source) for ask in group]


def _in_full(ask: Ask, other: str) -> Ask:
    """The picture with the whole name of its input before what follows the stem."""
    name, _ = _split(ask.source)
    output, folder = _split(ask.output)
    said = f"named in full, since {other} would be written to {output} as well"
    return replace(ask, output=_join(folder, f"{name.name}{output.name.removeprefix(name.stem)}"), notes=(said,))


def _checked(ask: Ask, *, refuse: bool) -> Ask:
    """The picture, failed if its output is an input or, where that is a path, is taken or cannot be."""
    if ask.error:
        return ask
    if _same(ask.source, ask.output):
        return replace(ask, error=f"{ask.source} would be overwritten; choose another --output or --suffix.")
    if not is_url(ask.output) and (complaint := name_complaint(Path(ask.output))):
        return replace(ask, error=complaint)
    if refuse and not is_url(ask.output) and os.path.lexists(ask.output):
        taken = f"{ask.output} exists; use --overwrite to replace it or --skip-existing to keep it."
        return replace(ask, error=taken)
    return ask


def _parted(path: str) -> tuple[str, str]:
    """A path or URL without its ending, and that with its dot; as pathlib has it, which takes ten times as long."""
    stem, dot, end = path.rpartition(".")
    return (stem, dot + end) if end and "/" not in end and stem and not stem.endswith("/") else (path, "")


def _same(first: str, second: str) -> bool:
    """Whether two places are one."""
    if is_url(first) or is_url(second):
        return first.rstrip("/") == second.rstrip("/")
    return os.path.realpath(first) == os.path.realpath(second)


def _split(text: str) -> tuple[PurePosixPath, str]:
    """A file's name, and its folder."""
    if is_url(text):
        return PurePosixPath(stores.name_of(text)), text.rpartition("/")[0]
    path = Path(text)
    return PurePosixPath(path.name), str(path.parent)


def _join(folder: str, name: str) -> str:
    return stores.join(folder, name) if is_url(folder) else str(Path(folder).expanduser() / name)


def _names_image(output: str) -> bool:
    """Whether an output as it was typed names an image and not a folder."""
    if is_url(output):
        return PurePosixPath(output).suffix.lower() in SUFFIXES and not output.endswith("/")
    path = Path(output).expanduser()
    return path.suffix.lower() in SUFFIXES and not path.is_dir() and not output.endswith(("/", os.sep))
