"""`bbcu eval`: results against ground truth, or a column of the paper's tables in one command."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.cli.console import note
from bbcu_cli.cli.options import TALK, EngineOptions
from bbcu_cli.cli.restore import ModelChoice
from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.score.html import Views
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import Evaluated, Trial

TRIAL = "Restore and score"
FORMS = "Reports"


class TaskChoice(str, enum.Enum):
    """--task."""

    sr = "sr"
    denoise = "denoise"
    deblock = "deblock"


OWNERS = {"scale": TaskChoice.sr, "model": TaskChoice.sr, "sigma": TaskChoice.denoise, "quality": TaskChoice.deblock}


@dataclass(frozen=True)
class TrialOptions:
    """What to restore and score."""

    task: Annotated[
        TaskChoice | None,
        typer.Option(help="Degrade the ground truth as in the paper, restore it and score it.", rich_help_panel=TRIAL),
    ] = None
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", help="For --task sr: 2, 3 or 4 (default).", rich_help_panel=TRIAL)
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
    border: Annotated[
        str,
        typer.Option(help="Pixels ignored along the edges; auto: the scale, of --scale or of names like a_x4.png."),
    ] = "auto",
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
    """
    if (pred is None) == (trial.task is None):
        raise UsageError("Give either --pred (score existing results) or --task (restore and score).")
    for option, task in OWNERS.items():
        if getattr(trial, option) is not None and trial.task != task:
            raise UsageError(f"--{option} is for --task {task.value}.")
    _check_forms(forms)
    with ExitStack() as stack:
        if pred:
            report, images = _comparison(gt, pred, _pixels(border))
        else:
            report, images = _trial(gt, trial, _pixels(border), engine, stack)
        report, views = _collected(report, images, with_views=forms.report is not None, quiet=quiet)
    _publish(report, views, forms)


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


def _comparison(gt: Path, pred: Path, border: int | None) -> tuple[Report, Iterator[Evaluated]]:
    """A report without rows yet, and the images that will fill it."""
    from bbcu_cli.score.metrics import Convention
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import check_sizes, convention_of, evaluate_pairs, pair, scale_of

    pairs = pair(gt, pred)
    scale = scale_of(pairs)
    check_sizes(pairs, scale)
    convention = convention_of("sr", scale) if scale > 1 else Convention(gray_is_luma=True)
    if border is not None:
        convention = replace(convention, border=border)
    title = f"{_name(pred)} against {_name(gt)}"
    return Report(title, convention, ()), evaluate_pairs(pairs, convention, scale)


def _trial(
    gt: Path, options: TrialOptions, border: int | None, engine: EngineOptions, stack: ExitStack
) -> tuple[Report, Iterator[Evaluated]]:
    """As `_comparison`; `stack` closes the model."""
    from bbcu_cli.restoration.pipeline import run_tiled
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import evaluate_trial, images_at

    trial, name = _requested(options)
    trial = replace(trial, border=border)
    truths = images_at(gt)
    model = stack.enter_context(engine.load(name, trial.task, trial.scale))
    wish = engine.options()
    info = model.session.info
    facts = (("model", model.name), ("engine", f"{info.name} on {info.device}, {info.detail}"))
    report = Report(f"{trial.task} {trial.strength} on {_name(gt)}", trial.convention, (), trial.baseline, facts)
    return report, evaluate_trial(trial, truths, lambda x: run_tiled(model, x, wish))


def _requested(options: TrialOptions) -> tuple[Trial, str]:
    """The trial and the name of its model in the catalogue.

    Raises:
        UsageError: an option is missing or impossible.
    """
    from bbcu_cli.hub import denoise_model
    from bbcu_cli.score.trial import Trial
    from bbcu_cli.spec import SCALES

    if options.task is TaskChoice.sr:
        scale = 4 if options.scale is None else options.scale
        if scale not in SCALES:
            raise UsageError(f"--scale is {scale}; there are networks for 2, 3 and 4.")
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
