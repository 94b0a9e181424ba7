"""Folders of a store as folders of this machine, for what has to look at all files before any work begins."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bbcu_cli.errors import BbcuError
from bbcu_cli.fleet import stores
from bbcu_cli.fleet.ahead import AHEAD
from bbcu_cli.fleet.spool import spool
from bbcu_cli.fleet.stores import is_url
from bbcu_cli.image.formats import is_image_name


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where the files of places lie on this machine, in the same order; a place that is a path lies there itself."""

    places: tuple[str, ...]
    paths: tuple[Path, ...]

    def told(self, text: str) -> str:
        """A text, or a path, with the names that the user gave."""
        for place, path in zip(self.places, self.paths, strict=True):
            text = text.replace(str(path), place.rstrip("/") if is_url(place) else place)
        return text


@contextmanager
def mirrored(*places: str, recursive: bool = False) -> Iterator[Mirror]:
    """Fetch the pictures of those places that are URLs, under the same names; they are removed at the end.

    Args:
        places: files and folders, paths or URLs.
        recursive: the pictures of sub-folders as well.

    Raises:
        StoreError: a store refuses, or cannot be reached.
        UsageError: a kind of URL cannot be served here. And whatever is raised inside, in the user's names.
    """
    if not any(map(is_url, places)):
        yield Mirror(places, tuple(map(Path, places)))
        return
    with spool() as room:
        here = [room / str(n) / (stores.name_of(place) or "pictures") for n, place in enumerate(places)]
        mirror = Mirror(
            places, tuple(path if is_url(place) else Path(place) for place, path in zip(places, here, strict=True))
        )
        wanted = [
            pair
            for place, path in zip(places, mirror.paths, strict=True)
            if is_url(place)
            for pair in _files(place, path, recursive=recursive)
        ]
        with ThreadPoolExecutor(AHEAD, "transfer") as pool:
            list(pool.map(_fetch, wanted))
        try:
            yield mirror
        except BbcuError as error:
            raise type(error)(mirror.told(str(error))) from error


def _files(place: str, path: Path, *, recursive: bool) -> Iterator[tuple[str, Path]]:
    """(URL, where it shall lie) of a file, or of the pictures of a folder that are not hidden."""
    stores.open_store(place)
    if stores.is_web(place) or stores.kind(place) != "folder":
        yield place, path
        return
    path.mkdir(parents=True)
    top = f"{place.rstrip('/')}/"
    for entry in stores.entries(place, recursive=recursive):
        below = PurePosixPath(entry.url.removeprefix(top))
        if is_image_name(below) and not any(part.startswith(".") for part in below.parts):
            yield entry.url, path / below


def _fetch(wanted: tuple[str, Path]) -> None:
    url, path = wanted
    path.parent.mkdir(parents=True, exist_ok=True)
    stores.fetch(url, path)
