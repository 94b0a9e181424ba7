"""`bbcu train`: folders of pictures in, a packed model out."""

from __future__ import annotations

import enum
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbcu_cli.cli.console import note
from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
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
    ema: Annotated[float | None, _number("Decay of the moving average that is shipped.", low=0)] = None
    start: Annotated[StartChoice | None, _number("Initial weights, if no --init gives them.")] = None
    window: Annotated[float | None, _number("Half-width of the sign's gradient; 1 is published.")] = None
    twin: Annotated[
        bool | None,
        typer.Option(
            "--twin/--no-twin",
            help="Train the full-precision twin, to distil from.",
            rich_help_panel=RECIPE,
            show_default=False,
        ),
    ] = None
    distill: Annotated[float | None, _number("Share of the target that is the --teacher's picture.", low=0)] = None
    candidates: Annotated[int | None, _number("Crops drawn for each one kept, by its detail.", low=1)] = None
    seed: Annotated[int | None, _number("Of weights, crops and degradations.", low=0)] = None
    sigma: Annotated[tuple[float, float] | None, _number("Range of the noise level (denoise).", low=0)] = None
    quality: Annotated[tuple[int, int] | None, _number("Range of the JPEG quality (deblock, --photo).", low=1)] = None
    photo: Annotated[
        bool | None,
        typer.Option(
            "--photo/--no-photo",
            help="Degrade as the files that people have are: colour JPEG, camera noise.",
            rich_help_panel=RECIPE,
            show_default=False,
        ),
    ] = None

    def override(self, recipe: Recipe) -> Recipe:
        """The recipe with every option that was given."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(recipe, **{n: v.value if isinstance(v, enum.Enum) else v for n, v in given.items()})


def train(
    data: Annotated[Path, typer.Option(help="Folder of training pictures, searched recursively.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run: checkpoint, log, packed model.")],
    task: Annotated[TaskChoice, typer.Option(help="What the network is to restore.")] = TaskChoice.sr,
    scale: Annotated[int, typer.Option("--scale", "-s", help="2, 3 or 4; for sr.")] = 4,
    model: Annotated[SizeChoice, typer.Option("--model", "-m", help="m or l; for sr.")] = SizeChoice.m,
    val: Annotated[Path | None, typer.Option(help="Folder of withheld pictures to validate on.")] = None,
    recipe: Annotated[
        RecipeChoice, typer.Option(help="full is for a data-centre GPU, quick for a CPU.", rich_help_panel=RECIPE)
    ] = RecipeChoice.full,
    overrides: RecipeOptions = RecipeOptions(),
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with the run in --out.", rich_help_panel=START)
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(help="Packed model or checkpoint to start from, also of another scale.", rich_help_panel=START),
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
            help="Folder where its pictures are kept, for all runs that share it; default: teacher in --out.",
            rich_help_panel=START,
        ),
    ] = None,
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
    interval: Annotated[int, typer.Option(help="Steps between two checkpoints.", min=1, rich_help_panel=MACHINE)] = 250,
    note_: Annotated[
        str | None,
        typer.Option("--note", help="The pictures and their licence; kept in the model.", rich_help_panel=MACHINE),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,  # noqa: ARG001
) -> None:
    """Train a network on a folder of pictures.

    Ctrl-C saves; --resume goes on as if nothing had happened. Several GPUs:
    `torchrun --nproc-per-node N -m bbcu_cli train ...`

    Examples:

    bbcu train --task sr --scale 4 --data photos/ --val withheld/ --out run/

    bbcu train --task denoise --data photos/ --out run/ --recipe quick --steps 1000
    """
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
    command = shlex.join(["bbcu", *sys.argv[1:]])
    run = Run(
        spec=_spec(task, scale, model, photo=chosen.photo),
        recipe=chosen,
        data=data,
        out=out,
        val=val,
        teacher=teacher,
        teacher_pictures=teacher_pictures,
        init=init,
        resume=resume,
        device=device,
        compiled=device.startswith("cuda") if compiled is None else compiled,
        interval=interval,
        provenance={"command": command, **({"data": note_} if note_ else {})},
    )
    first = os.environ.get("RANK", "0") == "0"
    if first:
        arithmetic = choose_arithmetic(torch.device(device), compiled=run.compiled)
        note(f"binary units: {arithmetic}; {torch.get_num_threads()} CPU threads")
    with _shown(chosen.steps) as report:
        made = run_training(run, report, _shown_lessons())
    if first:
        print(made)


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


@contextmanager
def _shown(steps: int) -> Iterator[Callable[[Progress], None]]:
    """Reports on stderr: a bar on a terminal, else one line each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    def words(progress: Progress) -> str:
        score = "" if progress.psnr is None else f"  validation {progress.psnr:.2f} dB"
        return f"loss {255 * progress.loss:.3f}  {progress.speed:.2f} steps/s{score}"

    if not sys.stderr.isatty():
        yield lambda progress: note(f"step {progress.step} of {steps}: {words(progress)}") if progress.saved else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task("loading pictures", total=steps)
        yield lambda progress: bar.update(line, completed=progress.step, description=words(progress))


def _shown_lessons() -> Callable[[Lesson], None]:
    """The teacher's progress on stderr, a line every half minute."""
    last = time.monotonic()

    def show(lesson: Lesson) -> None:
        nonlocal last
        if not lesson.restored or (time.monotonic() - last < 30 and lesson.picture < lesson.pictures):
            return
        last = time.monotonic()
        speed = lesson.restored / lesson.seconds
        left = timedelta(seconds=round((lesson.total - lesson.pixels) / speed))
        note(
            f"teacher: {lesson.picture} of {lesson.pictures} pictures, {speed / 1e6 * 60:.2f} megapixels a minute, "
            f"{left} left"
        )

    return show
