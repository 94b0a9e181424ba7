"""The training loop: one process per device, checkpoints that a kill cannot hurt, a log of JSON lines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bbcu_cli.checkpoint.pack import pack
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.errors import TrainingError, UsageError
from bbcu_cli.files import remove_stale_parts, write_atomic
from bbcu_cli.models.binary import Simulation, simulate
from bbcu_cli.models.build import build_model
from bbcu_cli.score.photos import Read, decoded
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train.arithmetic import choose_arithmetic
from bbcu_cli.train.checkpoint import CHECKPOINT, LOG, MODEL, load_initial, placed, read_checkpoint
from bbcu_cli.train.data import Pictures, ahead, crop_size, draw_batch, generator_for, read_images
from bbcu_cli.train.deblocked import reader
from bbcu_cli.train.photo_validation import PhotoValidation
from bbcu_cli.train.processes import processes, stop_request
from bbcu_cli.train.recipes import Recipe
from bbcu_cli.train.start import calm, centre
from bbcu_cli.train.teacher import VIEWS, Lesson, Teacher, open_teacher, taught_pictures
from bbcu_cli.train.validate import Validation

# The most of a run's time that goes into validation: where a checkpoint comes too soon for the next, it goes without.
_VALIDATION: Final = 0.02

# Several processes agree on stopping this often; each time costs a round of messages.
_AGREE_EVERY: Final = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """What the loop tells while it runs.

    Attributes:
        step: optimiser steps done.
        loss: mean loss since the last checkpoint.
        rate: learning rate of that step.
        speed: steps per second since the last checkpoint.
        remaining: seconds to the last step, at the mean speed of this process.
        psnr: the latest validation score in dB, None before the first.
        saved: a checkpoint has been written with this report, and the log has it too.
        scores: of each level, if this report comes with a validation: PSNR in dB, of a photo run the gain on the input.
    """

    step: int
    loss: float
    rate: float
    speed: float
    remaining: float
    psnr: float | None
    saved: bool
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        spec, recipe: what is trained and how.
        data: folder of training pictures.
        out: folder of the checkpoint, the log and the packed model.
        val: folder of pictures to validate on; None validates nothing.
        teacher: what to distil from: checkpoint of a full-precision twin, or a packed model by path or name.
        teacher_pictures: folder of what teachers make of training pictures; None: "teacher" in `out`.
        teacher_views: flips and rotations that they are the mean of: 1, 2, 4 or 8.
        init: packed model or checkpoint that the weights start from, also of another scale.
        resume: go on from the checkpoint in `out`.
        device: "cpu", "cuda", "cuda:1".
        compiled: use torch.compile (on CUDA with CUDA graphs).
        interval: steps between two checkpoints.
        provenance: what to write into the packed model beside the recipe: data, licence, command. A run that is
            resumed keeps what it began with, but for what is given anew.
    """

    spec: ModelSpec
    recipe: Recipe
    data: Path
    out: Path
    val: Path | None = None
    teacher: str | None = None
    teacher_pictures: Path | None = None
    teacher_views: int = 8
    init: Path | None = None
    resume: bool = False
    device: str = "cpu"
    compiled: bool = False
    interval: int = 250
    provenance: Mapping[str, str] = field(default_factory=dict)


def train(
    run: Run,
    report: Callable[[Progress], None] = lambda _: None,
    report_lesson: Callable[[Lesson], None] = lambda _: None,
) -> Path:
    """Train, and write the packed model.

    Under torchrun every process draws its own batches and gradients are averaged; the first one writes.

    Args:
        run: what to train.
        report: told now and then, and at every checkpoint.
        report_lesson: told about every picture that the teacher is done with, before the first step.

    Returns:
        The packed model; of a twin, the checkpoint.

    Raises:
        UsageError: the recipe does not suit the task, or there is no such number of views.
        TrainingError: no usable pictures, or nothing to resume from, or a checkpoint of another network.
        KeyboardInterrupt: Ctrl-C (or SIGTERM). Once steps are made, a checkpoint is saved first; it says what is kept.
    """
    run.recipe.require_task(run.spec.task)
    if run.teacher_views not in VIEWS:
        raise UsageError(f"A teacher's picture is the mean of 1, 2, 4 or 8 views, not of {run.teacher_views}.")
    with (
        processes(run.device) as (rank, world, device),
        reader(run.spec.task, photo=run.recipe.photo) as read,
    ):
        trainer = _Trainer(run, rank, world, device, report_lesson, read)
        with stop_request() as stop:
            return trainer.fit(report, stop)


class _Meter:
    """Mean loss and speed since the last checkpoint, and the time that is left at the pace of this process.

    Reading waits for the device, so between checkpoints it is done once a second at most.
    """

    def __init__(self, step: int, steps: int, device: torch.device) -> None:
        self.total = torch.zeros((), device=device)
        self.start, self.started = step, time.perf_counter()
        self.last_read = self.started
        self.first, self.began, self.steps = step, self.started, steps

    def add(self, loss: Tensor) -> None:
        self.total += loss

    def due(self) -> bool:
        return time.perf_counter() - self.last_read > 1

    def read(self, step: int, rate: float, psnr: float | None, scores: Mapping[str, float], *, saved: bool) -> Progress:
        """The report of that step; one that goes with a checkpoint starts a new mean."""
        steps, self.last_read = step - self.start, time.perf_counter()
        speed = steps / (self.last_read - self.started)
        remaining = (self.steps - step) * (self.last_read - self.began) / (step - self.first)
        progress = Progress(step, self.total.item() / steps, rate, speed, remaining, psnr, saved, scores)
        if saved:
            self.total.zero_()
            self.start, self.started = step, self.last_read
        return progress


class _Trainer:
    """The state of a run: network, moving average, optimiser, step."""

    def __init__(
        self,
        run: Run,
        rank: int,
        world: int,
        device: torch.device,
        report_lesson: Callable[[Lesson], None],
        read: Read = decoded,
    ) -> None:
        self.run, self.rank, self.world, self.device = run, rank, world, device
        self.arithmetic = choose_arithmetic(device, compiled=run.compiled)
        self.threads = torch.get_num_threads()
        self.read = read
        spec, recipe = run.spec, run.recipe
        if recipe.twin:
            self.arithmetic = self.arithmetic.of_twin()
        if not run.resume and (run.out / CHECKPOINT).exists():
            raise TrainingError(f"{run.out} holds a run already; go on with it by --resume, or give another --out.")
        saved = self._saved() if run.resume else None
        torch.manual_seed(recipe.seed)
        self.model = build_model(spec)
        if recipe.twin:
            calm(self.model)
        if run.init is not None:
            load_initial(self.model, run.init, twin=recipe.twin)
        self.model = placed(self.model, device)
        images = read_images(run.data, crop_size(spec, recipe))
        self.teacher = self._open_teacher()
        if self.teacher is not None and spec.task == "sr":
            self.pictures = self._taught(self.teacher, images, report_lesson)
        else:
            self.pictures = Pictures(images, device)
        del images  # as large as the pictures
        if run.init is None and not run.resume and not recipe.twin and recipe.start == "centred":
            first = generator_for(recipe.seed, 0, 0, device)
            centre(self.model, draw_batch(self.pictures, spec, recipe, first, read)[0])
        self.ema = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=recipe.rate, fused=True)
        self.step = 0
        self.cpu_seconds: float | None = 0.0
        self.psnr: float | None = None
        self.provenance = dict(run.provenance)
        if run.init is not None:
            self.provenance["init"] = run.init.name
        if saved is not None:
            self._restore(saved)
        state = self.model.state_dict()
        self.averaging = list(self.ema.values()), [state[name] for name in self.ema]
        if self.teacher is not None:
            views = "" if self.pictures.taught is None else f", mean of {run.teacher_views} views"
            self.provenance["teacher"] = f"{self.teacher.name}{views}, SHA-256 of its weights {self.teacher.sha256}"
        validation = partial(PhotoValidation, read=read) if recipe.photo else Validation
        self.validation = validation(spec, recipe, run.val) if run.val is not None and rank == 0 else None

    def fit(self, report: Callable[[Progress], None], stop: threading.Event) -> Path:
        """Run the steps that are left; see `train`."""
        recipe = self.run.recipe
        self.run.out.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(self.run.out)
        simulate(self.model, self._simulation())
        forward = self._forward()
        meter = _Meter(self.step, recipe.steps, self.device)
        due = 0.0
        earlier, began = self.cpu_seconds, time.process_time()
        with closing(self._batches()) as batches, self._shared_threads():
            for source, target in batches:
                meter.add(self._optimise(forward, source, target))
                self.step += 1
                stopping = self._anyone(stop)
                done = self.step == recipe.steps
                saving = stopping or done or self.step % self.run.interval == 0
                scores: Mapping[str, float] = {}
                if saving and self.validation is not None and (done or (not stopping and time.monotonic() >= due)):
                    asked = time.monotonic()
                    self.psnr = self.validation.score(self._averaged())
                    scores = self.validation.scores
                    due = time.monotonic() + (time.monotonic() - asked) / _VALIDATION
                if saving:
                    seconds = self._summed(time.process_time() - began)
                    self.cpu_seconds = None if earlier is None else earlier + seconds
                if self.rank == 0 and (saving or meter.due()):
                    progress = meter.read(self.step, recipe.rate_at(self.step - 1), self.psnr, scores, saved=saving)
                    if saving:
                        self._save(progress)
                    report(progress)
                if stopping:
                    saved = f"the checkpoint of step {self.step} is saved"
                    raise KeyboardInterrupt(f"{saved}, and --resume continues from it.")
        return self.run.out / (CHECKPOINT if recipe.twin else MODEL)

    @contextmanager
    def _shared_threads(self) -> Iterator[None]:
        """Where kernels of our own have all threads, torch has one, unless a teacher needs more.

        Its threads and theirs would wait for work on the same CPUs, and keep each other from it.
        """
        of_torch = torch.get_num_threads()
        if self.arithmetic.kernels is not None and (self.teacher is None or self.pictures.taught is not None):
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(of_torch)

    def _forward(self) -> Callable[[Tensor], Tensor]:
        module: nn.Module = self.model
        if self.world > 1:
            module = nn.parallel.DistributedDataParallel(module, [self.device] if self.device.type == "cuda" else None)
        if self.run.compiled:
            return torch.compile(module, mode="reduce-overhead" if self.device.type == "cuda" else None)
        return module

    def _batches(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Training pairs of the steps that are left; on the CPU drawn a step ahead."""
        steps = range(self.step, self.run.recipe.steps)
        return ahead(self._draw, steps) if self.device.type == "cpu" else (self._draw(step) for step in steps)

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        recipe = self.run.recipe
        generator = generator_for(recipe.seed, step, self.rank, self.device)
        source, target = draw_batch(self.pictures, self.run.spec, recipe, generator, self.read)
        return source.contiguous(memory_format=torch.channels_last), target

    def _optimise(self, forward: Callable[[Tensor], Tensor], source: Tensor, target: Tensor) -> Tensor:
        """One step; returns its loss."""
        recipe = self.run.recipe
        if self.teacher is not None and self.pictures.taught is None:
            with torch.no_grad():
                target = target.lerp(self.teacher.module(source).clamp(0, 1), recipe.distill)
        output = forward(source)
        loss = F.l1_loss(output, target)
        self.optimiser.zero_grad()
        loss.backward()
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate_at(self.step)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(*self.averaging, 1 - recipe.ema_at(self.step))
        return loss.detach()

    def _simulation(self) -> Simulation:
        recipe = self.run.recipe
        return Simulation(
            window=recipe.window,
            twin=recipe.twin,
            half_products=self.arithmetic.half_products,
            kernels=self.arithmetic.kernels,
            threads=self.threads,
        )

    def _open_teacher(self) -> Teacher | None:
        run = self.run
        if run.teacher is None or run.recipe.distill == 0:
            return None
        return open_teacher(run.teacher, run.spec, self.device, self.arithmetic)

    def _taught(self, teacher: Teacher, images: list[NDArray[np.uint8]], report: Callable[[Lesson], None]) -> Pictures:
        """The pictures with the teacher's beside them, cut to whole pixels of the input that the teacher saw."""
        run, scale = self.run, self.run.spec.scale
        whole = [image[: len(image) // scale * scale, : image.shape[1] // scale * scale] for image in images]
        folder = run.teacher_pictures or run.out / "teacher"
        share, views = self.rank / self.world, run.teacher_views
        with stop_request() as stop:
            taught = taught_pictures(teacher, whole, folder, views=views, share=share, report=report, stop=stop)
        return Pictures(whole, self.device, taught, grid=scale)

    def _averaged(self) -> nn.Module:
        model = build_model(self.run.spec).to(self.device)
        model.load_state_dict(self.ema)
        exact = Simulation(kernels=self.arithmetic.kernels, threads=self.threads)
        simulate(model, self._simulation() if self.run.recipe.twin else exact)
        return model.eval()

    def _anyone(self, stop: threading.Event) -> bool:
        """Whether any process was asked to stop; they ask each other now and then, to end on the same step."""
        if self.world == 1:
            return stop.is_set()
        return self.step % _AGREE_EVERY == 0 and self._summed(float(stop.is_set())) > 0

    def _summed(self, value: float) -> float:
        """The sum over all processes, which all have to ask for it."""
        if self.world == 1:
            return value
        total = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(total)
        return total.item()

    def _save(self, progress: Progress) -> None:
        run = self.run
        checkpoint = {
            "spec": run.spec.to_dict(),
            "recipe": run.recipe.to_dict(),
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "psnr": self.psnr,
            "teacher": None if self.teacher is None else self.teacher.sha256,
            "provenance": self.provenance,
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
        }
        write_atomic(run.out / CHECKPOINT, lambda file: torch.save(checkpoint, file))
        if not run.recipe.twin:
            packed = pack(run.spec, {n: t.cpu().numpy() for n, t in self.ema.items()}, self._provenance())
            write_atomic(run.out / MODEL, lambda file: file.write(to_bytes(packed)))
        with (run.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({**asdict(progress), "pixels": self._pixels, "cpu_seconds": self.cpu_seconds}) + "\n")

    def _provenance(self) -> dict[str, str]:
        score = {} if self.psnr is None else {"validation_psnr": f"{self.psnr:.2f}"}
        seconds = {} if self.cpu_seconds is None else {"cpu_seconds": f"{self.cpu_seconds:.0f}"}
        return {
            "source": "trained with bbcu train",
            "recipe": json.dumps(self.run.recipe.to_dict()),
            "steps": str(self.step),
            "pixels": str(self._pixels),
            "seed": str(self.run.recipe.seed),
            "processes": str(self.world),
            "arithmetic": str(self.arithmetic),
            **score,
            **seconds,
            **self.provenance,
        }

    @property
    def _pixels(self) -> int:
        """Pixels of the input that the network has seen."""
        recipe = self.run.recipe
        return self.step * self.world * recipe.batch * recipe.patch**2

    def _saved(self) -> dict[str, Any]:
        """The checkpoint to go on from."""
        run, path = self.run, self.run.out / CHECKPOINT
        state = read_checkpoint(path)
        if state["spec"] != run.spec.to_dict():
            other = ModelSpec.from_dict(state["spec"])
            raise TrainingError(f"{path} is of another network ({other.arch} x{other.scale}); give another --out.")
        if state.get("teacher") is not None and run.teacher is None and run.recipe.distill > 0:
            raise TrainingError(
                f"{path} is of a run that has a teacher; give its --teacher, or --distill 0 to go on without."
            )
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.ema = {name: tensor.to(self.device) for name, tensor in state["ema"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.psnr = state["step"], state["psnr"]
        self.cpu_seconds = state.get("cpu_seconds")  # unknown of a run that began before it was counted
        self.provenance = {**state.get("provenance", {}), **self.provenance}
