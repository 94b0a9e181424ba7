"""An animation, or a file of several pages, from file to file: one picture at a time, all by one network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from bbcu_cli.batch.jobs import STDIO, Job
from bbcu_cli.batch.queue import EngineQueue, QueuedSession
from bbcu_cli.batch.settings import Row, Settings
from bbcu_cli.engines.base import Progress
from bbcu_cli.errors import ImageError
from bbcu_cli.image import Bands, Image, ImageInfo, losses
from bbcu_cli.image.decode import count_of, open_frames
from bbcu_cli.image.encode_frames import Reel, Timed, holds, losses_of_timing, write_frames
from bbcu_cli.image.formats import FORMATS
from bbcu_cli.image.frames import Frame, Frames
from bbcu_cli.restoration.pipeline import chained_bands
from bbcu_cli.restoration.tiling import TileSize

if TYPE_CHECKING:
    from bbcu_cli.batch.one import Given
    from bbcu_cli.restoration.model import Model
    from bbcu_cli.restoration.serving import Served

Save = Callable[[Callable[[BinaryIO], Any], "Served"], None]
"""Writes an output with what is put into its file, and records the network that served."""


def frames_of(job: Job, info: ImageInfo, settings: Settings) -> int:
    """How many pictures of a file are restored.

    Raises:
        ImageError: several, where one is wanted.
    """
    if info.frames < 2 or settings.frames == "first":
        return 1
    format_, pages = settings.of(job).format, info.format == "TIFF"
    if not holds(format_, pages=pages):
        able = [form.suffixes[0].removeprefix(".") for name, form in FORMATS.items() if holds(name, pages=pages)]
        raise ImageError(
            f"{job.name} has {count_of(info)}, and {format_} holds a single picture; give --frames first, or "
            f"another --format for all ({' or '.join([', '.join(able[:-1]), able[-1]] if able[1:] else able)})"
        )
    if settings.gathered:
        raise ImageError(
            f"{job.name} has {count_of(info)}, and --compare and --gt look at single pictures; give --frames first, "
            "or leave them out"
        )
    return info.frames


def restore_frames(
    given: Given, info: ImageInfo, settings: Settings, queue: EngineQueue, save: Save
) -> tuple[Row, Served]:
    """Restore every picture of a file, all by the network that the first one chooses: frames that differ flicker.

    Args:
        given: the job.
        info: what `probe` says of its source.
        settings: those of this file.
        queue: of the engine.
        save: writes the output.

    Returns:
        What became of it, which says nothing of the network yet, and the network.

    Raises:
        BbcuError, OSError, MemoryError: what was wrong; with the number of the frame or page.
    """
    started = time.perf_counter()
    name, levels = given.job.name, settings.levels
    with open_frames(given.source, max_pixels=settings.max_pixels, name=name, levels=levels) as frames:
        reel = Reel.of(frames)
        roll = _Roll(given.job, info, settings, frames)
        served = given.served.seen(roll.look())
        sessions = [QueuedSession(queue, one.session) for one in served.models]
        models = [replace(one, session=session) for one, session in zip(served.models, sessions, strict=True)]

        def content(file: BinaryIO) -> None:
            pictures = roll.restored(served, models)
            write_frames(pictures, reel, settings.format, file, settings.encoding, threads=settings.threads)

        save(content, served)
    spent, computing = time.perf_counter() - started, sum(session.computing for session in sessions)
    return Row(
        given.job.name,
        str(given.job.output or STDIO),
        "done",
        seconds=computing,
        decode_seconds=roll.decoding,
        encode_seconds=spent - roll.decoding - computing - sum(session.waiting for session in sessions),
        size_in=info.size,
        size_out=roll.size,
        frames=reel.count,
        engine=str(sessions[0].info) if sessions else "",
        tile=", then ".join(map(str, roll.tiles)),
        notes=(*given.job.notes, *frames.notes, *roll.notes, *losses_of_timing(reel, settings.format)),
    ), served


class _Roll:
    """The pictures of a file on their way from one to the other, and what is to be said of them.

    Attributes:
        decoding: seconds that it took to read them.
        notes: what was said of any of them, in order.
        size: (height, width) of the first result.
        tiles: of the first picture, for each network.
    """

    def __init__(self, job: Job, info: ImageInfo, settings: Settings, frames: Frames) -> None:
        self.decoding, self.notes = 0.0, dict[str, None]()
        self.size: tuple[int, int] | None = None
        self.tiles: tuple[TileSize, ...] = ()
        self._job, self._info, self._settings, self._frames = job, info, settings, frames
        self._held = max((kind.held for kind in info.each), default=0)
        self._waiting: Frame | None = None

    def look(self) -> Image:
        """The first picture, before all are restored."""
        self._waiting = self._read()
        return self._waiting.image

    def _read(self) -> Frame:
        started = time.perf_counter()
        frame = next(self._frames.each)
        self.decoding += time.perf_counter() - started
        return frame

    def restored(self, served: Served, models: Sequence[Model]) -> Iterator[Timed]:
        """All of them as rows to come; by no model as they are. No two are held at once."""
        for number in range(self._frames.count):
            frame, self._waiting = self._waiting or self._read(), None
            yield self._restored(frame.image, number, served, models), frame.duration
            del frame

    def _restored(self, image: Image, number: int, served: Served, models: Sequence[Model]) -> Bands:
        settings, count = self._settings, self._frames.count
        if served.then and image.size != self._info.size:
            raise ImageError(
                f"{self._job.name} has pages of different sizes, which have no size in common; give --scale 2, 3 or 4"
            )
        alpha = image.alpha is not None
        info = ImageInfo(image.format, image.size, image.channels, image.depth, alpha, count, held=self._held)
        tiles = settings.footprint(self._job, info, served).tiles if models else ()
        self.tiles = self.tiles or tiles
        size = served.size(image.size)
        bands = chained_bands(image, models, size, settings.options, tiles, self._told(number))
        self.size = self.size or bands.size
        self.notes |= dict.fromkeys((*image.notes, *losses(bands, settings.format, settings.encoding)))
        return bands

    def _told(self, number: int) -> Progress | None:
        """Progress of one picture as that of all."""
        tell, count = self._settings.progress, self._frames.count
        return None if tell is None else lambda share: tell(self._job, (number + share) / count)
