"""Many files through one model: decode ahead, compute, encode behind; a failed file does not stop the others."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bbcu_cli.compare import side_by_side
from bbcu_cli.errors import BbcuError
from bbcu_cli.evaluate import score_images
from bbcu_cli.image import EncodeOptions, Image, decode, encode, losses, remove_stale_parts, write_atomic
from bbcu_cli.jobs import STDIO, Job, compare_path
from bbcu_cli.manifest import Manifest
from bbcu_cli.metrics import Convention, Scores
from bbcu_cli.pipeline import Model, Options, Pixels, restore_image, tile_for

Status = Literal["done", "skipped", "failed"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one file; sizes are (height, width), times in seconds."""

    source: str
    output: str
    status: Status
    seconds: float = 0.0
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
        threads: of an encoder; None takes all CPUs.
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


def options_key(model_digest: str, settings: Settings) -> str:
    """A digest of everything that shapes an output: what `--skip-existing` compares."""
    options = settings.options
    shaping = [model_digest, options.self_ensemble, options.chroma, repr(settings.encoding), settings.format]
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:32]


def _load(job: Job, settings: Settings) -> Image:
    source = sys.stdin.buffer.read() if job.source is None else job.source
    return decode(source, max_pixels=settings.max_pixels)


@dataclass(frozen=True, slots=True, eq=False)
class _Restored:
    """A finished image on its way to the disk."""

    job: Job
    source: Image
    result: Image
    truth: Image | None
    row: Row


def _save(done: _Restored, settings: Settings, manifest: Manifest | None) -> None:
    output, overwrite = done.job.output, settings.existing != "refuse"
    data = encode(done.result, settings.format, settings.encoding, threads=settings.threads)
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if settings.compare:
        picture = encode(_side_by_side(done), "PNG", settings.encoding)
        write_atomic(compare_path(output), lambda file: file.write(picture), overwrite=overwrite)
    if manifest:
        manifest.begun(output)
    write_atomic(output, lambda file: file.write(data), overwrite=overwrite)
    if manifest and done.job.source:
        manifest.done(done.job.source, output)


def _side_by_side(done: _Restored) -> Image:
    def planes(image: Image) -> Pixels:
        return image.pixels if image.alpha is None else np.dstack([*np.moveaxis(image.pixels, 2, 0), image.alpha])

    truth = planes(done.truth) if done.truth else None
    return Image(side_by_side(planes(done.source), planes(done.result), truth, label=done.row.model))


def _failed(job: Job, error: BaseException) -> Row:
    reason = "out of memory; try a smaller --memory or --tile" if isinstance(error, MemoryError) else str(error)
    return Row(job.name, str(job.output or STDIO), "failed", error=reason)


_EXPECTED = (BbcuError, OSError, MemoryError)  # what one bad file may raise; anything else is a bug and surfaces


def _ahead(jobs: Iterable[Job], pool: ThreadPoolExecutor, settings: Settings) -> Iterator[tuple[Job, Future[Image]]]:
    """Jobs in order with their decoding under way, one ahead of the one that is worked on."""
    pending: deque[tuple[Job, Future[Image]]] = deque()
    for job in jobs:
        pending.append((job, pool.submit(_load, job, settings)))
        if len(pending) > 1:
            yield pending.popleft()
    yield from pending


def _restore(image: Image, job: Job, model: Model, settings: Settings) -> _Restored:
    notes = (*image.notes, *(settings.notes(image) if settings.notes else ()))
    started = time.perf_counter()
    result = restore_image(image, model, settings.options)
    seconds = time.perf_counter() - started
    truth = scores = None
    if settings.truths:
        truth = decode(settings.truths.paths[job], max_pixels=settings.max_pixels)
        scores = score_images(truth, result, settings.truths.convention, model.spec.scale)
    info = model.session.info
    row = Row(
        job.name,
        str(job.output or STDIO),
        "done",
        seconds=seconds,
        size_in=image.size,
        size_out=result.size,
        model=model.name,
        engine=f"{info.name} on {info.device}, {info.detail}",
        tile=str(tile_for(image, model, settings.options)),
        scores=scores,
        notes=(*notes, *losses(result, settings.format, settings.encoding)),
    )
    return _Restored(job, image, result, truth, row)


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
    """Restore files one after the other, decoding and encoding on threads beside the engine.

    Yields:
        A row per job as it finishes. A failure of one file is a row with status "failed", unless
        `settings.fail_fast`, which raises it.

    Raises:
        BbcuError: with `fail_fast`, the first failure.
    """
    jobs = list(jobs)
    todo, rows = _triage(jobs, manifest, settings)
    for folder in {job.output.parent for job in jobs if job.output and job.output.parent.is_dir()}:
        remove_stale_parts(folder)
    yield from rows
    decoder, encoder = ThreadPoolExecutor(1, "decode"), ThreadPoolExecutor(1, "encode")
    saving: deque[tuple[Job, Row, Future[None]]] = deque()

    def saved() -> Row:
        job, row, future = saving.popleft()
        try:
            future.result()
        except _EXPECTED as error:
            if settings.fail_fast:
                raise
            return _failed(job, error)
        return row

    try:
        for job, decoding in _ahead(todo, decoder, settings):
            try:
                done = _restore(decoding.result(), job, model, settings)
            except _EXPECTED as error:
                if settings.fail_fast:
                    raise
                while saving:
                    yield saved()
                yield _failed(job, error)
                continue
            saving.append((job, done.row, encoder.submit(_save, done, settings, manifest)))
            while len(saving) > 1:
                yield saved()
        while saving:
            yield saved()
    finally:
        decoder.shutdown(cancel_futures=True)
        encoder.shutdown(cancel_futures=True)
