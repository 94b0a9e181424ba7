"""`bbcu eval --task`: restore and score, on this machine or on a cluster."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.cli.console import note
from bbcu_cli.cli.options import EngineOptions
from bbcu_cli.cli.request import plan_of
from bbcu_cli.cli.restore import ModelChoice
from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.cli.evaluate import PairOptions
    from bbcu_cli.fleet.evaluate import Answer, Exam, Question
    from bbcu_cli.fleet.plan import Plan
    from bbcu_cli.restoration.choice import Wish
    from bbcu_cli.score.html import Views
    from bbcu_cli.score.report import Report
    from bbcu_cli.score.trial import Trial
    from bbcu_cli.spec import Task

TRIAL = "Restore and score"


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
        str | None,
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


def check_trial(trial: TrialOptions, *, scored: bool) -> None:
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


def restored_and_scored(
    gt: str,
    options: TrialOptions,
    border: int | None,
    pairing: PairOptions,
    engine: EngineOptions,
    *,
    cluster: str | None,
    with_views: bool,
    quiet: bool,
) -> tuple[Report, list[Views]]:
    """Run the trial; of each picture only its row and, if wanted, small views are kept.

    Args:
        gt: ground truth, a path or a URL.
        border: pixels to ignore in place of the usual ones.
        cluster: where the work is done; None: here.
    """
    from bbcu_cli.batch.settings import Settings
    from bbcu_cli.image import EncodeOptions
    from bbcu_cli.restoration.serving import counted
    from bbcu_cli.score.report import figure
    from bbcu_cli.score.trial import MAX_PIXELS

    wish, exam, report = _meant(gt, options, border)
    exam = replace(exam, pictures=with_views)
    with _questions(gt, options, pairing, wish, travel=cluster is not None) as questions:
        settings = Settings(engine.options(), EncodeOptions(), "PNG", MAX_PIXELS, threads=engine.threads)
        plan = plan_of(wish, settings, engine, [gt, options.input or ""] if cluster else None)
        answers: list[Answer] = []
        with closing(_answers(questions, plan, exam, cluster)) as stream:
            for answer in stream:
                answers.append(answer)
                if not quiet:
                    score = getattr(answer.row.scores, report.headline)
                    note(f"{answer.row.name}: {figure(report.headline, score)} dB")
    answers.sort(key=lambda answer: answer.number)
    facts = [("model", counted(Counter(answer.model for answer in answers)))]
    if exam.trial and not exam.trial.of_files:
        facts = [("model", answers[0].model), ("engine", "; ".join(sorted({answer.engine for answer in answers})))]
    report = replace(report, rows=tuple(answer.row for answer in answers), facts=tuple(facts))
    return report, [answer.views for answer in answers if answer.views]


def _meant(gt: str, options: TrialOptions, border: int | None) -> tuple[Wish, Exam, Report]:
    """What the networks are asked for, how it is scored, and the report without its rows.

    Raises:
        UsageError: an option is missing or impossible.
    """
    from bbcu_cli.fleet.evaluate import Exam
    from bbcu_cli.score.files import given_convention
    from bbcu_cli.score.report import Report

    wish = options.wish()
    if options.input:
        convention = given_convention(wish.task, wish.scale, border)
        title = f"{wish.task} of {called(options.input)} against {called(gt)}"
        return wish, Exam(None, convention), Report(title, convention, (), "bicubic" if wish.task == "sr" else "input")
    trial = replace(_requested(options), border=border, colour=bool(options.colour), jpeg=options.jpeg)
    if not trial.of_files and trial.task == "denoise":
        wish = replace(wish, sigma=trial.sigma)  # the network of the paper for that level
    title = f"{trial.task} {trial.strength} on {called(gt)}"
    return wish, Exam(trial, trial.convention), Report(title, trial.convention, (), trial.baseline)


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


def _requested(options: TrialOptions) -> Trial:
    """The trial of the paper that the options name.

    Raises:
        UsageError: an option is missing or impossible.
    """
    from bbcu_cli.score.trial import Trial

    if options.task is TaskChoice.sr:
        return Trial("sr", scale=_scale(options))
    if options.task is TaskChoice.denoise:
        if options.sigma is None:
            raise UsageError("--task denoise needs the noise: give --sigma, for example 25.")
        return Trial("denoise", sigma=options.sigma)
    if options.quality is None:
        raise UsageError("--task deblock needs the JPEG quality: give --quality, for example 10.")
    return Trial("deblock", quality=options.quality)


@contextmanager
def _questions(
    gt: str, options: TrialOptions, pairing: PairOptions, wish: Wish, *, travel: bool
) -> Iterator[list[Question]]:
    """One for every picture. Pairs are found, and their sizes compared, before any work.

    Args:
        travel: files are named as other machines find them.
    """
    from bbcu_cli.fleet.evaluate import Question, questions_of, truths_of
    from bbcu_cli.fleet.mirror import mirrored
    from bbcu_cli.score.pairs import check_sizes

    if not options.input:
        yield questions_of(truths_of(gt))
        return
    with mirrored(gt, options.input, recursive=pairing.recursive) as mirror:
        pairs = pairing.pairs(*mirror.paths)
        check_sizes(pairs, wish.scale, enlarged=wish.scale)

        def place(path: Path) -> str:
            return mirror.told(str(path)) if travel else str(path)

        yield [Question(number, one.called, place(one.truth), place(one.restored)) for number, one in enumerate(pairs)]


def _answers(questions: list[Question], plan: Plan, exam: Exam, cluster: str | None) -> Generator[Answer]:
    """The scores, as pictures are done."""
    from bbcu_cli.fleet.evaluate import Question, evaluate
    from bbcu_cli.fleet.shop import Shop

    if cluster is None:
        with Shop(plan, note) as shop:
            yield from evaluate(questions, shop, exam)
        return
    from bbcu_cli.fleet.cluster import pieces_on
    from bbcu_cli.fleet.driver import drive
    from bbcu_cli.fleet.worker import evaluate_piece

    with pieces_on(cluster, plan, note, partial(evaluate_piece, exam)) as executor:
        yield from drive(questions, executor, Question.failed)


def called(place: str) -> str:
    """The name of a file or folder, path or URL, for a title."""
    from bbcu_cli.fleet.stores import is_url, name_of

    return (name_of(place) or place) if is_url(place) else Path(place).resolve().name
