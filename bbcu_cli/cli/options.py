"""Options that several commands share, as frozen values: one per panel of the help."""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.image import EncodeOptions, Levels
    from bbcu_cli.restoration.model import Options
    from bbcu_cli.restoration.planes import Chroma

FILES = "Files"
PIXELS = "Quality"
ENGINE = "Engine"
TALK = "Reporting"

Threads = Annotated[
    int | None,
    typer.Option(
        help="CPU threads; default: OMP_NUM_THREADS, else all CPUs.",
        envvar="BBCU_THREADS",
        min=1,
        rich_help_panel=ENGINE,
    ),
]


class EngineChoice(str, enum.Enum):
    """--engine."""

    auto = "auto"
    packed = "packed"
    reference = "reference"


class MetadataChoice(enum.Enum):
    """--metadata."""

    keep = "keep"
    strip = "strip"


class FramesChoice(enum.Enum):
    """--frames."""

    all = "all"
    first = "first"


class SubsamplingChoice(enum.Enum):
    """--subsampling."""

    full = "4:4:4"
    half = "4:2:2"
    quarter = "4:2:0"


def parse_colour(text: str) -> tuple[int, int, int]:
    """RGB in 0..255 from a name of CSS ("white"), "#rgb", "#rrggbb", "rrggbb" or "rgb(...)".

    Raises:
        UsageError: not a colour, or one with alpha.
    """
    from PIL import ImageColor

    for form in (text.strip(), f"#{text.strip()}"):
        with contextlib.suppress(ValueError):
            colour = ImageColor.getrgb(form)
            if len(colour) == 3 and all(0 <= value <= 255 for value in colour):
                return colour
    raise UsageError(f"{text!r} is not an opaque colour; give for example white, '#fff' or '#ffffff'.")


def parse_bytes(text: str) -> int:
    """Bytes from a size such as "2GB", "500MB" or plain bytes; the units are powers of 1024.

    Raises:
        typer.BadParameter: not a size.
    """
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(number[-1:], 1)
    digits = number if factor == 1 else number[:-1]
    try:
        size = int(float(digits) * factor)
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise typer.BadParameter(f"{text!r} is not a size; give for example 2GB or 500MB.")
    return size


@dataclass(frozen=True)
class EngineOptions:
    """Where and how the network runs."""

    weights: Annotated[
        str | None,
        typer.Option(
            help="Packed weights: a file, a model's name, or hf://user/repo@rev:file.", rich_help_panel=ENGINE
        ),
    ] = None
    engine: Annotated[
        EngineChoice,
        typer.Option(
            help="auto (the fastest that runs here), packed or reference.",
            metavar="ENGINE",
            envvar="BBCU_ENGINE",
            rich_help_panel=ENGINE,
        ),
    ] = EngineChoice.auto
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE", envvar="BBCU_DEVICE", rich_help_panel=ENGINE),
    ] = "auto"
    threads: Threads = None
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of a tile in input pixels; default: what --memory allows.", min=1, rich_help_panel=ENGINE
        ),
    ] = None
    memory: Annotated[
        int | None,
        typer.Option(
            help="Memory limit of the process, e.g. 2GB; images that need more are rejected.",
            parser=parse_bytes,
            metavar="SIZE",
            envvar="BBCU_MEMORY",
            rich_help_panel=ENGINE,
        ),
    ] = None
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble/--no-self-ensemble",
            help="Average over the 8 flips and rotations: slightly better, 8 times the work.",
            rich_help_panel=PIXELS,
        ),
    ] = False
    offline: Annotated[
        bool,
        typer.Option(
            "--offline/--no-offline", help="Never use the network.", envvar="BBCU_OFFLINE", rich_help_panel=ENGINE
        ),
    ] = False
    hub_repo: Annotated[
        str | None,
        typer.Option(
            help="Hub repository for models that do not ship.", envvar="BBCU_HUB_REPO", rich_help_panel=ENGINE
        ),
    ] = None

    def options(self, chroma: Chroma = "restore", strength: float = 1) -> Options:
        """The part that is about the pixels."""
        from bbcu_cli.restoration.model import Options

        return Options(self.tile, self.memory, self.self_ensemble, chroma, strength)


class InputChoice(enum.Enum):
    """--input."""

    auto = "auto"
    clean = "clean"
    photo = "photo"


@dataclass(frozen=True)
class NetworkOptions:
    """Which network serves a file."""

    input: Annotated[
        InputChoice,
        typer.Option(
            help="Networks for clean files or for photos: auto asks each file how it was compressed.",
            envvar="BBCU_INPUT",
            rich_help_panel=PIXELS,
        ),
    ] = InputChoice.auto


@dataclass(frozen=True)
class FileOptions:
    """What becomes of files."""

    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Output file or folder; default: beside the input.")
    ] = None
    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", "-r", help="Enter sub-folders and mirror the tree.")
    ] = False
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out files and sub-folders of this name or path in a searched folder (* and ? match anything); "
            "may be repeated. Hidden ones, @eaDir and #recycle always are.",
            metavar="PATTERN",
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--no-overwrite", help="Replace existing outputs.", rich_help_panel=FILES)
    ] = False
    preserve_times: Annotated[
        bool,
        typer.Option(
            "--preserve-times/--no-preserve-times",
            help="Give outputs the modification time of their input.",
            rich_help_panel=FILES,
        ),
    ] = False
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing/--no-skip-existing",
            help="Keep outputs made from the same file with the same options.",
            rich_help_panel=FILES,
        ),
    ] = False
    format: Annotated[
        str | None,
        typer.Option(
            help="png, jpg, webp, tif, bmp, avif or heic, or same: that of each input; default: png, or as --output is "
            "named.",
            rich_help_panel=FILES,
        ),
    ] = None
    frames: Annotated[
        FramesChoice,
        typer.Option(
            help="Of an animation (into PNG, WebP, AVIF) or of several pages (into TIFF): all, or the first alone.",
            rich_help_panel=FILES,
        ),
    ] = FramesChoice.all
    range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Black and white of floating-point, signed and 32-bit inputs, e.g. 0 1; what is beyond is clipped.",
            metavar="LOW HIGH",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None
    suffix: Annotated[
        str | None, typer.Option(help="Text after the stem of every output's name.", rich_help_panel=FILES)
    ] = None
    quality: Annotated[
        int | None,
        typer.Option(
            help="Quality of JPEG, WebP, AVIF and HEIC; with --format same a JPEG keeps its own.",
            min=1,
            max=100,
            rich_help_panel=FILES,
        ),
    ] = None
    subsampling: Annotated[
        SubsamplingChoice,
        typer.Option(
            help="Chroma of JPEG and AVIF: 4:4:4 (full), 4:2:2 or 4:2:0.", metavar="RATIO", rich_help_panel=FILES
        ),
    ] = SubsamplingChoice.full
    lossless: Annotated[
        bool, typer.Option("--lossless/--no-lossless", help="Write WebP and HEIC losslessly.", rich_help_panel=FILES)
    ] = False
    background: Annotated[
        str | None,
        typer.Option(
            help="Colour under transparent pixels, for formats without alpha, e.g. white or '#ffffff'.",
            metavar="COLOUR",
            rich_help_panel=FILES,
        ),
    ] = None
    metadata: Annotated[
        MetadataChoice,
        typer.Option(
            help="EXIF, XMP, text and DPI; the colour profile is always kept.",
            envvar="BBCU_METADATA",
            rich_help_panel=FILES,
        ),
    ] = MetadataChoice.keep
    max_pixels: Annotated[
        int,
        typer.Option(help="Reject larger inputs.", envvar="BBCU_MAX_PIXELS", min=1, rich_help_panel=FILES),
    ] = 500_000_000
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan and the memory it takes; restore nothing.", rich_help_panel=FILES
        ),
    ] = False
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast/--no-fail-fast", help="Stop at the first failure.", rich_help_panel=FILES)
    ] = False

    def levels(self) -> Levels | None:
        """--range.

        Raises:
            UsageError: it is none.
        """
        from bbcu_cli.image import Levels

        if self.range is None:
            return None
        try:
            return Levels(*self.range)
        except ValueError as error:
            raise UsageError(f"--range: {error}; give two numbers, the black and the larger white.") from error

    def encoding(self) -> EncodeOptions:
        """How outputs are written."""
        from bbcu_cli.image import EncodeOptions

        return EncodeOptions(
            quality=self.quality,
            subsampling=self.subsampling.value,
            lossless=self.lossless,
            metadata=self.metadata.value,
            background=None if self.background is None else parse_colour(self.background),
        )


@dataclass(frozen=True)
class FleetOptions:
    """Where the work is done."""

    cluster: Annotated[
        str | None,
        typer.Option(
            help="Share the work on a Ray cluster: local (started here), auto (the one this machine is part of) or "
            "HOST:PORT.",
            metavar="ADDRESS",
            envvar="BBCU_CLUSTER",
            rich_help_panel=ENGINE,
        ),
    ] = None


@dataclass(frozen=True)
class TalkOptions:
    """What is printed."""

    gt: Annotated[
        str | None, typer.Option(help="Ground truth, a file or folder: print PSNR and SSIM.", rich_help_panel=PIXELS)
    ] = None
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Also write a side-by-side of input, result and ground truth as NAME_compare.png.",
            rich_help_panel=PIXELS,
        ),
    ] = False
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object per image on stdout.", rich_help_panel=TALK)
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=TALK)] = False
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.", rich_help_panel=TALK)] = False
