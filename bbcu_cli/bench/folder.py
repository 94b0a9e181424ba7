"""A folder through the real pipeline: how long the engine computed, and how long it had nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.batch.jobs import plan_jobs
from bbcu_cli.batch.run import run
from bbcu_cli.batch.settings import Settings
from bbcu_cli.engines.base import Progress, Session, SessionContext
from bbcu_cli.errors import UsageError
from bbcu_cli.image import EncodeOptions
from bbcu_cli.restoration.model import Model, Options

Floats = NDArray[np.float32]
MAX_PIXELS = 500_000_000


@dataclass(frozen=True, slots=True)
class FolderReport:
    """What `bench_folder` measured; times in seconds.

    Attributes:
        model: name of the network.
        engine: that ran it, with its device and kernels.
        images: how many were restored.
        failed: how many were not.
        megapixels: of the inputs together, in millions.
        wall: from the first file opened to the last one in place.
        engine_busy: of `wall`, while the engine ran.
        decode: of all images together, beside the engine.
        encode: likewise: colour, compression, disk.
        pure: the engine alone on the same tiles.
    """

    model: str
    engine: str
    images: int
    failed: int
    megapixels: float
    wall: float
    engine_busy: float
    decode: float
    encode: float
    pure: float

    @property
    def idle_share(self) -> float:
        """Of `wall`, while the engine had nothing to do, 0..1."""
        return 1 - self.engine_busy / self.wall

    @property
    def images_per_second(self) -> float:
        """From file to file."""
        return self.images / self.wall

    @property
    def pure_share(self) -> float:
        """What is reached of the engine's own rate on the same tiles."""
        return self.pure / self.wall

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        derived = ("idle_share", "images_per_second", "pure_share")
        return {"schema": 1, **asdict(self), **{name: getattr(self, name) for name in derived}}


class _Meter(SessionContext):
    """A session that remembers when it ran, and on what shapes."""

    def __init__(self, session: Session) -> None:
        self.info = session.info
        self._session = session
        self.spans: list[tuple[float, float]] = []
        self.shapes: list[tuple[int, ...]] = []

    def run(self, x: Floats, progress: Progress | None = None) -> Floats:
        started = time.perf_counter()
        result = self._session.run(x, progress)
        self.spans.append((started, time.perf_counter()))
        self.shapes.append(x.shape)
        return result


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of (start, end) spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _pure(session: Session, shapes: list[tuple[int, ...]]) -> float:
    """Seconds for the same tiles with nothing beside them; the values of their pixels do not matter."""
    largest = max(int(np.prod(shape)) for shape in shapes)
    noise = np.random.default_rng(1).random(largest, dtype=np.float32)

    def one(shape: tuple[int, ...]) -> None:
        session.run(noise[: int(np.prod(shape))].reshape(shape))

    started = time.perf_counter()
    if session.info.concurrency == 1:
        for shape in shapes:
            one(shape)
    else:
        with ThreadPoolExecutor(session.info.concurrency) as pool:
            list(pool.map(one, shapes))
    return time.perf_counter() - started


@contextmanager
def _output(folder: Path | None) -> Iterator[str]:
    if folder is not None:
        yield str(folder)
        return
    with TemporaryDirectory(prefix="bbcu-bench-") as temporary:
        yield temporary


def bench_folder(
    folder: Path, model: Model, *, form: str = "PNG", threads: int | None = None, output: Path | None = None
) -> FolderReport:
    """Restore the images of a folder, as the commands do, and measure the engine.

    Args:
        folder: of images; not entered deeper.
        model: the network on its engine.
        form: format of the results.
        threads: of the encoders; None: `default_threads()`.
        output: where to; None is a folder that is removed again.

    Raises:
        UsageError: there is no image, or none could be restored.
    """
    suffix = f".{form.lower()}"
    with _output(output) as place:
        listing = plan_jobs([str(folder)], place, tag="", suffix=None, extension=suffix, recursive=False)
        settings = Settings(Options(), EncodeOptions(), form, MAX_PIXELS, existing="overwrite", threads=threads)
        model.session.run(np.zeros((1, model.spec.channels, 64, 64), np.float32))  # what is made on first use
        meter = _Meter(model.session)
        started = time.perf_counter()
        rows = list(run(listing.jobs, replace(model, session=meter), settings))
        wall = time.perf_counter() - started
    done = [row for row in rows if row.status == "done"]
    if not done:
        raise UsageError(f"None of the {len(rows)} images in {folder} could be restored: {rows[0].error}")
    return FolderReport(
        model=model.name,
        engine=done[0].engine,
        images=len(done),
        failed=len(rows) - len(done),
        megapixels=sum(row.size_in[0] * row.size_in[1] for row in done if row.size_in) / 1e6,
        wall=wall,
        engine_busy=covered(meter.spans),
        decode=sum(row.decode_seconds for row in done),
        encode=sum(row.encode_seconds for row in done),
        pure=_pure(model.session, meter.shapes),
    )
