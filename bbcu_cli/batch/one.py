"""One image from file to file: decoded, restored, scored, compared, written; or kept as it is."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from bbcu_cli.batch.jobs import STDIO, Job, compare_path
from bbcu_cli.batch.manifest import Manifest, Stamp, Verdict, stamp_of
from bbcu_cli.batch.queue import EngineQueue, QueuedSession
from bbcu_cli.batch.sequence import frames_of, restore_frames
from bbcu_cli.batch.settings import Row, Settings
from bbcu_cli.errors import BbcuError, ImageError, UsageError
from bbcu_cli.files import make_folder, write_atomic, write_whole
from bbcu_cli.image import FORMATS, Bands, Image, decode, encode, losses, probe, write
from bbcu_cli.restoration.memory import Footprint
from bbcu_cli.restoration.model import Model
from bbcu_cli.restoration.pipeline import chained_bands
from bbcu_cli.restoration.serving import Served
from bbcu_cli.score.metrics import Scores

EXPECTED = (BbcuError, OSError, MemoryError)  # what one bad file may raise; anything else is a bug and surfaces


@dataclass(frozen=True, slots=True)
class Given:
    """A job with what was seen of its files before any of them was read.

    Attributes:
        source: where to decode from; stdin is read into memory.
        stamp: of the source; None for stdin, and when the source is not there.
        result: what is known of its output.
        comparison: what is known of its side-by-side; "current" when none is wanted.
        need: memory; None when something is wrong with the image.
        served: its network, as far as the header tells it.
        frames: how many pictures of it are restored.
    """

    job: Job
    source: Path | bytes
    stamp: Stamp | None
    result: Verdict
    comparison: Verdict
    need: Footprint | None
    served: Served
    frames: int = 1

    @property
    def network(self) -> str:
        """Names of its networks; empty when none serves."""
        return " ".join(model.name for model in self.served.models)

    @property
    def finished(self) -> bool:
        """Nothing is left to be written."""
        return self.result == self.comparison == "current"


def look_at(job: Job, model: Model, settings: Settings, manifest: Manifest | None) -> Given:
    """Look at the files of a job; what is wrong with the image is found again, and told, when it is restored.

    Raises:
        UsageError: the job is known to be impossible, or with `existing` "skip", a file that bbcu did not make is in
            the way.
    """
    if job.error:
        raise UsageError(job.error)
    source = sys.stdin.buffer.read() if job.source is None else job.source
    settings = settings.of(job)
    stamp = None if job.source is None else stamp_of(job.source)
    served = settings.serve(source) if settings.serve else Served(model, "")
    beside = _comparison(job, settings)
    result = _verdict(job.output, stamp, manifest, settings, served.digest) if job.output else "absent"
    comparison = (
        _verdict(beside, _compared(job, stamp, settings), manifest, settings, served.digest) if beside else "current"
    )
    need, frames = None, 1
    with contextlib.suppress(*EXPECTED):
        info = probe(source, levels=settings.levels)
        frames = frames_of(job, info, settings)
        need = settings.footprint(job, info, served)
    return Given(job, source, stamp, result, comparison, need, served, frames)


def _comparison(job: Job, settings: Settings) -> Path | None:
    """Where its side-by-side is written, if one is wanted."""
    return compare_path(job.output) if settings.compare and job.output else None


def _compared(job: Job, stamp: Stamp | None, settings: Settings) -> Stamp | None:
    """The stamp of everything that a side-by-side is made from."""
    truth = () if settings.truths is None else stamp_of(settings.truths.paths[job])
    return None if stamp is None or truth is None else (*stamp, *truth)


def _verdict(
    path: Path, made_from: Stamp | None, manifest: Manifest | None, settings: Settings, network: str
) -> Verdict:
    if settings.existing != "skip" or manifest is None:
        return "absent"
    verdict = manifest.verdict(path, made_from, network)
    if verdict == "foreign":
        raise UsageError(f"{path} exists and is not known as an output of bbcu; move it or give --overwrite.")
    return verdict


def restore_one(given: Given, settings: Settings, manifest: Manifest | None, queue: EngineQueue) -> Row:
    """Restore an image, or look again at a result that is there.

    Raises:
        BbcuError, OSError, MemoryError: what was wrong with this image.
    """
    if given.result == "current":
        return _kept(given, settings.of(given.job), manifest)
    started, job = time.perf_counter(), given.job
    settings = settings.of(job)
    info = probe(given.source, name=job.name, levels=settings.levels)
    several = frames_of(job, info, settings) > 1
    settings.footprint(job, info, given.served)  # before anything is decoded
    if several:
        row, served = restore_frames(given, info, settings, queue, partial(_save, given, settings, manifest))
        return replace(row, **_remarks(served), notes=(*row.notes, *_unrecorded(job, manifest)))
    image = _decoded(given, settings)
    decoded = time.perf_counter()
    served = given.served.seen(image)
    sessions = [QueuedSession(queue, one.session) for one in served.models]
    models = [replace(one, session=session) for one, session in zip(served.models, sessions, strict=True)]
    tiles = settings.footprint(job, info, served).tiles if models else ()
    told = partial(settings.progress, job) if settings.progress else None
    quantisation = served.quantisation(given.source)
    bands = chained_bands(image, models, served.size(image.size), settings.options, tiles, told, quantisation)
    scores = None
    if settings.gathered:
        result = bands.whole()
        scores = _judged(given, (image, result), served, settings, manifest)
        bands = Bands.of(result)
    lost = losses(bands, settings.format, settings.encoding)
    content = partial(write, bands, settings.format, options=settings.encoding, threads=settings.threads)
    _save(given, settings, manifest, content, served)
    computing = sum(session.computing for session in sessions)
    rest = time.perf_counter() - decoded - computing - sum(session.waiting for session in sessions)
    return Row(
        job.name,
        str(job.output or STDIO),
        "done",
        seconds=computing,
        decode_seconds=decoded - started,
        encode_seconds=rest,
        size_in=image.size,
        size_out=bands.size,
        engine=str(sessions[0].info) if sessions else "",
        tile=", then ".join(map(str, tiles)),
        **_remarks(served),
        scores=scores,
        notes=(*job.notes, *image.notes, *lost, *_unrecorded(job, manifest)),
    )


def _decoded(given: Given, settings: Settings) -> Image:
    """The one picture of a job."""
    first, levels = settings.frames == "first", settings.levels
    return decode(given.source, max_pixels=settings.max_pixels, name=given.job.name, first=first, levels=levels)


def _unrecorded(job: Job, manifest: Manifest | None) -> tuple[str, ...]:
    """What is to be said of a record that could not be written."""
    return manifest.complaints(job.output.parent) if manifest and job.output else ()


def _remarks(served: Served) -> dict[str, Any]:
    """What a row, and the record of its output, say of the network."""
    name, noise = served.model.name if served.model else None, served.noise
    rounded = None if noise is None else round(noise, 1)
    return {"model": name, "way": served.way, "reason": served.reason, "noise": rounded}


def _number(factor: Fraction) -> float:
    return factor.numerator if factor.denominator == 1 else float(factor)


def _trusted(remarks: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record's remarks is what `_remarks` writes."""
    told: dict[str, Any] = {name: remarks[name] for name in ("model", "reason") if isinstance(remarks.get(name), str)}
    way, noise = remarks.get("way"), remarks.get("noise")
    if isinstance(way, (list, tuple)) and all(isinstance(step, str) for step in way):
        told["way"] = tuple(way)
    return told | ({"noise": noise} if isinstance(noise, float) and math.isfinite(noise) else {})


def _kept(given: Given, settings: Settings, manifest: Manifest | None) -> Row:
    """An output that is as this run would make it is scored, and gets the side-by-side that it lacks."""
    job = given.job
    remarks = manifest.remarks(job.output) if manifest and job.output else {}
    row = Row(job.name, str(job.output), "skipped", frames=given.frames, **_trusted(remarks), notes=job.notes)
    if job.output is None or (given.finished and settings.truths is None):
        return row
    result = decode(job.output, max_pixels=sys.maxsize)
    image = None if given.finished else _decoded(given, settings)
    served = given.served if image is None else given.served.seen(image)
    as_stored = settings.truths is not None and FORMATS[settings.format].lossy and not settings.encoding.lossless
    notes = (*job.notes, f"scored as the {settings.format} file holds it") if as_stored else job.notes
    return replace(row, scores=_judged(given, (image, result), served, settings, manifest), notes=notes)


def _judged(
    given: Given, images: tuple[Image | None, Image], served: Served, settings: Settings, manifest: Manifest | None
) -> Scores | None:
    """Score a result, and write its side-by-side if there is an image; the ground truth is given back after that."""
    truths, (image, result) = settings.truths, images
    truth = None
    if truths:
        truth = decode(truths.paths[given.job], max_pixels=settings.max_pixels, levels=settings.levels)
    scores = _score(truth, result, served, settings)
    if image is not None:
        _compare(given, (image, result, truth), served, settings, manifest)
    return scores


def _score(truth: Image | None, result: Image, served: Served, settings: Settings) -> Scores | None:
    if truth is None or settings.truths is None:
        return None
    from bbcu_cli.score.trial import score_images  # here and below: a plain restoration starts without these

    convention, factor = settings.truths.convention, max(served.factor, Fraction(1))
    if convention.border:  # as many pixels as the enlargement of this picture
        convention = replace(convention, border=math.ceil(factor))
    return score_images(truth, result, convention, factor)


def _compare(
    given: Given,
    images: tuple[Image, Image, Image | None],
    served: Served,
    settings: Settings,
    manifest: Manifest | None,
) -> None:
    """Write the side-by-side of input, result and ground truth, if one is wanted and not there."""
    path = _comparison(given.job, settings)
    if path is None or given.comparison == "current":
        return
    _require_unchanged(given)
    make_folder(path.parent)
    made_from = _compared(given.job, given.stamp, settings)
    from bbcu_cli.score.compare import side_by_side

    sheet = side_by_side(*images, label=", ".join(served.way) or "as it is")
    picture = encode(sheet, "PNG", settings.encoding)
    if manifest:
        manifest.begun(path, given.job.source, comparison=True)
    write_whole(path, picture, overwrite=settings.existing != "refuse")
    if manifest:
        manifest.done(path, made_from, given.served.digest, source=given.job.source, comparison=True)


def _require_unchanged(given: Given) -> None:
    """Raise an ImageError if the source is no longer the file that was read: nothing is put in place of that one."""
    if given.job.source and stamp_of(given.job.source) != given.stamp:
        raise ImageError(f"{given.job.source} changed while it was restored; restore it again")


def _save(
    given: Given, settings: Settings, manifest: Manifest | None, write_to: Callable[[BinaryIO], Any], served: Served
) -> None:
    """Write the result as its rows come."""
    job, output = given.job, given.job.output

    def content(file: BinaryIO) -> None:
        write_to(file)
        _require_unchanged(given)
        if manifest and output:
            manifest.begun(output, job.source)

    if output is None:
        memory = io.BytesIO()
        content(memory)
        sys.stdout.buffer.write(memory.getbuffer())
        sys.stdout.buffer.flush()
        return
    make_folder(output.parent)
    write_atomic(output, content, overwrite=settings.existing != "refuse")
    if settings.preserve_times and given.stamp:
        _, modified = given.stamp
        os.utime(output, ns=(modified, modified))
    if manifest and job.source:
        scale = {"scale": _number(served.factor)}  # for `bbcu eval`
        manifest.done(output, given.stamp, given.served.digest, _remarks(served) | scale, source=job.source)
