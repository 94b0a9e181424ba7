"""`bbcu eval`: results against ground truth, or a column of the paper's tables in one command."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.cli.console import note
from bbcu_cli.cli.options import TALK, EngineOptions
from bbcu_cli.cli.restore import ModelChoice
from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.restoration.choice import Wish
    from bbcu_cli.restoration.serving import Restorer
    from bbcu_cli.score.html import Views
    from bbcu_cli.score.pairs import Pair
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import Evaluated, Trial
    from bbcu_cli.spec import Task

TRIAL = "Restore and score"
FORMS = "Reports"


class TaskChoice(str, enum.Enum):
    """--task."""

    sr = "sr"
    denoise = "denoise"
    deblock = "deblock"


OWNERS = {
    "scale": (TaskChoice.sr,),
    "model": (TaskChoice.sr,),
    "sigma": (TaskChoice.denoise,),
    "quality": (TaskChoice.deblock,),
    "colour": (TaskChoice.deblock,),
    "jpeg": (TaskChoice.sr, TaskChoice.denoise),
}


@dataclass(frozen=True)
class TrialOptions:
    """What to restore and score."""

    task: Annotated[
        TaskChoice | None,
        typer.Option(help="Degrade the ground truth, restore it and score it.", rich_help_panel=TRIAL),
    ] = None
    scale: Annotated[
        int | None,
        typer.Option(
            "--scale",
            "-s",
            help="For --task sr: 2, 3 or 4 (default). For --pred: that of the results.",
            rich_help_panel=TRIAL,
        ),
    ] = None
    model: Annotated[
        ModelChoice | None,
        typer.Option("--model", "-m", help="For --task sr: m (default) or l.", rich_help_panel=TRIAL),
    ] = None
    sigma: Annotated[
        float | None, typer.Option(help="For --task denoise: noise in 8-bit units.", min=0, rich_help_panel=TRIAL)
    ] = None
    quality: Annotated[
        int | None, typer.Option(help="For --task deblock: JPEG quality.", min=1, max=100, rich_help_panel=TRIAL)
    ] = None
    colour: Annotated[
        bool | None,
        typer.Option(
            "--colour", help="For --task deblock: a colour JPEG, not the paper's luma.", rich_help_panel=TRIAL
        ),
    ] = None
    jpeg: Annotated[
        int | None,
        typer.Option(
            help="For --task sr and denoise: save the input as a colour JPEG of this quality.",
            min=1,
            max=100,
            rich_help_panel=TRIAL,
        ),
    ] = None
    input: Annotated[
        Path | None,
        typer.Option(
            help="Restore these files, paired with --gt by name, in place of degraded ones.", rich_help_panel=TRIAL
        ),
    ] = None

    def wish(self) -> Wish:
        """What the command line would be asked for."""
        from bbcu_cli.restoration.choice import Wish

        task: Task = (self.task or TaskChoice.sr).value
        sigma = self.sigma if self.input else None  # noise that bbcu adds is for the networks to find
        return Wish(task, _scale(self) if task == "sr" else 1, (self.model or ModelChoice.m).value, sigma)


@dataclass(frozen=True)
class PairOptions:
    """Which file of --pred or --input belongs to which of --gt."""

    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", "-r", help="Pair the pictures of sub-folders as well.")
    ] = False
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Pair where names differ: '{name}_out' for results of NAME.png, or a regular expression "
            "for what both names share, such as '\\d+'.",
            show_default=False,
        ),
    ] = None

    def pairs(self, gt: Path, others: Path) -> list[Pair]:
        """Those of two files or folders; errors as of `pair`."""
        from bbcu_cli.score.pairs import images_at, pair

        pairs = pair(gt, others, recursive=self.recursive, pattern=self.pattern)
        if not self.recursive and (below := len(images_at(others, recursive=True)) - len(images_at(others))):
            note(f"{below} in sub-folders of {others} left out; --recursive pairs them as well.")
        return pairs


@dataclass(frozen=True)
class FormOptions:
    """Where the figures go."""

    json: Annotated[bool, typer.Option("--json", help="Print a JSON object on stdout.", rich_help_panel=FORMS)] = False
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file.", rich_help_panel=FORMS)] = None
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown table.", rich_help_panel=FORMS)] = None
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with before/after sliders.", rich_help_panel=FORMS)
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--no-overwrite", help="Replace existing reports.", rich_help_panel=FORMS)
    ] = False

    @property
    def files(self) -> list[Path]:
        """Reports that are to be written."""
        return [path for path in (self.csv, self.markdown, self.report) if path]


def evaluate(
    gt: Annotated[Path, typer.Option(help="Ground truth: a folder, or one image.", show_default=False)],
    pred: Annotated[Path | None, typer.Option(help="Results to score, paired with --gt by name.")] = None,
    border: Annotated[str, typer.Option(help="Pixels ignored along the edges; auto: as many as the scale.")] = "auto",
    pairing: PairOptions = PairOptions(),
    trial: TrialOptions = TrialOptions(),
    engine: EngineOptions = EngineOptions(),
    forms: FormOptions = FormOptions(),
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no line per image.", rich_help_panel=TALK)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.", rich_help_panel=TALK)] = False,  # noqa: ARG001 - the wrapper reads it
) -> None:
    """Measure PSNR and SSIM, and print the convention used.

    Examples:

    bbcu eval --gt hr/ --pred results_x4/

    bbcu eval --gt Set5/ --task sr --scale 4 --model m --report report.html

    bbcu eval --gt Kodak24/ --task denoise --sigma 25 --json

    bbcu eval --gt Set14/ --task sr --scale 2 --jpeg 75

    bbcu eval --gt mean/ --input noisy/ --task denoise
    """
    if (pred is None) == (trial.task is None):
        raise UsageError("Give either --pred (score existing results) or --task (restore and score).")
    _check_trial(trial, scored=pred is not None)
    if trial.task is not None and not trial.input and pairing != PairOptions():
        raise UsageError("--recursive and --pattern pair files; with --task they need --input.")
    _check_forms(forms)
    with ExitStack() as stack:
        restorer = None
        if pred:
            report, images = _comparison(gt, pred, _pixels(border), trial.scale, pairing)
        elif trial.input or trial.colour or trial.jpeg is not None:
            restorer = _restorer(trial, engine, stack)
            report, images = _of_files(gt, trial, _pixels(border), restorer, pairing)
        else:
            report, images = _trial(gt, trial, _pixels(border), engine, stack)
        report, views = _collected(report, images, with_views=forms.report is not None, quiet=quiet)
        if restorer:
            report = replace(report, facts=(("model", restorer.told), *report.facts))
    _publish(report, views, forms)


def _check_trial(trial: TrialOptions, *, scored: bool) -> None:
    """Refuse options that cannot be meant together."""
    if scored and trial.scale is not None and trial.scale < 1:
        raise UsageError(f"--scale is {trial.scale}, expected at least 1.")
    for option, tasks in OWNERS.items():
        if scored and option == "scale":
            continue
        if getattr(trial, option) is not None and trial.task not in tasks:
            raise UsageError(f"--{option} is for --task {' or '.join(task.value for task in tasks)}.")
    if trial.input:
        if trial.task is None:
            raise UsageError("--input needs --task, which says how to restore it.")
        for option in ("jpeg", "quality", "colour"):
            if getattr(trial, option) is not None:
                raise UsageError(f"--{option} degrades the ground truth; with --input there is nothing to degrade.")


def _pixels(border: str) -> int | None:
    if border == "auto":
        return None
    if not border.isdecimal():
        raise UsageError(f"--border is {border!r}; give auto or a number of pixels.")
    return int(border)


def _check_forms(forms: FormOptions) -> None:
    """Refuse before any work what could not be written after it."""
    for path in forms.files:
        if not path.parent.is_dir():
            raise UsageError(f"Folder {str(path.parent)!r} for {path.name} does not exist.")
        if path.exists() and not forms.overwrite:
            raise UsageError(f"{path} exists; give --overwrite to replace it.")


def _comparison(
    gt: Path, pred: Path, border: int | None, scale: int | None, pairing: PairOptions
) -> tuple[Report, Iterator[Evaluated]]:
    """A report without rows yet, and the images that will fill it."""
    from bbcu_cli.score.metrics import Convention
    from bbcu_cli.score.pairs import check_sizes, find_scale
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import convention_of, evaluate_pairs

    pairs = pairing.pairs(gt, pred)
    found = find_scale(pairs, given=scale, recorded=_recorded_scale(pairs))
    cropped = check_sizes(pairs, found.factor)
    convention = convention_of("sr", found.factor) if found.factor > 1 else Convention(gray_is_luma=True)
    if border is not None:
        convention = replace(convention, border=border)
    title = f"{_name(pred)} against {_name(gt)}"
    facts = (("scale", "; ".join((str(found), *cropped))),)
    return Report(title, convention, (), facts=facts), evaluate_pairs(pairs, convention, found.factor)


def _recorded_scale(pairs: list[Pair]) -> int | None:
    """The scale that the records beside the results tell, if all are as bbcu made them and of one scale."""
    from bbcu_cli.batch.manifest import Manifest
    from bbcu_cli.spec import SCALES

    record = Manifest("")
    told = [record.remarks(one.restored).get("scale") if record.known(one.restored) else None for one in pairs]
    return next((scale for scale in (1, *SCALES) if all(one == scale for one in told)), None)


def _trial(
    gt: Path, options: TrialOptions, border: int | None, engine: EngineOptions, stack: ExitStack
) -> tuple[Report, Iterator[Evaluated]]:
    """As `_comparison`; `stack` closes the model."""
    from bbcu_cli.restoration.pipeline import run_tiled
    from bbcu_cli.score.pairs import images_at
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import evaluate_trial

    trial, name = _requested(options)
    trial = replace(trial, border=border)
    truths = images_at(gt)
    model = stack.enter_context(engine.load(name, trial.task, trial.scale))
    wish = engine.options()
    info = model.session.info
    facts = (("model", model.name), ("engine", f"{info.name} on {info.device}, {info.detail}"))
    report = Report(f"{trial.task} {trial.strength} on {_name(gt)}", trial.convention, (), trial.baseline, facts)
    return report, evaluate_trial(trial, truths, lambda x: run_tiled(model, x, wish))


def _restorer(options: TrialOptions, engine: EngineOptions, stack: ExitStack) -> Restorer:
    """What restores files as the command line does by default; `stack` closes its networks."""
    from bbcu_cli.hub import Catalogue
    from bbcu_cli.restoration.model import Shelf
    from bbcu_cli.restoration.serving import Restorer, serve, serve_all

    wish = options.wish()
    shelf = stack.enter_context(Shelf(lambda name: engine.load(name, wish.task, wish.scale)))
    if engine.weights:
        return Restorer(lambda _: serve_all(wish, shelf[str(engine.weights)]), engine.options())
    return Restorer(partial(serve, wish, Catalogue.load(), shelf), engine.options())


def _of_files(
    gt: Path, options: TrialOptions, border: int | None, restorer: Restorer, pairing: PairOptions
) -> tuple[Report, Iterator[Evaluated]]:
    """As `_comparison`, of files that are made from ground truth or given."""
    from bbcu_cli.score.files import evaluate_files, evaluate_given, given_convention
    from bbcu_cli.score.pairs import images_at
    from bbcu_cli.score.report import Report

    if options.input:
        wish = options.wish()
        pairs, convention = pairing.pairs(gt, options.input), given_convention(wish.task, wish.scale, border)
        title = f"{wish.task} of {_name(options.input)} against {_name(gt)}"
        report = Report(title, convention, (), "bicubic" if wish.task == "sr" else "input")
        return report, evaluate_given(pairs, wish.task, wish.scale, convention, restorer)
    trial = replace(_requested(options)[0], border=border, colour=bool(options.colour), jpeg=options.jpeg)
    report = Report(f"{trial.task} {trial.strength} on {_name(gt)}", trial.convention, (), trial.baseline)
    return report, evaluate_files(trial, images_at(gt), restorer)


def _scale(options: TrialOptions) -> int:
    """That of super-resolution.

    Raises:
        UsageError: there is no network for it.
    """
    from bbcu_cli.spec import SCALES

    scale = 4 if options.scale is None else options.scale
    if scale not in SCALES:
        raise UsageError(f"--scale is {scale}; there are networks for 2, 3 and 4.")
    return scale


def _requested(options: TrialOptions) -> tuple[Trial, str]:
    """The trial and the name of its model in the catalogue.

    Raises:
        UsageError: an option is missing or impossible.
    """
    from bbcu_cli.hub import denoise_model
    from bbcu_cli.score.trial import Trial

    if options.task is TaskChoice.sr:
        scale = _scale(options)
        return Trial("sr", scale=scale), f"sr-{(options.model or ModelChoice.m).value}-x{scale}"
    if options.task is TaskChoice.denoise:
        if options.sigma is None:
            raise UsageError("--task denoise needs the noise: give --sigma, for example 25.")
        return Trial("denoise", sigma=options.sigma), denoise_model(options.sigma)
    if options.quality is None:
        raise UsageError("--task deblock needs the JPEG quality: give --quality, for example 10.")
    return Trial("deblock", quality=options.quality), "deblock"


def _collected(
    report: Report, images: Iterator[Evaluated], *, with_views: bool, quiet: bool
) -> tuple[Report, list[Views]]:
    """Run the evaluation; of each image only its row and, if wanted, small views are kept."""
    from bbcu_cli.score.html import views
    from bbcu_cli.score.report import figure

    rows, pictures = [], []
    for image in images:
        rows.append(image.row)
        if with_views:
            pictures.append(views(image.truth, image.restored, image.given))
        if not quiet:
            note(f"{image.row.name}: {figure(report.headline, getattr(image.row.scores, report.headline))} dB")
    return replace(report, rows=tuple(rows)), pictures


def _publish(report: Report, views: list[Views], forms: FormOptions) -> None:
    from bbcu_cli.files import write_whole
    from bbcu_cli.score.html import to_html
    from bbcu_cli.score.report import to_csv, to_json, to_markdown, to_text

    def write(path: Path | None, form: Callable[[], str]) -> None:
        if path:
            write_whole(path, form().encode(errors="backslashreplace"), overwrite=forms.overwrite)

    # The figures first: they took the time, and a full disk shall not cost them.
    print(json.dumps(to_json(report)) + "\n" if forms.json else to_text(report), end="", flush=True)
    write(forms.csv, lambda: to_csv(report))
    write(forms.markdown, lambda: to_markdown(report))
    write(forms.report, lambda: to_html(report, views))


def _name(path: Path) -> str:
    return path.resolve().name
