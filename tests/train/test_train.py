"""The training loop: its promises, on tiny networks."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bbcu_cli.checkpoint.packed import load_packed
from bbcu_cli.errors import TrainingError
from bbcu_cli.models.binary import BinaryConv2d
from bbcu_cli.models.build import build_model
from bbcu_cli.native import compiled
from bbcu_cli.score.photos import Read, decoded
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train import data, loop
from bbcu_cli.train.checkpoint import CHECKPOINT, LOG, MODEL, load_initial, read_checkpoint
from bbcu_cli.train.loop import Progress, Run, train
from bbcu_cli.train.recipes import RECIPES, Recipe, StartName
from bbcu_cli.train.validate import Validation

CPU = torch.device("cpu")
SR = ModelSpec(arch="bbcu-m", task="sr", scale=2, channels=3, features=8, blocks=2)
DENOISE = ModelSpec(arch="bbcu-dncnn", task="denoise", scale=1, channels=3, features=8, blocks=2)
DEBLOCK = ModelSpec(arch="bbcu-dncnn", task="deblock", scale=1, channels=1, features=8, blocks=2, bias=True)
RECIPE = Recipe(steps=30, batch=4, patch=8, rate=5e-3, warmup=3, ema=0.9, sigma=(40, 40), quality=(5, 5))

# Trains SR in a process of its own; kills it inside an interval if asked to.
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_train import RECIPE, SR
from bbcu_cli.train import loop
torch_draw, drawn = loop.draw_batch, 0
def draw(*arguments):
    global drawn
    drawn += 1
    if sys.argv[3] == "kill" and drawn == 18:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch_draw(*arguments)
loop.draw_batch = draw
loop.train(loop.Run(SR, RECIPE, Path(sys.argv[1]), Path(sys.argv[2]), interval=5))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are grouped by threads, so runs that are compared to the bit have the same number, that of `environment`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The file of SCRIPT."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return path


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The trained weights in a folder of a run."""
    return read_checkpoint(run / CHECKPOINT)["model"]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Equal to the last bit."""
    assert all(torch.equal(a[name], b[name]) for name in a)


def environment() -> dict[str, str]:
    """For processes of the tests: one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("spec", "start"),
    [(SR, "centred"), (DENOISE, "centred"), (SR, "published"), (DENOISE, "published"), (DEBLOCK, "published")],
    ids=lambda value: getattr(value, "task", value),
)
def test_training_is_deterministic_and_the_loss_falls(
    spec: ModelSpec, start: StartName, pictures: Path, tmp_path: Path
) -> None:
    """Thirty steps twice give the same bits, and the last losses are below the first.

    Not for deblock when centred, which begins at the loss of the JPEG itself: a tiny network needs longer to beat that.
    """
    for name in ("one", "two"):
        train(Run(spec, replace(RECIPE, start=start), pictures, tmp_path / name, interval=5))
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "one" / LOG).read_text().splitlines()]
    assert len(losses) == 6
    assert losses[-1] < 0.95 * losses[0]


def test_a_killed_run_resumes_to_the_same_bits(pictures: Path, tmp_path: Path, script: Path) -> None:
    """A kill -9 inside an interval loses that interval only; the resumed run ends like an uninterrupted one."""
    killed = tmp_path / "killed"
    command = [sys.executable, str(script), str(pictures), str(killed), "kill"]
    assert subprocess.run(command, check=False, env=environment()).returncode == -signal.SIGKILL
    assert read_checkpoint(killed / CHECKPOINT)["step"] == 15
    train(Run(SR, RECIPE, pictures, killed, resume=True, interval=5))
    train(Run(SR, RECIPE, pictures, tmp_path / "whole", interval=5))
    assert_same(weights(killed), weights(tmp_path / "whole"))
    one, other = (load_packed(run / MODEL) for run in (killed, tmp_path / "whole"))
    assert {**one.provenance, "cpu_seconds": ""} == {**other.provenance, "cpu_seconds": ""}
    np.testing.assert_array_equal(one.body[0].signs, other.body[0].signs)


def test_two_processes_train_as_one_with_both_batches(
    pictures: Path, tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun two gloo processes start alike, and average their gradients over batches that differ."""
    # By the loopback address: what the machine is called, and whether that name leads anywhere, is of no interest.
    here = ["--standalone", "--local-addr", "127.0.0.1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *here, "--nproc-per-node", "2"]
    command = [*torchrun, str(script), str(pictures), str(tmp_path / "two"), "-"]
    alone = {**environment(), "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}
    done = subprocess.run(command, check=False, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    calls = itertools.count()

    def both(
        store: data.Pictures, spec: ModelSpec, recipe: Recipe, own: torch.Generator, read: Read
    ) -> tuple[torch.Tensor, ...]:
        assert read is decoded
        call = next(calls)
        if call == 0:  # what the network is centred by
            return data.draw_batch(store, spec, recipe, own)
        streams = [data.generator_for(recipe.seed, call - 1, rank, CPU) for rank in (0, 1)]
        batches = [data.draw_batch(store, spec, recipe, stream) for stream in streams]
        assert not torch.equal(batches[0][0], batches[1][0])
        return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))

    monkeypatch.setattr(loop, "draw_batch", both)
    train(Run(SR, RECIPE, pictures, tmp_path / "one", interval=5))
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    # Sums in another order: the last bits differ, and Adam's normalisation makes more of the smallest gradients.
    assert all(torch.allclose(two[name], one[name], atol=2e-3) for name in one)
    assert load_packed(tmp_path / "two" / MODEL).provenance["processes"] == "2"


@pytest.mark.parametrize("kernels", ["scalar", "torch"])
def test_torch_leaves_the_threads_to_our_kernels(
    kernels: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pools of threads on the same CPUs would hold each other up; without our kernels torch has all."""
    if compiled is None and kernels != "torch":
        pytest.skip("the compiled module is missing")
    monkeypatch.setenv("BBCU_KERNEL", kernels)
    torch.set_num_threads(2)
    seen: list[tuple[int, int | None]] = []
    trainer = loop._Trainer(Run(SR, RECIPE, pictures, tmp_path / "run"), 0, 1, CPU, lambda _: None)

    def look(_: Progress) -> None:
        unit = next(module for module in trainer.model.modules() if isinstance(module, BinaryConv2d))
        seen.append((torch.get_num_threads(), unit.simulation.threads))

    trainer.fit(look, threading.Event())
    assert set(seen) == {(2 if kernels == "torch" else 1, 2)}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM", "SIGBREAK"])
def test_ctrl_c_saves_before_it_ends(
    kind: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal ends the run after the step, with a checkpoint of it."""
    monkeypatch.setattr(loop._Meter, "due", lambda _: True)
    if not hasattr(signal, "SIGBREAK"):  # of Windows; another stands in for it
        monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.getsignal(getattr(signal, kind))

    def interrupt(progress: Progress) -> None:
        if progress.step == 5 and not progress.saved:
            signal.raise_signal(getattr(signal, kind))

    with pytest.raises(KeyboardInterrupt, match="step 6 is saved, and --resume"):
        train(Run(SR, RECIPE, pictures, tmp_path / "run", val=pictures, interval=10), interrupt)
    state = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert (state["step"], state["psnr"]) == (6, None)  # no validation holds it up
    assert signal.getsignal(getattr(signal, kind)) is before


def test_ctrl_c_while_pictures_are_read_ends_at_once(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there yet that would have to be saved."""

    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("bbcu_cli.train.data.decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(Run(SR, RECIPE, pictures, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_training_works_outside_the_main_thread(pictures: Path, tmp_path: Path) -> None:
    """Signals belong to the main thread; elsewhere the run leaves them alone."""
    thread = threading.Thread(target=train, args=[Run(SR, replace(RECIPE, steps=2), pictures, tmp_path / "run")])
    thread.start()
    thread.join()
    assert (tmp_path / "run" / MODEL).exists()


def test_the_packed_model_says_how_it_was_made(pictures: Path, tmp_path: Path) -> None:
    """Recipe, steps, seed, pixels, seconds, score and the caller's words are in its provenance, also after a resume."""
    recipe, out = replace(RECIPE, steps=3, seed=7), tmp_path / "run"
    said = {"data": "two photographs", "command": "the first"}
    path = train(Run(SR, recipe, pictures, out, val=pictures, provenance=said))
    provenance = load_packed(path).provenance
    assert Recipe.from_dict(json.loads(provenance["recipe"])) == recipe
    assert (provenance["steps"], provenance["seed"], provenance["data"]) == ("3", "7", "two photographs")
    assert provenance["pixels"] == str(3 * recipe.batch * recipe.patch**2)
    assert 5 < float(provenance["validation_psnr"]) < 60
    spent = read_checkpoint(out / CHECKPOINT)["cpu_seconds"]
    assert spent > 0

    longer = replace(recipe, steps=5)
    train(Run(SR, longer, pictures, out, resume=True, provenance={"data": "2 photographs", "resumed by": "the second"}))
    provenance = load_packed(path).provenance
    assert (provenance["steps"], provenance["pixels"]) == ("5", str(5 * recipe.batch * recipe.patch**2))
    assert (provenance["command"], provenance["resumed by"]) == ("the first", "the second")
    assert provenance["data"] == "2 photographs"
    assert read_checkpoint(out / CHECKPOINT)["cpu_seconds"] > spent
    line = json.loads((out / LOG).read_text().splitlines()[-1])
    assert (line["pixels"], line["cpu_seconds"]) == (int(provenance["pixels"]), pytest.approx(spent, abs=60))


def test_a_run_of_an_earlier_version_goes_on(pictures: Path, tmp_path: Path) -> None:
    """What its checkpoint cannot know is left out or as it was then, and the steps are those of today."""
    train(Run(SR, RECIPE, pictures, tmp_path / "whole"))
    out = tmp_path / "run"
    train(Run(SR, replace(RECIPE, steps=20), pictures, out))
    state = read_checkpoint(out / CHECKPOINT)
    for name in ("cpu_seconds", "teacher", "provenance"):
        del state[name]
    del state["recipe"]["candidates"]
    torch.save(state, out / CHECKPOINT)
    recipe = Recipe.from_dict(read_checkpoint(out / CHECKPOINT)["recipe"])
    train(Run(SR, replace(recipe, steps=20), pictures, out, resume=True))
    path = train(Run(SR, replace(recipe, steps=21), pictures, out, resume=True))
    assert "cpu_seconds" not in load_packed(path).provenance
    assert read_checkpoint(out / CHECKPOINT)["step"] == 21


def test_the_time_left_is_told_by_the_pace_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a resume, steps of the past do not make the run look fast."""
    clock = itertools.chain([100.0], itertools.repeat(120.0))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(clock))
    meter = loop._Meter(9_000, 10_000, CPU)
    for _ in range(10):
        meter.add(torch.ones(()))
    progress = meter.read(9_010, 1e-3, None, {}, saved=True)
    assert (progress.speed, progress.remaining, progress.loss) == (0.5, 990 * 2, 1)


def test_networks_are_validated_at_the_levels_of_the_tables(pictures: Path) -> None:
    """All that the recipe trains for, or the nearest to them, each once."""
    for spec, recipe, levels in (
        (SR, RECIPE, ["x2"]),
        (DENOISE, RECIPES["quick", "denoise"], ["sigma 15", "sigma 25", "sigma 50"]),
        (DENOISE, replace(RECIPE, sigma=(50, 50)), ["sigma 50"]),
        (DENOISE, replace(RECIPE, sigma=(0, 15)), ["sigma 15"]),
        (DEBLOCK, RECIPES["quick", "deblock"], ["quality 10", "quality 20", "quality 30", "quality 40"]),
        (DEBLOCK, replace(RECIPE, quality=(20, 35)), ["quality 20", "quality 30", "quality 35"]),
    ):
        validation = Validation(spec, recipe, pictures)
        mean = validation.score(build_model(spec))
        assert list(validation.scores) == levels
        assert mean == pytest.approx(sum(validation.scores.values()) / len(levels))


def test_every_level_is_in_the_log(pictures: Path, tmp_path: Path) -> None:
    """With their mean, at the checkpoints that were validated: few, for it takes time, and always the last."""
    recipe = replace(RECIPE, steps=20, sigma=(0, 25))
    train(Run(DENOISE, recipe, pictures, tmp_path / "run", val=pictures, interval=1))
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    validated = [line for line in lines if line["scores"]]
    assert list(lines[0]["scores"]) == list(lines[-1]["scores"]) == ["sigma 15", "sigma 25"]
    assert len(validated) < len(lines) == 20
    for line in validated:
        assert line["psnr"] == pytest.approx(sum(line["scores"].values()) / 2)


def test_a_folder_without_images_is_refused(pictures: Path, tmp_path: Path) -> None:
    """The error says what is wrong with the folder: missing, empty, or too small for the patch."""
    with pytest.raises(TrainingError, match="is not a folder"):
        train(Run(SR, RECIPE, tmp_path / "missing", tmp_path / "run"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="holds no image"):
        train(Run(SR, RECIPE, tmp_path / "empty", tmp_path / "run"))
    with pytest.raises(TrainingError, match="2 image"):
        train(Run(SR, replace(RECIPE, patch=200), pictures, tmp_path / "run"))


def test_a_finished_run_is_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    """Without --resume an --out that holds a run is refused; a checkpoint of another network is, too."""
    train(Run(SR, replace(RECIPE, steps=1), pictures, tmp_path / "run"))
    with pytest.raises(TrainingError, match="--resume"):
        train(Run(SR, RECIPE, pictures, tmp_path / "run"))
    with pytest.raises(TrainingError, match="another network"):
        train(Run(replace(SR, scale=4), RECIPE, pictures, tmp_path / "run", resume=True))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    """A file that is no checkpoint is named."""
    (tmp_path / CHECKPOINT).write_bytes(b"garbage")
    with pytest.raises(TrainingError, match="Cannot read"):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_packed_weights_of_another_scale_start_a_run(pictures: Path, tmp_path: Path) -> None:
    """--init takes the body of x2 for x3, leaves what does not fit, and refuses a file that fits nowhere."""
    path = train(Run(SR, replace(RECIPE, steps=1), pictures, tmp_path / "run"))
    model = build_model(replace(SR, scale=3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    taken = load_initial(model, path)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert taken < len(before)
    assert any(name.startswith("body") for name in changed)
    assert not any(name.startswith("upconv1.binary_conv") for name in changed)
    with pytest.raises(TrainingError, match="none of its tensors"):
        load_initial(build_model(DEBLOCK), path)


def test_a_twin_starts_from_a_twin_of_another_scale(pictures: Path, tmp_path: Path) -> None:
    """It takes what fits; what is new starts as calm as in any twin, and the loss is that of the first twin."""
    recipe = replace(RECIPE, twin=True)
    first = train(Run(SR, recipe, pictures, tmp_path / "x2"))
    larger, once = replace(SR, scale=4), replace(recipe, steps=1, rate=1e-9, ema=0.0)
    train(Run(larger, once, pictures, tmp_path / "x4", init=first))
    old, new = weights(tmp_path / "x2"), weights(tmp_path / "x4")
    same = {name for name in old if torch.allclose(old[name], new[name], atol=1e-6)}
    assert same == set(old)
    assert new["upconv2.binary_conv.weight"].std() < 0.05  # kaiming gives 0.17
    losses = [json.loads((tmp_path / run / LOG).read_text().splitlines()[-1])["loss"] for run in ("x2", "x4")]
    assert losses[1] < 3 * losses[0]


def test_binary_networks_and_twins_do_not_start_each_other(pictures: Path, tmp_path: Path) -> None:
    """The error says which is which."""
    recipe = replace(RECIPE, steps=1)
    twin = train(Run(SR, replace(recipe, twin=True), pictures, tmp_path / "twin"))
    binary = train(Run(SR, recipe, pictures, tmp_path / "binary"))
    with pytest.raises(TrainingError, match=r"Cannot start a binary network from .* which is of a twin"):
        train(Run(SR, recipe, pictures, tmp_path / "one", init=twin))
    for path in (binary, tmp_path / "binary" / CHECKPOINT):
        with pytest.raises(TrainingError, match=r"Cannot start a twin from .* which is of a binary network"):
            train(Run(SR, replace(recipe, twin=True), pictures, tmp_path / "two", init=path))


def _oriented(image: np.ndarray, way: int) -> np.ndarray:
    turned = image.transpose(1, 0, 2) if way & 1 else image
    return turned[:: -1 if way & 2 else 1, :: -1 if way & 4 else 1]
