"""The values of a run: how it treats its files, and what it says of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bbcu_cli.batch.jobs import SAME, Job
from bbcu_cli.cores import default_threads
from bbcu_cli.image import EncodeOptions, ImageInfo, Levels, format_of, probe
from bbcu_cli.image.compression import compression_of
from bbcu_cli.restoration.memory import Footprint, Work, footprint
from bbcu_cli.restoration.model import Options
from bbcu_cli.restoration.serving import Served
from bbcu_cli.score.metrics import Convention, Scores

Status = Literal["done", "skipped", "failed"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one file; sizes are (height, width).

    Attributes:
        seconds: that the engine took.
        decode_seconds: of reading the file.
        encode_seconds: of all the rest: colour, scores, compression, the disk.
        frames: how many frames or pages were restored; sizes are those of the first one.
        model: the network that does what was asked for, of several the first; None for a picture that was left as it
            is, and for one that failed.
        way: names of all networks that it went through, and of the filter that brought it to its exact size.
        reason: why that network served, or none.
        noise: level estimated on the picture, in 8-bit units, where a denoiser was not told it.
    """

    source: str
    output: str
    status: Status
    seconds: float = 0.0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0
    size_in: Size | None = None
    size_out: Size | None = None
    frames: int = 1
    model: str | None = None
    engine: str = ""
    tile: str = ""
    way: tuple[str, ...] = ()
    reason: str = ""
    noise: float | None = None
    scores: Scores | None = None
    notes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Truths:
    """The ground truth of every job, and how results are compared with it."""

    paths: Mapping[Job, Path]
    convention: Convention


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run treats its files.

    Attributes:
        format: the output format, a name of `image.formats.FORMATS`, or `SAME`.
        max_pixels: larger inputs are rejected before they are decoded.
        existing: what happens to an output that is already there: "refuse" (the run fails for that file),
            "overwrite", or "skip" when the manifest knows it as made from this source with these options.
        fail_fast: the first failure ends the run.
        truths: ground truth to score results with.
        compare: also write a side-by-side of input, result and ground truth.
        preserve_times: outputs get the modification time of their source.
        threads: of an encoder; None: `default_threads()`.
        progress: told now and then how much of a picture is done, 0..1, by any thread.
        frames: of an animation or of several pages, all, or the first one alone.
        levels: black and white of inputs whose samples do not say it; None: such files are rejected.
        serve: the network for a source, by what the file says, called by one thread; None: the run's model for all.
    """

    options: Options
    encoding: EncodeOptions
    format: str
    max_pixels: int
    existing: Literal["refuse", "overwrite", "skip"] = "refuse"
    fail_fast: bool = False
    truths: Truths | None = None
    compare: bool = False
    preserve_times: bool = False
    threads: int | None = None
    progress: Callable[[Job, float], None] | None = None
    frames: Literal["all", "first"] = "all"
    levels: Levels | None = None
    serve: Callable[[Path | bytes], Served] | None = None

    def of(self, job: Job) -> Settings:
        """Those of one file: where the format is `SAME`, the one that its output is named for.

        A JPEG is then written with the quality of its source, unless one is given.
        """
        if self.format != SAME or job.source is None or job.output is None:
            return self
        form, encoding = format_of(job.output), self.encoding
        if form == "JPEG" and encoding.quality is None:
            found = compression_of(job.source)
            encoding = replace(encoding, quality=found.quality if found and found.format == "JPEG" else None)
        return replace(self, format=form, encoding=encoding)

    @property
    def gathered(self) -> bool:
        """Whether whole results are needed, not only their rows one after the other."""
        return self.compare or self.truths is not None

    def footprint(self, job: Job, image: ImageInfo, served: Served) -> Footprint:
        """Tiles and memory for one image by the networks that serve it; of several in a file for that which takes most.

        Raises:
            UsageError: it cannot be done in the memory that is allowed.
            ImageError: its ground truth cannot be read.
        """
        truth = probe(self.truths.paths[job], levels=self.levels) if self.truths else None
        work = Work(self.format, truth, self.compare, self.encoding, self.threads or default_threads())
        if self.frames == "first" or image.frames < 2:
            return footprint(image, served.model, self.options, work, served.then, served.first)
        work = replace(work, frames=image.frames)
        needs = [
            footprint(kind, served.model, self.options, work, served.then, served.first)
            for kind in image.each or (image,)
        ]
        return max(needs, key=lambda need: need.peak)


def options_key(settings: Settings) -> str:
    """A digest of every option that shapes an output: what `--skip-existing` compares beside that of the network."""
    options = settings.options
    pixels = [options.self_ensemble, options.chroma, float(options.strength)]
    shaping = [*pixels, repr(settings.encoding), settings.format]
    shaping += ["first"] if settings.frames == "first" else []
    shaping += [settings.levels.black, settings.levels.white] if settings.levels else []
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:32]
