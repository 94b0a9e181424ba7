"""`bbcu eval`: results against ground truth, or a column of the paper's tables in one command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.cli.console import note
from bbcu_cli.cli.options import TALK, EngineOptions, FleetOptions
from bbcu_cli.cli.trial import TrialOptions, called, check_trial, restored_and_scored
from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.score.html import Views
    from bbcu_cli.score.pairs import Pair
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import Evaluated

FORMS = "Reports"


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
    gt: Annotated[str, typer.Option(help="Ground truth: a folder, or one image.", show_default=False)],
    pred: Annotated[str | None, typer.Option(help="Results to score, paired with --gt by name.")] = None,
    border: Annotated[str, typer.Option(help="Pixels ignored along the edges; auto: as many as the scale.")] = "auto",
    pairing: PairOptions = PairOptions(),
    trial: TrialOptions = TrialOptions(),
    engine: EngineOptions = EngineOptions(),
    fleet: FleetOptions = FleetOptions(),
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
    from bbcu_cli.fleet.mirror import mirrored

    if (pred is None) == (trial.task is None):
        raise UsageError("Give either --pred (score existing results) or --task (restore and score).")
    check_trial(trial, scored=pred is not None)
    if pred and fleet.cluster and not quiet:
        note("--cluster is for --task: results are scored on this machine.")
    if trial.task is not None and not trial.input and pairing != PairOptions():
        raise UsageError("--recursive and --pattern pair files; with --task they need --input.")
    _check_forms(forms)
    with_views = forms.report is not None
    if pred:
        with mirrored(gt, pred, recursive=pairing.recursive) as mirror:
            report, images = _comparison(gt, pred, mirror.paths, _pixels(border), trial.scale, pairing)
            report, views = _collected(report, images, with_views=with_views, quiet=quiet)
    else:
        report, views = restored_and_scored(
            gt,
            trial,
            _pixels(border),
            pairing,
            engine,
            cluster=fleet.cluster,
            with_views=with_views,
            quiet=quiet,
        )
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


def _comparison(
    gt: str, pred: str, paths: Sequence[Path], border: int | None, scale: int | None, pairing: PairOptions
) -> tuple[Report, Iterator[Evaluated]]:
    """A report without rows yet, and the images that will fill it; `paths` is where both lie."""
    from bbcu_cli.score.metrics import Convention
    from bbcu_cli.score.pairs import check_sizes, find_scale
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import convention_of, evaluate_pairs

    pairs = pairing.pairs(*paths)
    found = find_scale(pairs, given=scale, recorded=_recorded_scale(pairs))
    cropped = check_sizes(pairs, found.factor)
    convention = convention_of("sr", found.factor) if found.factor > 1 else Convention(gray_is_luma=True)
    if border is not None:
        convention = replace(convention, border=border)
    title = f"{called(pred)} against {called(gt)}"
    facts = (("scale", "; ".join((str(found), *cropped))),)
    return Report(title, convention, (), facts=facts), evaluate_pairs(pairs, convention, found.factor)


def _recorded_scale(pairs: list[Pair]) -> int | None:
    """The scale that the records beside the results tell, if all are as bbcu made them and of one scale."""
    from bbcu_cli.batch.manifest import Manifest
    from bbcu_cli.spec import SCALES

    record = Manifest("")
    told = [record.remarks(one.restored).get("scale") if record.known(one.restored) else None for one in pairs]
    return next((scale for scale in (1, *SCALES) if all(one == scale for one in told)), None)


def _collected(
    report: Report, images: Iterator[Evaluated], *, with_views: bool, quiet: bool
) -> tuple[Report, list[Views]]:
    """Score the results; of each image only its row and, if wanted, small views are kept."""
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
