"""Many files through one model: decode ahead, compute, encode behind; a failed file does not stop the others."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from bbcu_cli.errors import BbcuError
from bbcu_cli.image import EncodeOptions, Image, decode, encode, losses, remove_stale_parts, write_atomic
from bbcu_cli.jobs import Job
from bbcu_cli.manifest import Manifest
from bbcu_cli.metrics import Scores
from bbcu_cli.pipeline import Model, Options, restore_image, tile_for

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
    engine: str = ""
    tile: str = ""
    scores: Scores | None = None
    notes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run treats its files.

    Attributes:
        format: Pillow's name of the output format.
        max_pixels: larger inputs are refused before they are decoded.
        existing: what happens to an output that is already there: "refuse" (checked before any work),
            "overwrite", or "skip" when the manifest knows it as made from this source with these options.
        prepare: looks at a decoded image before it is restored and returns notes about it.
        score: compares a job's result with its ground truth.
    """

    options: Options
    encoding: EncodeOptions
    format: str
    max_pixels: int
    existing: Literal["refuse", "overwrite", "skip"] = "refuse"
    fail_fast: bool = False
    prepare: Callable[[Image], tuple[str, ...]] | None = None
    score: Callable[[Job, Image], Scores] | None = None


def options_key(model_digest: str, settings: Settings) -> str:
    """A digest of everything that shapes an output: what `--skip-existing` compares."""
    options = settings.options
    shaping = [model_digest, options.self_ensemble, options.chroma, repr(settings.encoding), settings.format]
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:32]


def _load(job: Job, settings: Settings) -> Image:
    source = sys.stdin.buffer.read() if job.source is None else job.source
    return decode(source, max_pixels=settings.max_pixels)


def _save(image: Image, job: Job, settings: Settings, manifest: Manifest | None) -> None:
    data = encode(image, settings.format, settings.encoding)
    if job.output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    job.output.parent.mkdir(parents=True, exist_ok=True)
    if manifest:
        manifest.begun(job.output)
    write_atomic(job.output, lambda file: file.write(data), overwrite=settings.existing != "refuse")
    if manifest and job.source:
        manifest.done(job.source, job.output)


def _failed(job: Job, error: BaseException) -> Row:
    reason = "out of memory; try a smaller --memory or --tile" if isinstance(error, MemoryError) else str(error)
    return Row(job.name, str(job.output or "-"), "failed", error=reason)


_EXPECTED = (BbcuError, OSError, MemoryError)  # what one bad file may raise; anything else is a bug and surfaces


def _ahead(jobs: Iterable[Job], pool: ThreadPoolExecutor, settings: Settings) -> Iterator[tuple[Job, Future[Image]]]:
    """Jobs in order with their decoding under way, one ahead of the one that is worked on."""
    pending: deque[tuple[Job, Future[Image]]] = deque()
    for job in jobs:
        pending.append((job, pool.submit(_load, job, settings)))
        if len(pending) > 1:
            yield pending.popleft()
    yield from pending


def _restored(image: Image, job: Job, model: Model, settings: Settings) -> tuple[Image, Row]:
    notes = (*image.notes, *(settings.prepare(image) if settings.prepare else ()))
    started = time.perf_counter()
    result = restore_image(image, model, settings.options)
    info = model.session.info
    row = Row(
        job.name,
        str(job.output or "-"),
        "done",
        seconds=time.perf_counter() - started,
        size_in=image.size,
        size_out=result.size,
        engine=f"{info.name} {info.device} {info.detail}",
        tile=str(tile_for(image, model, settings.options)),
        scores=settings.score(job, result) if settings.score else None,
        notes=(*notes, *losses(result, settings.format)),
    )
    return result, row


def _triage(jobs: Iterable[Job], manifest: Manifest | None, settings: Settings) -> tuple[list[Job], list[Row]]:
    """What is left to do, and rows for what is not."""
    if settings.existing != "skip" or manifest is None:
        return list(jobs), []
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
    todo, rows = _triage(jobs, manifest, settings)
    for folder in {job.output.parent for job in todo if job.output and job.output.parent.is_dir()}:
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
                result, row = _restored(decoding.result(), job, model, settings)
            except _EXPECTED as error:
                if settings.fail_fast:
                    raise
                while saving:
                    yield saved()
                yield _failed(job, error)
                continue
            saving.append((job, row, encoder.submit(_save, result, job, settings, manifest)))
            while len(saving) > 1:
                yield saved()
        while saving:
            yield saved()
    finally:
        decoder.shutdown(cancel_futures=True)
        encoder.shutdown(cancel_futures=True)
