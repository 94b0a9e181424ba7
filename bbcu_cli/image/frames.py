"""Several pictures in one file, one after the other: frames of an animation, or pages.

Formats store a frame as a patch on what was shown before; here it becomes the whole picture that a viewer shows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from bbcu_cli.image.image import Image, Pixels

_BAND_SAMPLES: Final = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, whole and upright, and the milliseconds that it is shown; 0 for a page, and where none are given."""

    image: Image
    duration: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The pictures of a file.

    Attributes:
        count: how many.
        pages: they are pages, each of a size and with metadata of its own; else frames, all of one kind.
        plays: how often an animation is played; 0: for ever.
        each: the pictures, read when they are asked for; to be gone through once. One that is damaged raises an
            ImageError that names it.
        notes: a sentence for each thing that is not carried over.
    """

    count: int
    pages: bool
    plays: int
    each: Iterator[Frame]
    notes: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What one of them is called."""
        return "page" if self.pages else "frame"


class Disposal(enum.Enum):
    """What becomes of a patch when the next one is drawn."""

    KEEP = enum.auto()
    CLEAR = enum.auto()
    PREVIOUS = enum.auto()


@dataclass(frozen=True, slots=True)
class Patch:
    """Where a frame is drawn, and how.

    Attributes:
        top, left, bottom, right: in pixels of the whole picture, within it.
        disposal: what becomes of it.
        over: it is laid over what is there; else it takes its place, transparent pixels included.
        opaque: none of its pixels is transparent.
        duration: how long it is shown, in milliseconds.
    """

    top: int
    left: int
    bottom: int
    right: int
    disposal: Disposal = Disposal.KEEP
    over: bool = True
    opaque: bool = False
    duration: Fraction = Fraction(0)

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def shows_transparency(patches: Iterable[Patch], size: tuple[int, int]) -> bool:
    """Whether a frame of an animation of (height, width) may show a transparent pixel."""
    solid = False  # all that is drawn so far hides the transparent canvas
    for patch in patches:
        covers = (patch.top, patch.left, patch.bottom, patch.right) == (0, 0, *size)
        drawn = (covers and patch.opaque) or (solid and (patch.over or patch.opaque))
        if not drawn:
            return True
        solid = {Disposal.KEEP: True, Disposal.CLEAR: False, Disposal.PREVIOUS: solid}[patch.disposal]
    return False


def drawn(
    patches: Iterable[Patch], blank: Pixels, read: Callable[[int, Patch], Pixels | None], *, alpha: bool
) -> Iterator[Frame]:
    """Draw an animation on a canvas that is transparent at first.

    Args:
        patches: of its frames, in order.
        blank: zeros, (H, W, C + 1): colour and opacity; it is drawn on.
        read: number and patch of a frame -> samples of that size and as many channels, or None: there are no pixels.
        alpha: of the frames; without it the opacity is left out.
    """
    held: tuple[Patch, Pixels] | None = None
    for number, patch in enumerate(patches):
        if held is not None:
            before, under = held
            blank[before.place] = under
            held = None
        samples = read(number, patch)
        if patch.disposal is Disposal.PREVIOUS:
            held = patch, blank[patch.place].copy()
        elif patch.disposal is Disposal.CLEAR:
            held = patch, np.zeros(blank.shape[2], blank.dtype)
        if samples is not None:
            (_draw if patch.over and not patch.opaque else _replace)(blank[patch.place], samples)
        del samples
        pixels = np.ascontiguousarray(blank[..., :-1])
        yield Frame(Image(pixels, blank[..., -1].copy() if alpha else None), patch.duration)
        del pixels


def _replace(under: Pixels, patch: Pixels) -> None:
    under[...] = patch


def _draw(under: Pixels, patch: Pixels) -> None:
    """Lay colours that are not premultiplied over others, in place (PNG, third edition: alpha channel processing)."""
    top = int(np.iinfo(patch.dtype).max)
    step = max(1, _BAND_SAMPLES // (patch.shape[1] * patch.shape[2] or 1))
    for first in range(0, len(patch), step):
        below, above = under[first : first + step], patch[first : first + step]
        opacity = above[..., -1]
        solid = opacity == top
        below[solid] = above[solid]
        mixed = (opacity > 0) & ~solid
        if mixed.any():
            new, old = above[mixed].astype(np.float64), below[mixed].astype(np.float64)
            share = new[:, -1:] / top
            rest = old[:, -1:] / top * (1 - share)
            total = share + rest
            colours = (new[:, :-1] * share + old[:, :-1] * rest) / total
            below[mixed] = np.rint(np.concatenate([colours, total * top], axis=1))
