"""`--scale`, `--width` and the other ways to say how large a result shall be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.restoration.size import Target

SIZE: Final = "Size"
_VARIABLE: Final = "BBCU_SCALE"
_USUAL: Final = 4


def parse_box(text: str, option: str = "--fit") -> tuple[int, int]:
    """(width, height) from what was given to an option, such as "3840x2160".

    Raises:
        UsageError: it is no such text.
    """
    width, by, height = text.lower().replace("\N{MULTIPLICATION SIGN}", "x").partition("x")
    if not (by and width.strip().isdecimal() and height.strip().isdecimal() and int(width) and int(height)):
        raise UsageError(f"{option} {text} is not a width and a height; give for example 3840x2160.")
    return int(width), int(height)


@dataclass(frozen=True)
class SizeOptions:
    """How large results shall be."""

    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", "-s", help="More than 1 and up to 16, e.g. 1.5 or 8; default: 4.", envvar=_VARIABLE,
            show_default=False,
        ),
    ] = None  # fmt: skip
    width: Annotated[int | None, typer.Option(help="Width of the result in pixels.", min=1, rich_help_panel=SIZE)] = (
        None
    )
    height: Annotated[int | None, typer.Option(help="Height of the result in pixels.", min=1, rich_help_panel=SIZE)] = (
        None
    )
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="WxH", help="The largest result that fits into a box, e.g. 3840x2160.", rich_help_panel=SIZE
        ),
    ] = None
    longest: Annotated[
        int | None, typer.Option(help="Longer side of the result in pixels.", min=1, rich_help_panel=SIZE)
    ] = None
    reduce: Annotated[
        bool,
        typer.Option(
            "--reduce/--no-reduce",
            help="Reduce pictures that are larger than asked; otherwise they stay as they are.",
            rich_help_panel=SIZE,
        ),
    ] = False

    @property
    def whole(self) -> int | None:
        """The scale of the one network that is asked for; None where the way depends on the picture."""
        from bbcu_cli.spec import SCALES

        scale = _USUAL if self.scale is None else self.scale
        return int(scale) if self._sides() == () and scale in SCALES else None

    def target(self) -> tuple[Target, str]:
        """The size, and what marks a result beside its input.

        Raises:
            UsageError: options that exclude each other, or a scale that is out of range.
        """
        from bbcu_cli.restoration.size import MOST, Target

        sides = self._sides()
        scale_too = self.scale is not None and sides != () and not self._of_environment()
        named = (*(("--scale",) if scale_too else ()), *sides)
        if len(named) > 1:
            hint = "; for a box, give --fit WxH" if {"--width", "--height"} <= set(named) else ""
            raise UsageError(f"{named[0]} and {named[1]} exclude each other{hint}.")
        if not sides:
            if self.reduce:
                raise UsageError("--reduce is for --width, --height, --fit and --longest.")
            scale = _USUAL if self.scale is None else self.scale
            if not 1 < scale <= MOST:
                raise UsageError(f"--scale is {scale:g}; give a number above 1 and up to {MOST}.")
            return Target(Fraction(str(scale))), f"_x{scale:.15g}"
        if self.fit is not None:
            width, height = parse_box(self.fit)
            return Target(width=width, height=height, reduce=self.reduce), f"_fit{width}x{height}"
        target = Target(width=self.width, height=self.height, longest=self.longest, reduce=self.reduce)
        pixels = self.width or self.height or self.longest
        return target, f"_{sides[0].removeprefix('--')}{pixels}"

    def _sides(self) -> tuple[str, ...]:
        return tuple(f"--{name}" for name in ("width", "height", "fit", "longest") if getattr(self, name) is not None)

    def _of_environment(self) -> bool:
        """The scale is that of the variable, which an option overrides."""
        try:
            return float(os.environ.get(_VARIABLE, "")) == self.scale
        except ValueError:
            return False
