"""Training: the loop's promises on tiny networks, and batches equal to the degradations of the tables."""

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
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import load_packed
from bbcu_cli.cli.app import app
from bbcu_cli.cli.train import _words
from bbcu_cli.errors import TrainingError, UsageError
from bbcu_cli.image.color import rgb_to_y
from bbcu_cli.models.binary import BBCUB, BBCUU, Simulation, simulate
from bbcu_cli.models.build import build_model
from bbcu_cli.score import degrade
from bbcu_cli.spec import ModelSpec, Task
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

    def both(store: data.Pictures, spec: ModelSpec, recipe: Recipe, own: torch.Generator) -> tuple[torch.Tensor, ...]:
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


def test_ctrl_c_saves_before_it_ends(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT ends the run after the step, with a checkpoint of it."""
    monkeypatch.setattr(loop._Meter, "due", lambda _: True)

    def interrupt(progress: Progress) -> None:
        if progress.step == 5 and not progress.saved:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(Run(SR, RECIPE, pictures, tmp_path / "run", val=pictures, interval=10), interrupt)
    state = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert (state["step"], state["psnr"]) == (6, None)  # no validation holds it up
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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


def test_half_products_are_exact_and_their_gradients_close() -> None:
    """Signs multiplied in float16 give the float32 result; the gradients differ by bfloat16's rounding."""
    torch.manual_seed(0)
    unit = BBCUB(32)
    with torch.no_grad():
        unit.binary_conv.weight[0, 0] = 1.5  # outside the gradient's window
        unit.relu.pr_bias0.bias += 0.01  # sums of 0 stay clear of PReLU's kink, where rounding would choose the branch
    gradients, outputs = [], []
    for half in (False, True):
        simulate(unit, Simulation(half_products=half))
        x = torch.randn(2, 32, 7, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
        outputs.append(unit(x))
        outputs[-1].square().mean().backward()
        gradients.append((x.grad, unit.binary_conv.weight.grad))
        unit.zero_grad()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    for exact, half in zip(*gradients, strict=True):
        assert exact is not None
        assert half is not None
        assert (half - exact).abs().max() < 0.01 * exact.abs().max()
    assert (gradients[1][1][0, 0] == 0).all()


def test_nothing_of_the_twin_is_binary() -> None:
    """Latent weights and shifted inputs act as they are, whatever else is asked for."""
    unit = BBCUB(4)
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    simulate(unit, Simulation(twin=True, half_products=True))
    expected = x + unit.relu(torch.nn.functional.conv2d(unit.move0(x), unit.binary_conv.weight, padding=1))
    torch.testing.assert_close(unit(x), expected)


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("height", [1, 2, 3, 7])
def test_a_twin_in_bands_is_the_twin_in_one_piece(step: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients a twin's unit takes some rows at a time, each with the row above and below."""
    torch.manual_seed(0)
    unit = BBCUU(4, step) if step > 1 else BBCUB(4)
    unit.move0.bias.data += 0.3
    simulate(unit, Simulation(twin=True))
    x = torch.randn(2, 4, height, 5)
    whole = unit(x).detach()
    for pixels in (1, 12, 1000):
        monkeypatch.setattr("bbcu_cli.models.binary._BAND", pixels)
        with torch.no_grad():
            torch.testing.assert_close(unit(x), whole)


def test_crops_are_squares_of_the_pictures_turned_and_mirrored() -> None:
    """Every crop is found in its picture, and all eight orientations occur."""
    image = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)
    pictures = data.Pictures([np.zeros((3, 30, 3), np.uint8), image], CPU)
    crops = (
        data.crops_of(pictures.pixels, pictures.places(2_000, 5, torch.Generator().manual_seed(0)))
        .numpy()
        .transpose(0, 2, 3, 1)
    )
    seen = set()
    for crop in crops:
        found = [
            (way, top, left)
            for way in range(8)
            for top in range(5)
            for left in range(3)
            if np.array_equal(_oriented(image[top : top + 5, left : left + 5], way), crop)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 8 * 5 * 3


def _oriented(image: np.ndarray, way: int) -> np.ndarray:
    turned = image.transpose(1, 0, 2) if way & 1 else image
    return turned[:: -1 if way & 2 else 1, :: -1 if way & 4 else 1]


def test_of_several_candidates_detail_is_kept() -> None:
    """A square is kept in proportion to its detail: of two kinds, one of twice the detail, two thirds are that kind."""
    rows = np.arange(60)[:, None, None] % 2
    weak, strong = (np.broadcast_to(100 + rows * step, (60, 60, 3)).astype(np.uint8) for step in (20, 40))
    pictures = data.Pictures([weak, strong], CPU)
    places = pictures.places(4_000, 8, torch.Generator().manual_seed(0), candidates=2)
    share = (data.crops_of(pictures.pixels, places).amax((1, 2, 3)) == 140).float().mean().item()
    assert share == pytest.approx(0.25 + 0.5 * 2 / 3, abs=0.02)
    alone = pictures.places(4_000, 8, torch.Generator().manual_seed(0))
    assert (data.crops_of(pictures.pixels, alone).amax((1, 2, 3)) == 140).float().mean().item() == pytest.approx(
        0.5, abs=0.02
    )
    flat = data.Pictures([np.zeros((20, 20, 3), np.uint8)], CPU)
    assert flat.places(3, 8, torch.Generator().manual_seed(0), candidates=4).shape == (3, 8, 8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_reduced_batches_are_the_published_reduction(scale: int) -> None:
    """The input of super-resolution is that of `degrade.resize_bicubic`, in its inner part."""
    image = np.random.default_rng(0).integers(0, 256, (11 * scale, 9 * scale, 3), np.uint8)
    batch = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float()
    expected = degrade.resize_bicubic(image, (11, 9))[2:-2, 2:-2]
    found = data.reduce_bicubic(batch, scale)[0].numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(found, data.reduce_whole(image, scale)[2:-2, 2:-2])
    assert np.abs(found - expected).max() <= 1  # a half may be rounded down there, by the last bit of a sum
    assert (found == expected).mean() > 0.995


@pytest.mark.parametrize("quality", [5, 10, 30, 49, 50, 75, 95])
def test_jpeg_batches_are_libjpegs(quality: int) -> None:
    """Pixels of a photograph agree with libjpeg's but for its fixed-point rounding."""
    from skimage.data import chelsea

    y = np.round(rgb_to_y(chelsea()[:240, :320] / 255)).astype(np.uint8)
    expected = degrade.jpeg_luma(y, quality).astype(np.float32)
    batch = torch.from_numpy(np.stack([y, y])[:, None]).float()
    found = data.jpeg_luma(batch, torch.tensor([20, quality]))[1, 0].numpy()
    assert (found == expected).mean() > 0.9
    assert np.abs(found - expected).mean() < 0.1
    assert not np.array_equal(found, y)


def test_luma_batches_are_the_rounded_studio_luma() -> None:
    """The deblocking network's Y is that of the tables."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = data.studio_luma(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float())[0, 0].numpy()
    np.testing.assert_array_equal(found, np.round(rgb_to_y(image / 255)))


def test_noise_has_its_level_patch_by_patch(pictures: Path) -> None:
    """A fixed sigma is met; a range is spread over."""
    store = data.Pictures(data.read_images(pictures, 32), CPU)
    for low, high in ((25.0, 25.0), (0.0, 75.0)):
        recipe = replace(RECIPE, batch=64, patch=32, sigma=(low, high))
        x, y = data.draw_batch(store, DENOISE, recipe, data.generator_for(0, 0, 0, CPU))
        levels = 255 * (x - y).flatten(1).std(1)
        assert levels.min() >= 0.9 * low
        assert levels.max() <= 1.1 * high
        assert (levels.std() > 10) == (low < high)


def test_streams_depend_on_seed_step_and_process() -> None:
    """The same triple gives the same numbers, any other triple others."""
    draws = [torch.rand(4, generator=data.generator_for(*triple, CPU)) for triple in ((0, 1, 2), (0, 2, 1), (1, 0, 2))]
    assert torch.equal(draws[0], torch.rand(4, generator=data.generator_for(0, 1, 2, CPU)))
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    """Linear to the peak, half of it midway, a hundredth at the end."""
    recipe = Recipe(steps=1_100, batch=1, patch=8, rate=1.0, warmup=100)
    assert recipe.rate_at(0) == pytest.approx(0.01)
    assert recipe.rate_at(99) == recipe.rate_at(100) == pytest.approx(1.0)
    assert recipe.rate_at(600) == pytest.approx(0.505)
    assert recipe.rate_at(1_099) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("task", ["sr", "denoise", "deblock"])
def test_named_recipes_are_possible_and_survive_json(task: Task) -> None:
    """Every recipe makes batches, and comes back from its provenance."""
    for name in ("full", "quick"):
        recipe = RECIPES[name, task]
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        assert recipe.patch % 8 == 0


def test_the_command_overrides_the_recipe_and_resumes_with_it(pictures: Path, tmp_path: Path) -> None:
    """`bbcu train` prints the packed model; --resume keeps the recipe of the run but for what is given anew."""
    out = tmp_path / "run"
    common = ["train", "--task", "deblock", "--data", str(pictures), "--out", str(out), "--device", "cpu"]
    options = ["--recipe", "quick", "--steps", "1", "--batch", "1", "--patch", "16", "--quality", "20", "30"]
    first = CliRunner().invoke(app, [*common, *options])
    assert first.stdout.strip() == str(out / MODEL)
    assert first.exit_code == 0
    assert CliRunner().invoke(app, [*common, "--resume", "--steps", "2"]).exit_code == 0
    state = read_checkpoint(out / CHECKPOINT)
    assert state["step"] == 2
    assert Recipe.from_dict(state["recipe"]) == replace(
        RECIPES["quick", "deblock"], steps=2, batch=1, patch=16, quality=(20, 30)
    )
    refused = CliRunner().invoke(app, [*common, *options])
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    del state["recipe"]["window"]
    torch.save({**state, "recipe": {**state["recipe"], "loss": "l1"}}, out / CHECKPOINT)
    older = CliRunner().invoke(app, [*common, "--resume"])
    assert older.exit_code == 2
    assert "another version of bbcu, which differs in loss, window;" in " ".join(older.stderr.split())


def test_a_patch_of_broken_jpeg_blocks_is_refused(pictures: Path, tmp_path: Path) -> None:
    """Deblocking is told in a sentence that a patch is a multiple of 8; other tasks may have any."""
    command = ["train", "--data", str(pictures), "--out", str(tmp_path / "run"), "--patch", "30", "--task"]
    refused = CliRunner().invoke(app, [*command, "deblock"])
    assert refused.exit_code == 2
    assert "patch is 30" in refused.stderr
    assert "multiple of 8" in " ".join(refused.stderr.split())
    assert CliRunner().invoke(app, [*command, "denoise", "--steps", "1", "--batch", "1"]).exit_code == 0


def test_training_needs_pictures_and_a_place(pictures: Path) -> None:
    """One without the other is refused in a sentence."""
    refused = CliRunner().invoke(app, ["train", "--data", str(pictures)])
    assert refused.exit_code == 2
    assert "--out" in refused.stderr


def test_a_line_tells_what_matters() -> None:
    """Loss in levels of 255, speed, time left, and the scores, each level if there are several."""
    scores = {"sigma 15": 33.0, "sigma 25": 30.5}
    progress = Progress(500, 0.02, 1e-3, 4.0, 3_725.4, 31.75, saved=True, scores=scores)
    assert _words(progress) == (
        "loss 5.100  4.00 steps/s  1:02:05 left  validation 31.75 dB (sigma 15 33.00, sigma 25 30.50)"
    )
    assert _words(replace(progress, psnr=None, scores={})) == "loss 5.100  4.00 steps/s  1:02:05 left"


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("rate", -1.0), ("ema", 1.0), ("sigma", (5.0, 1.0)), ("quality", (0, 50))]
)
def test_impossible_recipes_are_refused(field: str, value: object) -> None:
    """The complaint names the field."""
    with pytest.raises(UsageError, match=field):
        replace(RECIPE, **{field: value})
