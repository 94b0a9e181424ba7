"""Many files through one model, several under way at once; a failed file does not stop the others."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from bbcu_cli.batch.jobs import STDIO, Job, compare_path
from bbcu_cli.batch.manifest import Manifest
from bbcu_cli.batch.queue import EngineQueue, QueuedSession
from bbcu_cli.cores import default_threads
from bbcu_cli.errors import BbcuError
from bbcu_cli.files import parts_folder, remove_stale_parts, write_atomic, write_whole
from bbcu_cli.image import Bands, EncodeOptions, Image, ImageInfo, decode, encode, losses, probe, write
from bbcu_cli.image.image import Pixels
from bbcu_cli.restoration.memory import DEFAULT_MEMORY, Footprint, footprint
from bbcu_cli.restoration.model import Model, Options
from bbcu_cli.restoration.pipeline import restored_bands
from bbcu_cli.score.metrics import Convention, Scores

_EXPECTED = (BbcuError, OSError, MemoryError)  # what one bad file may raise; anything else is a bug and surfaces
Status = Literal["done", "skipped", "failed"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one file; sizes are (height, width).

    Attributes:
        seconds: that the engine took.
        decode_seconds: of reading the file.
        encode_seconds: of all the rest: colour, scores, compression, the disk.
    """

    source: str
    output: str
    status: Status
    seconds: float = 0.0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0
    size_in: Size | None = None
    size_out: Size | None = None
    model: str = ""
    engine: str = ""
    tile: str = ""
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
        format: the output format, a name of `image.formats.FORMATS`.
        max_pixels: larger inputs are refused before they are decoded.
        existing: what happens to an output that is already there: "refuse" (the run fails for that file),
            "overwrite", or "skip" when the manifest knows it as made from this source with these options.
        fail_fast: the first failure ends the run.
        notes: what to tell about a decoded image before it is restored.
        truths: ground truth to score results with.
        compare: also write a side-by-side of input, result and ground truth.
        threads: of an encoder; None: `default_threads()`.
    """

    options: Options
    encoding: EncodeOptions
    format: str
    max_pixels: int
    existing: Literal["refuse", "overwrite", "skip"] = "refuse"
    fail_fast: bool = False
    notes: Callable[[Image], tuple[str, ...]] | None = None
    truths: Truths | None = None
    compare: bool = False
    threads: int | None = None

    @property
    def gathered(self) -> bool:
        """Whether whole results are needed, not only their rows one after the other."""
        return self.compare or self.truths is not None

    def footprint(self, image: ImageInfo, model: Model) -> Footprint:
        """Tile and memory for one image; a UsageError if it cannot be done in the memory that is allowed."""
        return footprint(image, model, self.options, self.format, gathered=self.gathered)


def options_key(model_digest: str, settings: Settings) -> str:
    """A digest of everything that shapes an output: what `--skip-existing` compares."""
    options = settings.options
    shaping = [model_digest, options.self_ensemble, options.chroma, repr(settings.encoding), settings.format]
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Input:
    """A job with what its header tells; stdin is read into memory."""

    job: Job
    source: Path | bytes
    need: int  # bytes of memory beside the process itself

    @classmethod
    def of(cls, job: Job, model: Model, settings: Settings) -> _Input:
        """Look at a file; what is wrong with it is found again, and told, when it is restored."""
        source = sys.stdin.buffer.read() if job.source is None else job.source
        need = 0
        with contextlib.suppress(*_EXPECTED):
            need = settings.footprint(probe(source), model).image
        return cls(job, source, need)


@dataclass(frozen=True, slots=True, eq=False)
class _Whole:
    """An image, its whole result and its ground truth, where they are to be compared."""

    source: Image
    result: Image
    truth: Image | None


def _restore(given: _Input, model: Model, settings: Settings, manifest: Manifest | None, queue: EngineQueue) -> Row:
    """One image from file to file."""
    started, job = time.perf_counter(), given.job
    session = QueuedSession(queue, model.session)
    model = replace(model, session=session)
    footprint = settings.footprint(probe(given.source, name=job.name), model)
    image = decode(given.source, max_pixels=settings.max_pixels, name=job.name)
    decoded = time.perf_counter()
    notes = (*image.notes, *(settings.notes(image) if settings.notes else ()))
    bands = restored_bands(image, model, settings.options, footprint.tile)
    whole, scores = None, None
    if settings.gathered:
        result = bands.whole()
        truth = None
        if settings.truths:
            from bbcu_cli.score.trial import score_images  # here and below: a plain restoration starts without these

            truth = decode(settings.truths.paths[job], max_pixels=settings.max_pixels)
            scores = score_images(truth, result, settings.truths.convention, model.spec.scale)
        whole, bands = _Whole(image, result, truth), Bands.of(result)
    lost = losses(bands, settings.format, settings.encoding)
    _save(job, bands, whole, model.name, settings, manifest)
    info, rest = session.info, time.perf_counter() - decoded - session.computing - session.waiting
    return Row(
        job.name,
        str(job.output or STDIO),
        "done",
        seconds=session.computing,
        decode_seconds=decoded - started,
        encode_seconds=rest,
        size_in=image.size,
        size_out=bands.size,
        model=model.name,
        engine=f"{info.name} on {info.device}, {info.detail}",
        tile=str(footprint.tile),
        scores=scores,
        notes=(*notes, *lost),
    )


def _save(
    job: Job, bands: Bands, whole: _Whole | None, model: str, settings: Settings, manifest: Manifest | None
) -> None:
    """Write the result as its rows come, and before it the side-by-side."""
    output, overwrite = job.output, settings.existing != "refuse"

    def content(file: BinaryIO) -> None:
        write(bands, settings.format, file, settings.encoding, threads=settings.threads)
        if manifest and output:
            manifest.begun(output)

    if output is None:
        memory = io.BytesIO()
        content(memory)
        sys.stdout.buffer.write(memory.getbuffer())
        sys.stdout.buffer.flush()
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if settings.compare and whole:
        picture = encode(_side_by_side(whole, model), "PNG", settings.encoding)
        write_whole(compare_path(output), picture, overwrite=overwrite)
    write_atomic(output, content, overwrite=overwrite)
    if manifest and job.source:
        manifest.done(job.source, output)


def _side_by_side(done: _Whole, model: str) -> Image:
    from bbcu_cli.score.compare import side_by_side

    def planes(image: Image) -> Pixels:
        return image.pixels if image.alpha is None else np.dstack([*np.moveaxis(image.pixels, 2, 0), image.alpha])

    truth = planes(done.truth) if done.truth else None
    return Image(side_by_side(planes(done.source), planes(done.result), truth, label=model))


def _failed(job: Job, error: BaseException) -> Row:
    reason = "out of memory; try a smaller --memory or --tile" if isinstance(error, MemoryError) else str(error)
    return Row(job.name, str(job.output or STDIO), "failed", error=reason)


def _triage(jobs: list[Job], manifest: Manifest | None, settings: Settings) -> tuple[list[Job], list[Row]]:
    """What is left to do, and rows for what is not."""
    if settings.existing != "skip" or manifest is None:
        return jobs, []
    todo: list[Job] = []
    rows: list[Row] = []
    for job in jobs:
        verdict = manifest.verdict(job.source, job.output) if job.source and job.output else "absent"
        if verdict == "current":
            rows.append(Row(job.name, str(job.output), "skipped"))
        elif verdict == "foreign":
            complaint = f"{job.output} exists and is not known as an output of bbcu; move it or give --overwrite."
            rows.append(Row(job.name, str(job.output), "failed", error=complaint))
        else:
            todo.append(job)
    return todo, rows


def run(jobs: Iterable[Job], model: Model, settings: Settings, manifest: Manifest | None = None) -> Iterator[Row]:
    """Restore files, several at a time: while the engine runs for one, others are decoded and encoded.

    As many are under way as keep the engine busy and fit the memory together.

    Yields:
        A row per job, in their order, as soon as it and all before it are finished. A failure of one file is a row
        with status "failed", unless `settings.fail_fast`, which raises it.

    Raises:
        BbcuError: with `fail_fast`, the first failure.
    """
    jobs = list(jobs)
    todo, rows = _triage(jobs, manifest, settings)
    for folder in {parts_folder(job.output) for job in jobs if job.output}:
        if folder.is_dir():
            remove_stale_parts(folder)
    yield from rows
    threads = (settings.threads or default_threads()) + model.session.info.concurrency + 1
    budget = settings.options.memory or DEFAULT_MEMORY
    under_way: deque[tuple[_Input, Future[Row]]] = deque()

    def admits(given: _Input) -> bool:
        busy = [other.need for other, future in under_way if not future.done()]
        return not busy or (len(busy) < threads and sum(busy) + given.need <= budget)

    def finished() -> Iterator[Row]:
        while under_way and under_way[0][1].done():
            given, future = under_way.popleft()
            try:
                yield future.result()
            except _EXPECTED as error:
                if settings.fail_fast:
                    raise
                yield _failed(given.job, error)

    workers = ThreadPoolExecutor(threads, "image")
    try:
        with EngineQueue(model.session) as queue:
            for job in todo:
                given = _Input.of(job, model, settings)
                queue.serve(until=partial(admits, given))
                future = workers.submit(_restore, given, model, settings, manifest, queue)
                future.add_done_callback(lambda _: queue.wake())
                under_way.append((given, future))
                yield from finished()
            while under_way:
                queue.serve(until=under_way[0][1].done)
                yield from finished()
    finally:
        workers.shutdown(cancel_futures=True)
