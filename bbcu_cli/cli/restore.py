"""`bbcu sr`, `bbcu denoise`, `bbcu deblock`: images in, restored images out."""

from __future__ import annotations

import enum
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbcu_cli.cli.console import note, shown
from bbcu_cli.cli.options import PIXELS, EngineOptions, FileOptions, NetworkOptions, TalkOptions
from bbcu_cli.errors import ImageError, UsageError

if TYPE_CHECKING:
    from bbcu_cli.batch.jobs import JobList
    from bbcu_cli.batch.settings import Row, Served, Settings, Truths
    from bbcu_cli.hub import Catalogue
    from bbcu_cli.restoration.choice import Wish
    from bbcu_cli.restoration.model import Model, Shelf
    from bbcu_cli.restoration.planes import Chroma
    from bbcu_cli.score.metrics import Scores

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT", help="Image files, folders, patterns, or - for stdin.", show_default=False),
]


class ModelChoice(str, enum.Enum):
    """--model of super-resolution."""

    m = "m"
    l = "l"  # noqa: E741 - the published name


class ChromaChoice(str, enum.Enum):
    """--chroma."""

    keep = "keep"
    restore = "restore"


@dataclass(frozen=True, slots=True)
class _Request:
    """What tells the three commands apart."""

    wish: Wish
    tag: str
    chroma: Chroma = "restore"


def sr(
    inputs: Inputs,
    scale: Annotated[int, typer.Option("--scale", "-s", help="2, 3 or 4.", envvar="BBCU_SCALE")] = 4,
    model: Annotated[
        ModelChoice, typer.Option("--model", "-m", help="m is fast, l is larger and slower.")
    ] = ModelChoice.m,
    network: NetworkOptions = NetworkOptions(),
    files: FileOptions = FileOptions(),
    engine: EngineOptions = EngineOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Enlarge images 2, 3 or 4 times.

    Examples:

    bbcu sr photo.jpg --scale 4

    bbcu sr holiday/ --scale 2 -o large/ --recursive
    """
    from bbcu_cli.restoration.choice import Wish
    from bbcu_cli.spec import SCALES

    if scale not in SCALES:
        raise UsageError(f"--scale is {scale}; there are networks for 2, 3 and 4.")
    wish = Wish("sr", scale, model.value, input=network.input.value)
    _restore(inputs, _Request(wish, f"_x{scale}"), files, engine, talk)


def denoise(
    inputs: Inputs,
    sigma: Annotated[
        float | None,
        typer.Option(help="Noise level in 8-bit units; default: unknown, one network for all levels.", min=0),
    ] = None,
    network: NetworkOptions = NetworkOptions(),
    files: FileOptions = FileOptions(),
    engine: EngineOptions = EngineOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Remove noise from images.

    Examples:

    bbcu denoise photo.jpg

    bbcu denoise --sigma 25 folder/
    """
    from bbcu_cli.restoration.choice import Wish

    wish = Wish("denoise", sigma=sigma, input=network.input.value)
    _restore(inputs, _Request(wish, "_denoised"), files, engine, talk)


def deblock(
    inputs: Inputs,
    chroma: Annotated[
        ChromaChoice,
        typer.Option(
            help="Restore the chroma too (slightly better), or keep it (3 times as fast).",
            rich_help_panel=PIXELS,
        ),
    ] = ChromaChoice.restore,
    network: NetworkOptions = NetworkOptions(),
    files: FileOptions = FileOptions(),
    engine: EngineOptions = EngineOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Remove the blocks and ringing of JPEG compression.

    Examples:

    bbcu deblock photo.jpg

    bbcu deblock scans/ -o clean/ --chroma keep
    """
    from bbcu_cli.restoration.choice import Wish

    wish = Wish("deblock", input=network.input.value)
    _restore(inputs, _Request(wish, "_deblocked", chroma.value), files, engine, talk)


def _restore(
    inputs: list[str], request: _Request, files: FileOptions, engine: EngineOptions, talk: TalkOptions
) -> None:
    """What the three commands share: parse, run the batch, print."""
    from bbcu_cli.batch import settings as batch
    from bbcu_cli.batch.jobs import compare_path, plan_jobs, refuse_existing
    from bbcu_cli.batch.manifest import Manifest
    from bbcu_cli.batch.run import run
    from bbcu_cli.hub import Catalogue
    from bbcu_cli.restoration.choice import preferred
    from bbcu_cli.restoration.model import Shelf

    if files.overwrite and files.skip_existing:
        raise UsageError("--overwrite and --skip-existing exclude each other.")
    form, extension = _output_format(files)
    listing = plan_jobs(
        inputs, files.output, tag=request.tag, suffix=files.suffix, extension=extension, recursive=files.recursive
    )
    outputs = [job.output for job in listing.jobs if job.output]
    if len(outputs) < len(listing.jobs):
        _check_stdout(talk)
    if talk.compare:
        outputs += [compare_path(output) for output in outputs]
    if not (files.overwrite or files.skip_existing or files.dry_run):
        refuse_existing(outputs)
    truths = _truths(listing, request, talk.gt) if talk.gt else None
    wish, catalogue = request.wish, Catalogue.load()
    with Shelf(lambda name: engine.load(name, wish.task, wish.scale)) as shelf:
        model = shelf[preferred(wish, catalogue)]
        settings = batch.Settings(
            options=engine.options(request.chroma),
            encoding=files.encoding(),
            format=form,
            max_pixels=files.max_pixels,
            existing="skip" if files.skip_existing else "overwrite" if files.overwrite else "refuse",
            fail_fast=files.fail_fast,
            truths=truths,
            compare=talk.compare,
            threads=engine.threads,
            serve=None if engine.weights else partial(_serve, wish, catalogue, shelf),
        )
        if files.dry_run:
            _print_plan(listing, model, settings, as_json=talk.json)
            return
        remember = listing.batch or files.skip_existing
        digest = model.sha256 if engine.weights else ""  # else it is part of each file's own record
        manifest = Manifest(batch.options_key(digest, settings)) if remember else None
        with _reporter(listing, talk) as report:
            rows = []
            for row in run(listing.jobs, model, settings, manifest):
                rows.append(row)
                report(row)
    _conclude(rows, listing, talk)


def _check_stdout(talk: TalkOptions) -> None:
    """Image bytes have stdout for themselves."""
    if sys.stdout.isatty():
        raise UsageError("Image bytes are not written to a terminal; give --output or redirect stdout.")
    if talk.json or talk.compare:
        raise UsageError(f"The image goes to stdout; {'--json' if talk.json else '--compare'} needs an --output file.")


def _output_format(files: FileOptions) -> tuple[str, str | None]:
    """Name of the output format, and the extension of the outputs if --format sets it."""
    from bbcu_cli.image.formats import FORMATS, SUFFIXES, format_of

    output = Path(files.output or "")
    named = format_of(output) if output.suffix.lower() in SUFFIXES and not output.is_dir() else None
    if files.format is None:
        return named or "PNG", None
    extension = f".{files.format.lower().removeprefix('.')}"
    name = SUFFIXES.get(extension)
    if name is None or not FORMATS[name].writable or extension in FORMATS[name].read_suffixes:
        known = ", ".join(form.suffixes[0].removeprefix(".") for form in FORMATS.values() if form.writable)
        raise UsageError(f"--format {files.format} is unknown; give one of {known}.")
    if named not in (None, name):
        raise UsageError(f"--format {files.format} and --output {files.output} ask for different formats.")
    return name, extension


def _truths(listing: JobList, request: _Request, gt: str) -> Truths:
    """The ground truth of every input, found by name before any work begins.

    Raises:
        UsageError: an input has none.
    """
    from bbcu_cli.batch.settings import Truths
    from bbcu_cli.score.trial import by_stem, convention_of, find_truth, images_at

    found = images_at(Path(gt))
    if len(listing.jobs) == 1 and Path(gt).is_file():
        paths = {listing.jobs[0]: found[0]}
    else:
        stems = by_stem(found)
        paths = {job: path for job in listing.jobs if job.source and (path := find_truth(job.source.stem, stems))}
    if alone := [job.name for job in listing.jobs if job not in paths]:
        raise UsageError(f"No ground truth in {gt!r} for {alone[0]} ({len(alone)} in all).")
    return Truths(paths, convention_of(request.wish.task, request.wish.scale))


def _serve(wish: Wish, catalogue: Catalogue, shelf: Shelf, source: Path | bytes) -> Served:
    """The network that a file asks for, opened."""
    from bbcu_cli.batch.settings import Served
    from bbcu_cli.image.compression import compression_of
    from bbcu_cli.restoration.choice import choose

    choice = choose(wish, compression_of(source), catalogue)
    return Served(None if choice.model is None else shelf[choice.model], choice.reason)


def _size_text(size: tuple[int, int] | None) -> str:
    """(height, width) as people write it."""
    return "?" if size is None else f"{size[1]}x{size[0]}"


def _print_plan(listing: JobList, model: Model, settings: Settings, *, as_json: bool) -> None:
    """--dry-run: every file with its sizes, its network, its tile and an estimate of the memory."""
    from bbcu_cli.batch.settings import Served
    from bbcu_cli.image import probe

    for job in listing.jobs:
        if job.source is None:
            raise UsageError("--dry-run cannot look into stdin.")
        row: dict[str, Any] = {"schema": 1, "source": job.name, "output": str(job.output or "-")}
        try:
            info = probe(job.source)
            served = settings.serve(job.source) if settings.serve else Served(model, "--weights")
            footprint = settings.footprint(job, info, served.model)
        except ImageError as error:
            row |= {"status": "unreadable", "error": str(error)}
        except UsageError as error:
            row |= {"status": "too large", "error": str(error)}
        else:
            scale = model.spec.scale
            exists = job.output is not None and job.output.exists()
            row |= {
                "status": "exists" if exists else "planned",
                "input_size": info.size,
                "output_size": (info.size[0] * scale, info.size[1] * scale),
                "tile": str(footprint.tile),
                "memory_bytes": footprint.peak,
                "model": served.model.name if served.model else None,
                "reason": served.reason,
            }
        if as_json:
            print(json.dumps(row))
        elif "error" in row:
            print(shown(f"{job.name}: {row['error']}"))
        else:
            sizes = f"{_size_text(row['input_size'])} to {_size_text(row['output_size'])}, {_network_text(row)}"
            print(
                shown(
                    f"{job.name} -> {row['output']}  ({sizes}, tile {row['tile']}, about {row['memory_bytes'] >> 20} MB"
                )
                + (", exists)" if row["status"] == "exists" else ")")
            )
    for path in listing.passed_over:
        note(f"not an image by its name, passed over: {path}")


def _network_text(row: Mapping[str, Any]) -> str:
    """The network that serves, and why."""
    name = row["model"] or "left as it is"
    return f"{name}: {row['reason']}" if row["reason"] else name


def _scores_text(scores: Scores) -> str:
    return f"PSNR {scores.psnr_y:.2f} dB (Y), {scores.psnr_rgb:.2f} dB (RGB), SSIM {scores.ssim_y:.4f} (Y)"


def _failure_text(row: Row) -> str:
    return f"failed: {row.error}" if row.source in row.error else f"failed: {row.source}: {row.error}"


def _row_text(row: Row) -> str:
    if row.status == "failed":
        return _failure_text(row)
    if row.status == "skipped":
        text = f"{row.source}: {row.output} is up to date"
    else:
        sizes = f"{_size_text(row.size_in)} to {_size_text(row.size_out)}"
        network = _network_text({"model": row.model, "reason": row.reason})
        text = f"{row.source} -> {row.output}  ({sizes}, {row.seconds:.2f} s, {network})"
    if row.scores:
        text += f"  {_scores_text(row.scores)}"
    return "".join([text, *(f"\n  {line}" for line in row.notes)])


def _row_json(row: Row) -> str:
    fields = {"schema": 1, **asdict(row)}
    fields["input_size"], fields["output_size"] = fields.pop("size_in"), fields.pop("size_out")
    if row.scores:
        finite = {k: v if v is None or math.isfinite(v) else None for k, v in asdict(row.scores).items()}
        fields["scores"] = finite | {"identical": math.isinf(row.scores.psnr_rgb)}
    return json.dumps(fields)


@contextmanager
def _reporter(listing: JobList, talk: TalkOptions) -> Iterator[Callable[[Row], None]]:
    """What to call with every finished row: a progress bar by pixels on a terminal, lines elsewhere."""

    def speak(row: Row) -> None:
        if talk.json:
            print(_row_json(row), flush=True)
        elif not talk.quiet or row.status == "failed":
            for line in _row_text(row).splitlines():
                note(line)

    if talk.quiet or talk.json or len(listing.jobs) == 1 or not sys.stderr.isatty():
        yield speak
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    weights = _pixel_counts(listing)
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=sum(weights.values()), name="")
        finished = 0

        def advance(row: Row) -> None:
            nonlocal finished
            finished += 1
            for line in _row_text(row).splitlines():
                progress.console.print(escape(shown(line)), style="red" if row.status == "failed" else "")
            progress.update(bar, advance=weights[row.source], name=f"{finished}/{len(listing.jobs)} files")

        yield advance


def _pixel_counts(listing: JobList) -> dict[str, int]:
    """Pixels of every input by name, from the headers; 1 for what cannot be told."""
    from bbcu_cli.image import probe

    counts = {}
    for job in listing.jobs:
        try:
            counts[job.name] = probe(job.source).pixels if job.source else 1
        except (ImageError, OSError):
            counts[job.name] = 1
    return counts


def _conclude(rows: list[Row], listing: JobList, talk: TalkOptions) -> None:
    """Mean scores, a summary, the failures once more, and the exit code."""
    from bbcu_cli.score.metrics import mean_scores

    failed = [row for row in rows if row.status == "failed"]
    scored = [row.scores for row in rows if row.scores]
    if len(scored) > 1 and not talk.json and not talk.quiet:
        mean = mean_scores(scored)
        note(f"mean of {len(scored)}: {_scores_text(mean)}")
    if listing.batch and not talk.quiet:
        counts = {status: sum(row.status == status for row in rows) for status in ("done", "skipped", "failed")}
        note(", ".join([f"{n} {status}" for status, n in counts.items()] + [f"{len(listing.passed_over)} not images"]))
    if not failed:
        return
    if listing.batch:
        for row in failed:
            note(_failure_text(row))
        raise typer.Exit(1)
    # One input that is bad is bad input: the sentence was printed, the code says the same.
    raise typer.Exit(2)
