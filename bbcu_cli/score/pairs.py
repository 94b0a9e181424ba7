"""Which result belongs to which ground truth, and by how much it was enlarged: told by names, sizes or a record."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Final

from bbcu_cli.errors import UsageError
from bbcu_cli.image import probe
from bbcu_cli.image.formats import SUFFIXES, is_image_name
from bbcu_cli.spec import SCALES

Size = tuple[int, int]
"""(height, width)"""

# What tools hang behind the name of a ground truth: photo_x4, photox4, photo_width1920, photo_bbcu-m, photo_denoised.
_MARK: Final = re.compile(
    r"([_-]?x[234]|_x\d+(\.\d+)?|_(width|height|longest)\d+|_fit\d+x\d+|[_-]bbcu.*|_denoised|_deblocked)$",
    re.IGNORECASE,
)
_SCALE: Final = re.compile(r"(?<!\d)x([234])(?!\.?[0-9a-z])", re.IGNORECASE)
_SCALE_ALONE: Final = re.compile(r"(?:^|[^0-9a-z])x([234])(?![0-9a-z])", re.IGNORECASE)
_COMPARISON: Final = "_compare.png"  # what bbcu calls its side-by-sides
_NAME: Final = "{name}"
_NAMED: Final = 5  # as many files an error names


@dataclass(frozen=True, slots=True)
class Pair:
    """A ground truth and the result that is to be compared with it; `name` is where the truth lies in its folder."""

    truth: Path
    restored: Path
    name: str = ""

    @property
    def called(self) -> str:
        """The picture in a table."""
        return self.name or self.truth.stem


def images_at(path: Path, *, recursive: bool = False) -> list[Path]:
    """The file itself, or the images of a folder in name order, with `recursive` those of the folders below too.

    Raises:
        UsageError: nothing is there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{str(path)!r} does not exist.")
    found = sorted(
        file
        for file in (path.rglob("*") if recursive else path.iterdir())
        if is_image_name(file) and file.is_file() and not any(p.startswith(".") for p in file.relative_to(path).parts)
    )
    if not found:
        below = not recursive and any(map(is_image_name, path.rglob("*")))
        raise UsageError(f"No image in {str(path)!r}{', only in folders below it' if below else ''}.")
    return found


def place_in(folder: Path, path: Path) -> str:
    """Where a file lies below a folder, without its extension; the stem of a file that is given itself."""
    return (Path(path.name) if path == folder else path.relative_to(folder)).with_suffix("").as_posix()


def truths_at(path: Path, *, recursive: bool = False, called: Callable[[Path], str] | None = None) -> dict[str, Path]:
    """Ground truths of a folder by where they lie in it, without extension, or by what else they are called.

    Raises:
        UsageError: nothing is there, or two are called the same.
    """
    truths: dict[str, Path] = {}
    for file in images_at(path, recursive=recursive):
        name = called(file) if called else place_in(path, file)
        if name in truths:
            raise UsageError(f"{str(truths[name])!r} and {str(file)!r} are both ground truth for {name!r}.")
        truths[name] = file
    return truths


def find_truth(place: str, truths: Mapping[str, Path]) -> Path | None:
    """The ground truth of a result: that of its own name, or of the name before `_x4`, `_bbcu...`, `_denoised`."""
    while place not in truths:
        shorter = _MARK.sub("", place)
        if shorter == place or shorter.endswith("/") or not shorter:
            return None
        place = shorter
    return truths[place]


def pair(truth: Path, restored: Path, *, recursive: bool = False, pattern: str | None = None) -> list[Pair]:
    """Pair two folders by name, or two files as they are; never by position.

    Side-by-sides of bbcu (`a_compare.png` beside `a.png`) are no results.

    Args:
        truth: the ground truth, a file or a folder.
        restored: the results.
        recursive: enter sub-folders; a name then is the path from the folder.
        pattern: what a result is called where `{name}` is the name of its ground truth; or a regular expression whose
            match, or first group, both names have in common.

    Raises:
        UsageError: a file is missing, has no partner, or has several; the pattern is none.
    """
    if truth.is_file() and restored.is_file():
        return [Pair(truth, restored)]
    of_truth, of_result = _names(pattern)

    def truth_name(path: Path) -> str:
        if (name := of_truth(place_in(truth, path))) is None:
            raise UsageError(f"--pattern {pattern!r} finds nothing in the name of the ground truth {str(path)!r}.")
        return name

    truths = truths_at(truth, recursive=recursive, called=truth_name)
    partners: dict[Path, list[Path]] = {path: [] for path in truths.values()}
    strangers = []
    found = images_at(restored, recursive=recursive)
    there = {path.with_suffix("") for path in found}
    for path in found:
        name = of_result(place_in(restored, path))
        if name is not None and (partner := find_truth(name, truths)):
            partners[partner].append(path)
        elif not (path.name.endswith(_COMPARISON) and Path(str(path).removesuffix(_COMPARISON)) in there):
            strangers.append(_below(path, restored))
    alone = [_below(path, truth) for path, results in partners.items() if not results]
    rivals = [_below(path, restored) for results in partners.values() if len(results) > 1 for path in results]
    for complaint, names in (
        (f"No ground truth in {str(truth)!r} for", strangers),
        (f"No result in {str(restored)!r} for", alone),
        ("Several results for one ground truth:", rivals),
    ):
        if names:
            raise UsageError(f"{complaint} {_some(names, ', ')}.")
    return [Pair(path, results[0], place_in(truth, path)) for path, results in partners.items()]


_Namer = Callable[[str], "str | None"]


def _names(pattern: str | None) -> tuple[_Namer, _Namer]:
    """What a ground truth and what a result is called, of its place in its folder; None where a pattern does not fit.

    Raises:
        UsageError: the pattern is no regular expression.
    """
    if pattern is None:
        return _as_it_is, _as_it_is
    template = (
        pattern.removesuffix(PurePath(pattern).suffix) if PurePath(pattern).suffix.lower() in SUFFIXES else pattern
    )
    regular = re.escape(template).replace(re.escape(_NAME), "(.+)", 1) if _NAME in template else pattern
    try:
        compiled = re.compile(f"^{regular}$" if _NAME in template else regular)
    except re.error as error:
        raise UsageError(
            f"--pattern {pattern!r} is neither a name with {_NAME} nor a regular expression ({error}); "
            f"give for example '{_NAME}_out' or '\\d+'."
        ) from None

    def matched(place: str) -> str | None:
        folder, slash, stem = place.rpartition("/")
        found = compiled.search(stem)
        return None if found is None else f"{folder}{slash}{found[1 if compiled.groups else 0]}"

    return (_as_it_is if _NAME in template else matched), matched


def _as_it_is(place: str) -> str:
    return place


def _below(path: Path, folder: Path) -> str:
    return path.name if path == folder else str(path.relative_to(folder))


def _some(items: Sequence[str], separator: str) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return separator.join(items[:_NAMED]) + more


@dataclass(frozen=True, slots=True)
class Scale:
    """By how much results were enlarged, and what told it; 1 also where nothing does."""

    factor: int
    reason: str

    def __str__(self) -> str:
        return f"x{self.factor}, {self.reason}" if self.factor > 1 else self.reason


def find_scale(pairs: Sequence[Pair], *, given: int | None = None, recorded: int | None = None) -> Scale:
    """The scale of super-resolution: as given, as names tell, as recorded, or as the sizes are.

    Args:
        pairs: at least one.
        given: by the user.
        recorded: by the record that bbcu keeps of its outputs.

    Raises:
        UsageError: names tell several, or sizes fit several.
        ImageError: a file is no image.
    """
    if given is not None:
        return Scale(given, "by --scale" if given > 1 else "nothing enlarged, by --scale")
    if (named := scale_of(pairs)) > 1:
        return Scale(named, "by the names of the results or of their folder")
    sizes = [(probe(one.truth).size, probe(one.restored).size) for one in pairs]
    possible = [s for s in SCALES if all(_made_by(truth, restored, s) for truth, restored in sizes)]
    if recorded in possible:
        return Scale(recorded or 1, "by bbcu's record of the results")
    if all(truth == restored for truth, restored in sizes):
        if recorded == 1:
            return Scale(1, "nothing enlarged, by bbcu's record of the results")
        return Scale(1, "not told by names, record or sizes, so none; give --scale if the results were enlarged")
    if len(possible) > 1:
        told = " and ".join(f"x{scale}" for scale in possible)
        raise UsageError(f"The sizes of the results fit {told}; give --scale.")
    return Scale(possible[0], "by the sizes of the results") if possible else Scale(1, "not told")


def scale_of(pairs: Sequence[Pair]) -> int:
    """The scale that the results' names, or else the name of their folder, tell; 1 when none does.

    Raises:
        UsageError: the names tell several.
    """
    scales = set()
    for one in pairs:
        mark = one.restored.stem.removeprefix(one.truth.stem)
        found = (_SCALE_ALONE if mark == one.restored.stem else _SCALE).search(mark)
        folders = Path(os.path.abspath(one.restored)).parents  # noqa: PTH100 - a link keeps its own name
        for folder in folders[: one.name.count("/") + 1]:
            found = found or re.search(r"x([234])$", folder.name, re.IGNORECASE)
        scales.add(int(found[1]) if found else 1)
    if len(scales) > 1:
        told = ", ".join(f"x{scale}" for scale in sorted(scales))
        raise UsageError(
            f"The names of the results tell several scales ({told}); evaluate them one at a time, or give --scale."
        )
    return scales.pop()


def check_sizes(pairs: Sequence[Pair], scale: int, enlarged: int = 1) -> tuple[str, ...]:
    """Compare the sizes that the headers promise, before any work.

    Args:
        pairs: ground truth and results, or what is still to be enlarged.
        scale: sizes may differ by less, as `fits` says.
        enlarged: by how much the results will be.

    Returns:
        What is to be cropped, in words.

    Raises:
        UsageError: a pair differs.
        ImageError: a file is no image.
    """
    wrong, larger, smaller = [], 0, 0
    for one in pairs:
        truth, restored = probe(one.truth).size, probe(one.restored).size
        result = (restored[0] * enlarged, restored[1] * enlarged)
        if not fits(truth, result, scale):
            sizes = f"{restored[1]}x{restored[0]}, its ground truth {truth[1]}x{truth[0]}"
            wrong.append(f"{one.restored.name} is {sizes}")
        larger += any(t > r for t, r in zip(truth, result, strict=True))
        smaller += any(t < r for t, r in zip(truth, result, strict=True))
    if wrong:
        hint = "" if scale > 1 else " (enlarged results may differ by less than the scale: give --scale)"
        raise UsageError(f"Sizes differ: {_some(wrong, '; ')}{hint}.")
    cropped = f"{larger} of {len(pairs)} ground truths cropped to a multiple of {scale}" if larger else ""
    both = f"{smaller} of {len(pairs)} results cropped to the size of their ground truth" if smaller else ""
    return tuple(filter(None, (cropped, both)))


def fits(truth: Size, restored: Size, scale: int | Fraction) -> bool:
    """Whether sizes are the same, or the result's the multiple of the scale next below or above on a side.

    A reduced picture has whole pixels: its maker cropped the truth, or rounded its size up.
    """
    return all(
        r in (t, below, above)
        for t, r, below, above in zip(truth, restored, multiple_of(truth, scale), _above(truth, scale), strict=True)
    )


def _made_by(truth: Size, restored: Size, scale: int) -> bool:
    """Whether an enlargement by the scale can have that size."""
    return fits(truth, restored, scale) and restored == multiple_of(restored, scale)


def multiple_of(size: Size, scale: int | Fraction) -> Size:
    """The largest size of whole multiples of the scale, rounded to pixels, that is not larger."""
    return _pixels(size[0] // scale, scale), _pixels(size[1] // scale, scale)


def _above(size: Size, scale: int | Fraction) -> Size:
    return _pixels(-(-size[0] // scale), scale), _pixels(-(-size[1] // scale), scale)


def _pixels(count: int, scale: int | Fraction) -> int:
    """So many pixels, enlarged; halves are rounded up."""
    return math.floor(count * scale + Fraction(1, 2))
