"""Frames and pages -> files, one after the other: what `encode` is for single pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import BinaryIO, Final, TypeAlias

import numpy as np
from PIL import Image as Pillow

from bbcu_cli.cores import default_threads
from bbcu_cli.image import webp
from bbcu_cli.image.encode import (
    DEFAULT_OPTIONS,
    EncodeOptions,
    avif_settings,
    blocks_with_dpi,
    failing_as,
    picture_of,
    prepared,
    webp_settings,
)
from bbcu_cli.image.formats import FORMATS
from bbcu_cli.image.frames import Frames
from bbcu_cli.image.image import Bands, Image
from bbcu_cli.image.png import write_animation
from bbcu_cli.image.tiff import write_pages

Timed: TypeAlias = tuple[Bands, Fraction]
"""A picture, and the milliseconds that it is shown."""


@dataclass(frozen=True, slots=True)
class Reel:
    """How the pictures of a file belong together: `Frames` without the pictures."""

    count: int
    pages: bool
    plays: int

    @classmethod
    def of(cls, frames: Frames) -> Reel:
        """That of a file that was read."""
        return cls(frames.count, frames.pages, frames.plays)


def holds(kind: str, *, pages: bool) -> bool:
    """Whether a file of the format `kind` is written with several pages, or with the frames of an animation."""
    form = FORMATS[kind]
    return form.writable and (form.several == "pages" or (form.several == "frames" and not pages))


def losses_of_timing(reel: Reel, kind: str) -> tuple[str, ...]:
    """What a file of the format `kind` will not hold of how an animation is played, a sentence each."""
    if reel.pages:
        return ()
    if FORMATS[kind].several == "pages":
        return (f"{kind} holds the frames as pages, without their timing",)
    if kind == "AVIF" and reel.plays:
        return (f"AVIF is written to be played for ever, not {reel.plays} times" if reel.plays > 1 else
                "AVIF is written to be played for ever, not once",)  # fmt: skip
    return ()


def write_frames(
    frames: Iterable[Timed],
    reel: Reel,
    kind: str,
    file: BinaryIO,
    options: EncodeOptions = DEFAULT_OPTIONS,
    *,
    threads: int | None = None,
) -> None:
    """Write several pictures into a file of the format `kind`, each before the next one is asked for.

    Pages are written row by row. Of an animation two frames are held, and only what differs is written, but for AVIF,
    whose encoder keeps some frames more and the whole file.

    Args:
        frames: `reel.count` of them; those of an animation are of one size, depth and number of channels.
        reel: how they belong together.
        kind: a name of `FORMATS`; it `holds` them.
        file: an empty file that can seek.
        options, threads: as of `encode.write`.

    Raises:
        ImageError: as of `encode.write`.
        OSError: the system refused the file.
    """
    cores = threads or default_threads()
    ready = ((prepared(bands, kind, options), duration) for bands, duration in frames)
    with failing_as(kind):
        if FORMATS[kind].several == "pages":
            write_pages((bands for bands, _ in ready), file, count=reel.count, threads=cores)
        elif kind == "PNG":
            write_animation(_changes(ready), file, count=reel.count, plays=reel.plays, threads=cores)
        else:
            _WRITERS[kind](ready, reel, file, options)


def _changes(frames: Iterable[Timed], *, even: bool = False) -> Iterator[tuple[Bands, tuple[int, int], Fraction]]:
    """Of each frame the rectangle that differs from the one before, where it begins, and its milliseconds.

    Args:
        frames: of one kind.
        even: rectangles begin in even rows and columns.
    """
    before: Image | None = None
    for bands, duration in frames:
        image = bands.whole()
        top, left, bottom, right = (0, 0, *image.size) if before is None else _changed(before, image)
        if even:
            top, left = top - top % 2, left - left % 2
        before = None
        yield Bands.of(_cut(image, top, left, bottom, right)), (top, left), duration
        before = image
        del image


def _changed(before: Image, image: Image) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of what differs; one pixel of pictures that do not."""
    rows, columns = np.zeros(image.size[0], bool), np.zeros(image.size[1], bool)
    for y in range(image.size[0]):
        differs = (image.pixels[y] != before.pixels[y]).any(axis=1)
        if image.alpha is not None and before.alpha is not None:
            differs |= image.alpha[y] != before.alpha[y]
        rows[y] = differs.any()
        columns |= differs
    (down,), (across,) = rows.nonzero(), columns.nonzero()
    if not down.size:
        return 0, 0, 1, 1
    return int(down[0]), int(across[0]), int(down[-1]) + 1, int(across[-1]) + 1


def _cut(image: Image, top: int, left: int, bottom: int, right: int) -> Image:
    """A rectangle, as views."""
    place = slice(top, bottom), slice(left, right)
    return replace(image, pixels=image.pixels[place], alpha=None if image.alpha is None else image.alpha[place])


def _write_webp(frames: Iterable[Timed], reel: Reel, file: BinaryIO, options: EncodeOptions) -> None:
    changes = _changes(frames, even=True)
    first = next(changes)
    bands, _, _ = first

    def patches() -> Iterator[webp.Patch]:
        end = Fraction(0)
        for part, corner, duration in chain((first,), changes):
            still = io.BytesIO()
            picture_of(part).save(still, "WEBP", **webp_settings(options))
            yield webp.Patch(still.getvalue(), corner, part.size, round(end + duration) - round(end))
            end += duration

    webp.write_animation(patches(), file, alpha=bands.alpha, plays=reel.plays, blocks=blocks_with_dpi(bands.metadata))


class _Roll(Pillow.Image):
    """Frames that come one after the other, as a picture of Pillow's that has several."""

    def __init__(self, frames: Iterator[Timed], count: int) -> None:
        super().__init__()
        self.n_frames, self.is_animated = count, count > 1
        self.durations: list[int] = []
        self._frames, self._end = frames, Fraction(0)
        self._take()

    def seek(self, frame: int) -> None:
        """Go on to a frame; never back, though Pillow asks for the first one twice, and once more when it is done."""
        if frame >= self.n_frames:
            raise EOFError
        if frame == len(self.durations):
            self._take()

    def tell(self) -> int:
        return len(self.durations) - 1

    def _take(self) -> None:
        bands, duration = next(self._frames)
        picture = picture_of(bands, gray=False)
        self.im, self._mode, self._size = picture.im, picture.mode, picture.size
        self.durations.append(round(self._end + duration) - round(self._end))
        self._end += duration


def _write_avif(frames: Iterable[Timed], reel: Reel, file: BinaryIO, options: EncodeOptions) -> None:
    frames = iter(frames)
    first = next(frames)
    bands, _ = first
    roll = _Roll(chain((first,), frames), reel.count)
    roll.save(file, "AVIF", save_all=True, duration=roll.durations, **avif_settings(bands, options))


_WRITERS: Final[Mapping[str, Callable[[Iterable[Timed], Reel, BinaryIO, EncodeOptions], None]]] = {
    "WebP": _write_webp,
    "AVIF": _write_avif,
}
