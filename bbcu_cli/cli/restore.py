"""`bbcu sr`, `bbcu denoise`, `bbcu deblock`: images in, restored images out."""

from __future__ import annotations

import enum
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbcu_cli.cli.console import note, shown
from bbcu_cli.cli.options import PIXELS, EngineOptions, FileOptions, FleetOptions, NetworkOptions, TalkOptions
from bbcu_cli.cli.request import Request
from bbcu_cli.cli.rows import SCHEMA, failure_text, plan_text, scores_text, size_json
from bbcu_cli.cli.size import SizeOptions
from bbcu_cli.cli.streams import stdout_is_closed
from bbcu_cli.errors import ImageError, UsageError

if TYPE_CHECKING:
    from bbcu_cli.batch.jobs import Job, JobList
    from bbcu_cli.batch.settings import Row, Settings, Truths
    from bbcu_cli.image import Image, ImageInfo
    from bbcu_cli.restoration.choice import Wish
    from bbcu_cli.restoration.model import Model

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT", help="Image files, folders, patterns, or - for stdin.", show_default=False),
]


Strength = Annotated[
    float,
    typer.Option(
        help="How far to go from the input (0) to the result (1); less keeps more grain.",
        min=0,
        max=1,
        rich_help_panel=PIXELS,
    ),
]


class ModelChoice(str, enum.Enum):
    """--model of super-resolution."""

    m = "m"
    l = "l"  # noqa: E741 - the published name


class ChromaChoice(str, enum.Enum):
    """--chroma."""

    keep = "keep"
    restore = "restore"


def sr(
    inputs: Inputs,
    model: Annotated[
        ModelChoice, typer.Option("--model", "-m", help="m is fast, l is larger and slower.")
    ] = ModelChoice.m,
    size: SizeOptions = SizeOptions(),
    network: NetworkOptions = NetworkOptions(),
    files: FileOptions = FileOptions(),
    engine: EngineOptions = EngineOptions(),
    fleet: FleetOptions = FleetOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Enlarge images to any size up to 16 times.

    Examples:

    bbcu sr photo.jpg --scale 4

    bbcu sr photo.jpg --fit 3840x2160

    bbcu sr holiday/ --scale 2 -o large/ --recursive
    """
    from bbcu_cli.hub import Catalogue
    from bbcu_cli.restoration.choice import Wish, hardly_pays

    target, tag = size.target()
    wish = Wish("sr", size.whole or 2, model.value, input=network.input.value)
    if not (engine.weights or talk.quiet) and (line := hardly_pays(wish, Catalogue.load())):
        note(line)
    _restore(inputs, Request(wish, tag, target=None if size.whole else target), files, engine, fleet, talk)


def denoise(
    inputs: Inputs,
    sigma: Annotated[
        float | None,
        typer.Option(help="Noise level in 8-bit units; default: unknown, and estimated.", min=0),
    ] = None,
    strength: Strength = 1,
    network: NetworkOptions = NetworkOptions(),
    files: FileOptions = FileOptions(),
    engine: EngineOptions = EngineOptions(),
    fleet: FleetOptions = FleetOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Remove noise from images.

    Examples:

    bbcu denoise photo.jpg

    bbcu denoise --sigma 25 folder/

    bbcu denoise photo.jpg --strength 0.7
    """
    from bbcu_cli.restoration.choice import Wish

    wish = Wish("denoise", sigma=sigma, input=network.input.value)
    _restore(inputs, Request(wish, "_denoised", strength=strength), files, engine, fleet, talk)


def deblock(
    inputs: Inputs,
    chroma: Annotated[
        ChromaChoice,
        typer.Option(
            help="Restore the chroma too, or keep it.",
            rich_help_panel=PIXELS,
        ),
    ] = ChromaChoice.restore,
    strength: Strength = 1,
    network: NetworkOptions = NetworkOptions(),
    files: FileOptions = FileOptions(),
    engine: EngineOptions = EngineOptions(),
    fleet: FleetOptions = FleetOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Remove the blocks and ringing of JPEG compression.

    Examples:

    bbcu deblock photo.jpg

    bbcu deblock scans/ -o clean/ --chroma keep
    """
    from bbcu_cli.restoration.choice import Wish

    wish = Wish("deblock", input=network.input.value)
    _restore(inputs, Request(wish, "_deblocked", chroma.value, strength), files, engine, fleet, talk)


def _restore(
    inputs: list[str],
    request: Request,
    files: FileOptions,
    engine: EngineOptions,
    fleet: FleetOptions,
    talk: TalkOptions,
) -> None:
    """What the three commands share: parse, run the batch, print."""
    from bbcu_cli.batch.jobs import SAME, compare_path, plan_jobs, refuse_existing
    from bbcu_cli.batch.run import run
    from bbcu_cli.cli.fleet import restore_archive
    from bbcu_cli.cli.progress import report
    from bbcu_cli.fleet.shop import Shop
    from bbcu_cli.fleet.stores import is_url

    if files.overwrite and files.skip_existing:
        raise UsageError("--overwrite and --skip-existing exclude each other.")
    form, extension = _output_format(files)
    if fleet.cluster or any(map(is_url, [*inputs, files.output or ""])):
        restore_archive(inputs, request, (form, extension), (files, engine, fleet, talk))
        return
    listing = plan_jobs(
        inputs,
        files.output,
        tag=request.tag,
        suffix=files.suffix,
        extension=extension,
        recursive=files.recursive,
        exclude=files.exclude or (),
    )
    if form == SAME and any(job.source is None or job.output is None for job in listing.jobs):
        raise UsageError("--format same is for files; for stdin and stdout, name the format.")
    if listing.results and not talk.quiet:
        note(listing.left_out)
    outputs = [job.output for job in listing.possible if job.output]
    if len(outputs) < len(listing.possible):
        _check_stdout(talk)
    if talk.compare:
        outputs += [compare_path(output) for output in outputs]
    if not (files.overwrite or files.skip_existing or files.dry_run):
        refuse_existing(outputs)
    truths = _truths(listing, request.wish, Path(talk.gt), recursive=files.recursive) if talk.gt else None
    plan = request.plan(form, files, engine, talk)
    with Shop(plan, note) as shop:
        settings = replace(shop.settings, truths=truths)
        if files.dry_run:
            _print_plan(listing, shop.model, settings, as_json=talk.json)
            return
        if any(job.source is None for job in listing.jobs) and sys.stdin.isatty():
            note("waiting for an image on standard input, from a pipe or a file (`< photo.jpg`); Ctrl-C ends it.")
        with report(listing, talk, frames=settings.frames, levels=settings.levels) as reporter:
            rows = []
            for row in run(listing.jobs, shop.model, replace(settings, progress=reporter.advance), shop.manifest):
                rows.append(row)
                reporter.finish(row)
    _conclude(rows, listing, talk)


def _check_stdout(talk: TalkOptions) -> None:
    """Image bytes have stdout for themselves."""
    if stdout_is_closed():
        raise UsageError("The image would go to stdout, which is closed; give --output.")
    if sys.stdout.isatty():
        raise UsageError("Image bytes are not written to a terminal; give --output or redirect stdout.")
    if talk.json or talk.compare:
        raise UsageError(f"The image goes to stdout; {'--json' if talk.json else '--compare'} needs an --output file.")


def _output_format(files: FileOptions) -> tuple[str, str | None]:
    """Name of the output format, and the extension of the outputs if --format sets it."""
    from bbcu_cli.batch.jobs import SAME
    from bbcu_cli.image.formats import FORMATS, SUFFIXES, format_of

    output = Path(files.output or "")
    named = format_of(output) if output.suffix.lower() in SUFFIXES and not output.is_dir() else None
    if files.format is None:
        return named or "PNG", None
    if files.format.lower() == SAME:
        return (named, None) if named else (SAME, SAME)
    extension = f".{files.format.lower().removeprefix('.')}"
    name = SUFFIXES.get(extension)
    if name is None or not FORMATS[name].writable or extension in FORMATS[name].read_suffixes:
        known = ", ".join(form.suffixes[0].removeprefix(".") for form in FORMATS.values() if form.writable)
        raise UsageError(f"--format {files.format} is unknown; give one of {known}, or same.")
    if named not in (None, name):
        raise UsageError(f"--format {files.format} and --output {files.output} ask for different formats.")
    return name, extension


def _truths(listing: JobList, wish: Wish, gt: Path, *, recursive: bool) -> Truths:
    """The ground truth of every input, found by its place in the folder before any work begins.

    Raises:
        UsageError: an input has none.
    """
    from bbcu_cli.batch.settings import Truths
    from bbcu_cli.score.pairs import find_truth, truths_at
    from bbcu_cli.score.trial import convention_of

    jobs = listing.possible
    if len(jobs) == 1 and gt.is_file():
        paths = {jobs[0]: gt}
    else:
        truths = truths_at(gt, recursive=recursive)
        paths = {job: path for job in jobs if job.source and (path := find_truth(job.place, truths))}
    if alone := [job.name for job in jobs if job not in paths]:
        raise UsageError(f"No ground truth in {str(gt)!r} for {alone[0]} ({len(alone)} in all).")
    return Truths(paths, convention_of(wish.task, wish.scale))


def _print_plan(listing: JobList, model: Model, settings: Settings, *, as_json: bool) -> None:
    """--dry-run: every file with its sizes, its network, its tile and an estimate of the memory."""
    from bbcu_cli.batch.sequence import frames_of
    from bbcu_cli.restoration.serving import Served

    for job in listing.jobs:
        if job.source is None:
            raise UsageError("--dry-run cannot look into stdin.")
        row: dict[str, Any] = {"schema": SCHEMA, "source": job.name, "output": str(job.output or "-")}
        try:
            info = _probe(job, settings)
            frames = frames_of(job, info, settings)
            served = settings.serve(job.source) if settings.serve else Served(model, "")
            footprint = settings.of(job).footprint(job, info, served)
            if served.look:
                served = served.seen(_first_picture(job, info, settings))
        except ImageError as error:
            row |= {"status": "unreadable", "error": str(error)}
        except UsageError as error:
            row |= {"status": "too large", "error": str(error)}
        else:
            exists = job.output is not None and job.output.exists()
            row |= {
                "status": "exists" if exists else "planned",
                "input_size": size_json(info.size),
                "output_size": size_json(served.size(info.size)),
                "frames": frames,
                "tile": ", then ".join(map(str, footprint.tiles)),
                "memory_bytes": footprint.peak,
                "model": served.model.name if served.model else None,
                "way": served.way,
                "reason": served.reason,
                "noise": None if served.noise is None else round(served.noise, 1),
            }
        if as_json:
            print(json.dumps(row))
        else:
            print(shown(plan_text(row)))
    for path in listing.skipped:
        note(f"not an image by its name, skipped: {path}")


def _first_picture(job: Job, info: ImageInfo, settings: Settings) -> Image:
    """The picture that chooses the network of a file."""
    from bbcu_cli.batch.sequence import frames_of
    from bbcu_cli.image.decode import decode, open_frames

    source, most, levels = job.source or b"", settings.max_pixels, settings.levels
    if frames_of(job, info, settings) < 2:
        return decode(source, max_pixels=most, name=job.name, first=True, levels=levels)
    with open_frames(source, max_pixels=most, name=job.name, levels=levels) as frames:
        return next(frames.each).image


def _probe(job: Job, settings: Settings) -> ImageInfo:
    """The header of a file that may be restored."""
    from bbcu_cli.image import probe

    if job.error or job.source is None:
        raise ImageError(job.error)
    return probe(job.source, levels=settings.levels)


def _conclude(rows: list[Row], listing: JobList, talk: TalkOptions) -> None:
    """Mean scores, a summary, the failures once more, and the exit code."""
    from bbcu_cli.score.metrics import mean_scores

    failed = [row for row in rows if row.status == "failed"]
    scored = [row.scores for row in rows if row.scores]
    if len(scored) > 1 and not talk.json and not talk.quiet:
        mean = mean_scores(scored)
        note(f"mean of {len(scored)}: {scores_text(mean)}")
    if listing.batch and not talk.quiet:
        counts = {status: sum(row.status == status for row in rows) for status in ("done", "skipped", "failed")}
        note(", ".join([f"{n} {status}" for status, n in counts.items()] + [f"{len(listing.skipped)} not images"]))
    if not failed:
        return
    if listing.batch:
        for row in failed:
            note(failure_text(row))
        raise typer.Exit(1)
    # One input that is bad is bad input: the sentence was printed, the code says the same.
    raise typer.Exit(2)
