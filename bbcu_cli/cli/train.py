"""`bbcu train`: folders of pictures in, a packed model out."""

from __future__ import annotations

import enum
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbcu_cli.cli.console import note
from bbcu_cli.cli.heap import keep_large_blocks
from bbcu_cli.errors import UsageError, require_torch

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from bbcu_cli.spec import ModelSpec
    from bbcu_cli.train.loop import Progress
    from bbcu_cli.train.recipes import Recipe
    from bbcu_cli.train.teacher import Lesson

START = "Where to start"
RECIPE = "Recipe (default: that of --recipe)"
MACHINE = "Machine"


class TaskChoice(str, enum.Enum):
    """--task."""

    sr = "sr"
    denoise = "denoise"
    deblock = "deblock"


class SizeChoice(str, enum.Enum):
    """--model."""

    m = "m"
    l = "l"  # noqa: E741 - the published name


class RecipeChoice(str, enum.Enum):
    """--recipe."""

    full = "full"
    quick = "quick"


class StartChoice(str, enum.Enum):
    """--start."""

    centred = "centred"
    published = "published"


def _number(text: str, *, low: float | None = None) -> Any:
    return typer.Option(help=text, min=low, rich_help_panel=RECIPE, show_default=False)


@dataclass(frozen=True)
class RecipeOptions:
    """One option for each field of a recipe, by the field's name; None keeps the recipe's value."""

    steps: Annotated[int | None, _number("Optimiser steps.", low=1)] = None
    batch: Annotated[int | None, _number("Patches per step and process.", low=1)] = None
    patch: Annotated[int | None, _number("Side of a patch of the input, in pixels.", low=4)] = None
    rate: Annotated[float | None, _number("Peak learning rate of Adam.")] = None
    warmup: Annotated[int | None, _number("Steps of linear warm-up; a cosine follows.", low=0)] = None
    ema: Annotated[float | None, _number("Decay of the moving average of the weights.", low=0)] = None
    start: Annotated[StartChoice | None, _number("Initial weights, unless --init gives them.")] = None
    window: Annotated[float | None, _number("Half-width of the sign's gradient; the paper has 1.")] = None
    twin: Annotated[
        bool | None,
        typer.Option(
            "--twin/--no-twin",
            help="Train the full-precision twin, to distil from.",
            rich_help_panel=RECIPE,
            show_default=False,
        ),
    ] = None
    distill: Annotated[float | None, _number("Share of the target taken from the --teacher.", low=0)] = None
    candidates: Annotated[int | None, _number("Crops drawn for each one kept; detail is preferred.", low=1)] = None
    seed: Annotated[int | None, _number("Seed of weights, crops and degradations.", low=0)] = None
    sigma: Annotated[tuple[float, float] | None, _number("Range of the noise level (denoise).", low=0)] = None
    quality: Annotated[tuple[int, int] | None, _number("Range of the JPEG quality (deblock, --photo).", low=1)] = None
    photo: Annotated[
        bool | None,
        typer.Option(
            "--photo/--no-photo",
            help="Degrade like real files: colour JPEG, camera noise.",
            rich_help_panel=RECIPE,
            show_default=False,
        ),
    ] = None

    def override(self, recipe: Recipe) -> Recipe:
        """The recipe with every option that was given."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(recipe, **{n: v.value if isinstance(v, enum.Enum) else v for n, v in given.items()})


def train(
    data: Annotated[
        Path | None, typer.Option(help="Folder of training pictures, searched recursively.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run: checkpoint, log, packed model.", show_default=False),
    ] = None,
    task: Annotated[TaskChoice, typer.Option(help="What the network restores.")] = TaskChoice.sr,
    scale: Annotated[int, typer.Option("--scale", "-s", help="2, 3 or 4; for sr.")] = 4,
    model: Annotated[SizeChoice, typer.Option("--model", "-m", help="m or l; for sr.")] = SizeChoice.m,
    val: Annotated[Path | None, typer.Option(help="Folder of withheld pictures to validate on.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Only draw validation, loss and rate of the run in this folder, as a PNG file there."),
    ] = None,
    recipe: Annotated[
        RecipeChoice, typer.Option(help="full is for a data-centre GPU, quick for a CPU.", rich_help_panel=RECIPE)
    ] = RecipeChoice.full,
    overrides: RecipeOptions = RecipeOptions(),
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue the run in --out.", rich_help_panel=START)
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(help="Packed model or checkpoint to start from; may be of another scale.", rich_help_panel=START),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Better network to learn from: checkpoint of a --twin run, or a packed model by path or name.",
            rich_help_panel=START,
        ),
    ] = None,
    teacher_pictures: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the teacher's pictures; runs can share it. Default: teacher in --out.",
            rich_help_panel=START,
        ),
    ] = None,
    teacher_views: Annotated[
        int,
        typer.Option(
            help="Flips and rotations averaged for each picture: 1, 2, 4 or 8; fewer are faster.", rich_help_panel=START
        ),
    ] = 8,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:N.", envvar="BBCU_DEVICE", rich_help_panel=MACHINE)
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", envvar="BBCU_THREADS", min=1, rich_help_panel=MACHINE)
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile; default on a GPU only.", rich_help_panel=MACHINE),
    ] = None,
    interval: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1, rich_help_panel=MACHINE)] = 250,
    note_: Annotated[
        str | None,
        typer.Option("--note", help="Text kept in the model: pictures and their licence.", rich_help_panel=MACHINE),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,  # noqa: ARG001
) -> None:
    """Train a network on a folder of pictures.

    Ctrl-C saves a checkpoint; --resume continues from it. On several GPUs:
    `torchrun --nproc-per-node N -m bbcu_cli train ...`

    Examples:

    bbcu train --task sr --scale 4 --data photos/ --val withheld/ --out run/

    bbcu train --task denoise --data photos/ --out run/ --recipe quick --steps 1000

    bbcu train --plot run/
    """
    if plot is not None:
        from bbcu_cli.train.plot import plot as draw

        print(draw(plot))
        return
    if data is None or out is None:
        raise UsageError("Training needs --data, the folder of pictures, and --out, the folder of the run.")

    require_torch("Training")
    keep_large_blocks()
    import torch

    from bbcu_cli.cores import checked_threads
    from bbcu_cli.train.arithmetic import choose_arithmetic
    from bbcu_cli.train.loop import Run
    from bbcu_cli.train.loop import train as run_training

    torch.set_num_threads(checked_threads(threads))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device is {device}, but torch finds no CUDA device here; use --device cpu.")
    chosen = overrides.override(_base(task, recipe, out, resume=resume, photo=bool(overrides.photo)))
    chosen.require_task(task.value)
    command = shlex.join(["bbcu", *map(_without_folders, sys.argv[1:])])
    run = Run(
        spec=_spec(task, scale, model, photo=chosen.photo),
        recipe=chosen,
        data=data,
        out=out,
        val=val,
        teacher=teacher,
        teacher_pictures=teacher_pictures,
        teacher_views=teacher_views,
        init=init,
        resume=resume,
        device=device,
        compiled=device.startswith("cuda") if compiled is None else compiled,
        interval=interval,
        provenance={"resumed by" if resume else "command": command, **({"data": note_} if note_ else {})},
    )
    first = os.environ.get("RANK", "0") == "0"
    if first:
        arithmetic = choose_arithmetic(torch.device(device), compiled=run.compiled)
        if chosen.twin:
            arithmetic = arithmetic.of_twin()
        note(f"units: {arithmetic}; {torch.get_num_threads()} CPU threads")
    with _shown(chosen.steps) as display:
        made = run_training(run, display.step, display.lesson)
    if first:
        print(made)


def _without_folders(word: str) -> str:
    """An absolute path by its name alone, anything else as it is: where things lie here is nobody's business."""
    option, equals, path = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{Path(path).name}" if Path(path).is_absolute() else word


def _spec(task: TaskChoice, scale: int, model: SizeChoice, *, photo: bool) -> ModelSpec:
    from bbcu_cli.spec import COLOUR_DEBLOCK_SPEC, DEBLOCK_SPEC, DENOISE_SPEC, SCALES, sr_spec

    if task is TaskChoice.sr:
        if scale not in SCALES:
            raise UsageError(f"--scale is {scale}; there are networks for 2, 3 and 4.")
        return sr_spec(model.value, scale)
    if task is TaskChoice.denoise:
        return DENOISE_SPEC
    return COLOUR_DEBLOCK_SPEC if photo else DEBLOCK_SPEC


def _base(task: TaskChoice, recipe: RecipeChoice, out: Path, *, resume: bool, photo: bool) -> Recipe:
    """The recipe that options override: the named one, or that of the run which is resumed."""
    from bbcu_cli.train.checkpoint import CHECKPOINT, read_checkpoint
    from bbcu_cli.train.recipes import RECIPES, Recipe, photo_recipe

    if resume:
        return Recipe.from_dict(read_checkpoint(out / CHECKPOINT)["recipe"])
    base = RECIPES[recipe.value, task.value]
    return photo_recipe(base, task.value) if photo else base


class _Lines:
    """Reports on stderr, a line each."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.last = time.monotonic()

    def step(self, progress: Progress) -> None:
        """A line for every checkpoint."""
        if progress.saved:
            note(f"step {progress.step} of {self.steps}: {_words(progress)}")

    def lesson(self, lesson: Lesson) -> None:
        """A line every half minute, while the teacher makes pictures."""
        if lesson.restored and (time.monotonic() - self.last > 30 or lesson.picture == lesson.pictures):
            self.last = time.monotonic()
            note(f"teacher: {lesson.picture} of {lesson.pictures} pictures, {_words_of_teacher(lesson)}")


class _Bars:
    """Reports on a terminal."""

    def __init__(self, steps: int, bars: Bars) -> None:
        self.bars = bars
        self.run = bars.add_task("loading pictures", total=steps)
        self.teacher: TaskID | None = None

    def step(self, progress: Progress) -> None:
        """The bar of the run."""
        self.bars.update(self.run, completed=progress.step, description=_words(progress))

    def lesson(self, lesson: Lesson) -> None:
        """The bar of the teacher, if it has anything to do."""
        if lesson.restored:
            if self.teacher is None:
                self.teacher = self.bars.add_task("", total=lesson.pictures)
            self.bars.update(
                self.teacher,
                completed=lesson.picture,
                description=f"teacher: {_words_of_teacher(lesson)}",
                visible=lesson.picture < lesson.pictures,
            )


@contextmanager
def _shown(steps: int) -> Iterator[_Lines | _Bars]:
    """Reports on stderr: bars on a terminal, else lines."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    if not sys.stderr.isatty():
        yield _Lines(steps)
        return
    columns = (BarColumn(16), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(steps, bars)


def _words(progress: Progress) -> str:
    words = [f"loss {255 * progress.loss:.3f}", f"{progress.speed:.2f} steps/s", f"{_time(progress.remaining)} left"]
    if progress.psnr is not None:
        levels = ", ".join(f"{level} {psnr:.2f}" for level, psnr in progress.scores.items())
        words.append(f"validation {progress.psnr:.2f} dB" + (f" ({levels})" if len(progress.scores) > 1 else ""))
    return "  ".join(words)


def _words_of_teacher(lesson: Lesson) -> str:
    speed = lesson.restored / lesson.seconds
    return f"{60e-6 * speed:.2f} megapixels a minute  {_time((lesson.total - lesson.pixels) / speed)} left"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
