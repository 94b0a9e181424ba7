"""The training loop: one process per device, checkpoints that a kill cannot hurt, a log of JSON lines."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bbcu_cli.checkpoint.pack import pack
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.errors import TrainingError
from bbcu_cli.files import remove_stale_parts, write_atomic
from bbcu_cli.models.binary import Simulation, simulate
from bbcu_cli.models.build import build_model
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train.arithmetic import choose_arithmetic
from bbcu_cli.train.checkpoint import CHECKPOINT, LOG, MODEL, load_initial, placed, read_checkpoint
from bbcu_cli.train.data import Pictures, crop_size, draw_batch, generator_for, read_images
from bbcu_cli.train.photo_validation import PhotoValidation
from bbcu_cli.train.recipes import Recipe
from bbcu_cli.train.start import calm, centre
from bbcu_cli.train.teacher import Lesson, Teacher, open_teacher, taught_pictures
from bbcu_cli.train.validate import Validation

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
        psnr: the latest validation score in dB, None before the first.
        saved: a checkpoint has been written with this report, and the log has it too.
        gains: of a photo run, what the latest validation has gained on the input itself in dB, by level.
    """

    step: int
    loss: float
    rate: float
    speed: float
    psnr: float | None
    saved: bool
    gains: Mapping[str, float] | None = None


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
        init: packed model or checkpoint that the weights start from, also of another scale.
        resume: go on from the checkpoint in `out`.
        device: "cpu", "cuda", "cuda:1".
        compiled: use torch.compile (on CUDA with CUDA graphs).
        interval: steps between two checkpoints.
        provenance: what to write into the packed model beside the recipe: data, licence, command.
    """

    spec: ModelSpec
    recipe: Recipe
    data: Path
    out: Path
    val: Path | None = None
    teacher: str | None = None
    teacher_pictures: Path | None = None
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
        TrainingError: no usable pictures, or nothing to resume from, or a checkpoint of another network.
        KeyboardInterrupt: Ctrl-C (or SIGTERM); a checkpoint has been saved first.
    """
    with _processes(run.device) as (rank, world, device), _stop_request() as stop:
        return _Trainer(run, rank, world, device, report_lesson, stop).fit(report, stop)


@contextmanager
def _processes(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, number of processes, device) of this process, with the process group open under torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1, torch.device(device)
        return
    local = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if device.startswith("cuda") else device)
    torch.distributed.init_process_group("nccl" if local.type == "cuda" else "gloo")
    try:
        yield torch.distributed.get_rank(), world, local
        # None leaves while another still waits for what it sent, or writes the model.
        torch.distributed.barrier(device_ids=[local.index] if local.type == "cuda" else None)
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that a step is never cut in half."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield stop
        return
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Meter:
    """Mean loss and speed since the last checkpoint.

    Reading waits for the device, so between checkpoints it is done once a second at most.
    """

    def __init__(self, step: int, device: torch.device) -> None:
        self.total = torch.zeros((), device=device)
        self.start, self.started = step, time.perf_counter()
        self.last_read = self.started

    def add(self, loss: Tensor) -> None:
        self.total += loss

    def due(self) -> bool:
        return time.perf_counter() - self.last_read > 1

    def read(self, step: int, rate: float, psnr: float | None, *, saved: bool) -> Progress:
        """The report of that step; one that goes with a checkpoint starts a new mean."""
        steps, self.last_read = step - self.start, time.perf_counter()
        speed = steps / (self.last_read - self.started)
        progress = Progress(step, self.total.item() / steps, rate, speed, psnr, saved)
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
        stop: threading.Event,
    ) -> None:
        self.run, self.rank, self.world, self.device = run, rank, world, device
        self.arithmetic = choose_arithmetic(device, compiled=run.compiled)
        spec, recipe = run.spec, run.recipe
        if not run.resume and (run.out / CHECKPOINT).exists():
            raise TrainingError(f"{run.out} holds a run already; go on with it by --resume, or give another --out.")
        torch.manual_seed(recipe.seed)
        self.model = build_model(spec)
        if run.init is not None:
            load_initial(self.model, run.init)
        self.model = placed(self.model, device)
        images = read_images(run.data, crop_size(spec, recipe))
        self.teacher = self._open_teacher()
        if self.teacher is not None and spec.task == "sr":
            self.pictures = self._taught(self.teacher, images, report_lesson, stop)
        else:
            self.pictures = Pictures(images, device)
        del images  # as large as the pictures
        if run.init is None and not run.resume:
            self._start()
        self.ema = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=recipe.rate, fused=True)
        self.step = 0
        self.psnr: float | None = None
        if run.resume:
            self._restore()
        validation = PhotoValidation if recipe.photo else Validation
        self.validation = validation(spec, recipe, run.val) if run.val is not None and rank == 0 else None

    def _start(self) -> None:
        """Leave the initial weights where training is best begun, the same in every process."""
        recipe = self.run.recipe
        if recipe.twin:
            calm(self.model)
        elif recipe.start == "centred":
            first = generator_for(recipe.seed, 0, 0, self.device)
            centre(self.model, draw_batch(self.pictures, self.run.spec, recipe, first)[0])

    def fit(self, report: Callable[[Progress], None], stop: threading.Event) -> Path:
        """Run the steps that are left; see `train`."""
        recipe = self.run.recipe
        self.run.out.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(self.run.out)
        simulate(self.model, self._simulation())
        forward = self._forward()
        meter = _Meter(self.step, self.device)
        while self.step < recipe.steps:
            meter.add(self._optimise(forward))
            self.step += 1
            stopping = self._anyone(stop)
            saving = stopping or self.step == recipe.steps or self.step % self.run.interval == 0
            if saving and self.validation is not None:
                self.psnr = self.validation.score(self._averaged())
            if self.rank == 0 and (saving or meter.due()):
                progress = meter.read(self.step, recipe.rate_at(self.step - 1), self.psnr, saved=saving)
                if isinstance(self.validation, PhotoValidation):
                    progress = replace(progress, gains=self.validation.gains)
                if saving:
                    self._save(progress)
                report(progress)
            if stopping:
                raise KeyboardInterrupt
        return self.run.out / (CHECKPOINT if recipe.twin else MODEL)

    def _forward(self) -> Callable[[Tensor], Tensor]:
        module: nn.Module = self.model
        if self.world > 1:
            module = nn.parallel.DistributedDataParallel(module, [self.device] if self.device.type == "cuda" else None)
        if self.run.compiled:
            return torch.compile(module, mode="reduce-overhead" if self.device.type == "cuda" else None)
        return module

    def _optimise(self, forward: Callable[[Tensor], Tensor]) -> Tensor:
        """One step; returns its loss."""
        recipe = self.run.recipe
        generator = generator_for(recipe.seed, self.step, self.rank, self.device)
        source, target = draw_batch(self.pictures, self.run.spec, recipe, generator)
        source = source.contiguous(memory_format=torch.channels_last)
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
            state = self.model.state_dict()
            torch._foreach_lerp_(list(self.ema.values()), [state[n] for n in self.ema], 1 - recipe.ema_at(self.step))
        return loss.detach()

    def _simulation(self) -> Simulation:
        recipe = self.run.recipe
        return Simulation(
            window=recipe.window,
            twin=recipe.twin,
            half_products=self.arithmetic.half_products,
            kernels=self.arithmetic.kernels,
        )

    def _open_teacher(self) -> Teacher | None:
        run = self.run
        if run.teacher is None or run.recipe.distill == 0:
            return None
        return open_teacher(run.teacher, run.spec, self.device, self.arithmetic)

    def _taught(
        self,
        teacher: Teacher,
        images: list[NDArray[np.uint8]],
        report: Callable[[Lesson], None],
        stop: threading.Event,
    ) -> Pictures:
        """The pictures with the teacher's beside them, cut to whole pixels of the input that the teacher saw."""
        run, scale = self.run, self.run.spec.scale
        whole = [image[: len(image) // scale * scale, : image.shape[1] // scale * scale] for image in images]
        folder = run.teacher_pictures or run.out / "teacher"
        share = self.rank / self.world
        taught = taught_pictures(teacher, whole, folder, share=share, report=report, stop=stop)
        return Pictures(whole, self.device, taught, grid=scale)

    def _averaged(self) -> nn.Module:
        model = build_model(self.run.spec).to(self.device)
        model.load_state_dict(self.ema)
        twin = self.run.recipe.twin
        simulate(model, self._simulation() if twin else Simulation(kernels=self.arithmetic.kernels))
        return model.eval()

    def _anyone(self, stop: threading.Event) -> bool:
        """Whether any process was asked to stop; they ask each other now and then, to end on the same step."""
        if self.world == 1:
            return stop.is_set()
        if self.step % _AGREE_EVERY:
            return False
        flag = torch.tensor(float(stop.is_set()), device=self.device)
        torch.distributed.all_reduce(flag)
        return flag.item() > 0

    def _save(self, progress: Progress) -> None:
        run = self.run
        checkpoint = {
            "spec": run.spec.to_dict(),
            "recipe": run.recipe.to_dict(),
            "step": self.step,
            "psnr": self.psnr,
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
        }
        write_atomic(run.out / CHECKPOINT, lambda file: torch.save(checkpoint, file))
        if not run.recipe.twin:
            packed = pack(run.spec, {n: t.cpu().numpy() for n, t in self.ema.items()}, self._provenance())
            write_atomic(run.out / MODEL, lambda file: file.write(to_bytes(packed)))
        with (run.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(progress)) + "\n")

    def _provenance(self) -> dict[str, str]:
        score = {} if self.psnr is None else {"validation_psnr": f"{self.psnr:.2f}"}
        return {
            "source": "trained with bbcu train",
            "recipe": json.dumps(self.run.recipe.to_dict()),
            "steps": str(self.step),
            "seed": str(self.run.recipe.seed),
            "processes": str(self.world),
            "arithmetic": str(self.arithmetic),
            **score,
            **self.run.provenance,
        }

    def _restore(self) -> None:
        path = self.run.out / CHECKPOINT
        state = read_checkpoint(path)
        if state["spec"] != self.run.spec.to_dict():
            other = ModelSpec.from_dict(state["spec"])
            raise TrainingError(f"{path} is of another network ({other.arch} x{other.scale}); give another --out.")
        self.model.load_state_dict(state["model"])
        self.ema = {name: tensor.to(self.device) for name, tensor in state["ema"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.psnr = state["step"], state["psnr"]
