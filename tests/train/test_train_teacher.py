"""Training from a teacher's pictures: what the student sees is what the teacher saw, and the pictures are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import small_model
from torch import Tensor
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import load_packed, to_bytes
from bbcu_cli.cli.app import app
from bbcu_cli.errors import TrainingError, UsageError
from bbcu_cli.restoration.memory import bytes_per_pixel
from bbcu_cli.spec import ModelSpec
from bbcu_cli.train import data, teacher
from bbcu_cli.train.arithmetic import Arithmetic
from bbcu_cli.train.checkpoint import CHECKPOINT, read_checkpoint
from bbcu_cli.train.data import Pictures, draw_batch, generator_for, reduce_whole
from bbcu_cli.train.loop import Run, train
from bbcu_cli.train.recipes import Recipe
from bbcu_cli.train.teacher import Lesson, Teacher, open_teacher, taught_pictures, turned, turned_back

CPU = torch.device("cpu")
TORCH = Arithmetic()
SR = ModelSpec(arch="bbcu-m", task="sr", scale=2, channels=3, features=8, blocks=2)
DENOISE = ModelSpec(arch="bbcu-dncnn", task="denoise", scale=1, channels=3, features=8, blocks=2)
RECIPE = Recipe(steps=4, batch=4, patch=8, rate=5e-3, warmup=3, ema=0.9, sigma=(40, 40))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Runs that are compared to the bit have the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def packed(folder: Path, spec: ModelSpec, seed: int = 0) -> str:
    """A packed model with random weights."""
    path = folder / f"{spec.task}-{spec.scale}-{seed}.safetensors"
    path.write_bytes(to_bytes(small_model(spec, seed)))
    return str(path)


def opened(folder: Path, spec: ModelSpec = SR) -> Teacher:
    """A teacher with random weights."""
    return open_teacher(packed(folder, spec), spec, CPU, TORCH)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture of random bytes: no two of its squares are alike."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def weights(run: Path) -> dict[str, Tensor]:
    """The trained weights in a folder of a run."""
    return read_checkpoint(run / CHECKPOINT)["model"]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether they are the same to the last bit."""
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_student_sees_what_the_teacher_saw(scale: int) -> None:
    """Every input of a batch is a square of the reduced picture, to the bit, and its target the same square larger."""
    spec, recipe = replace(SR, scale=scale), replace(RECIPE, batch=200, distill=1.0)
    image = noise(17 * scale, 15 * scale)
    inputs = reduce_whole(image, scale).astype(np.float32) / 255
    taught = np.random.default_rng(1).random(image.shape).astype(np.float16)
    store = Pictures([image], CPU, [taught], grid=scale)
    seen = set()
    for x, y in zip(*draw_batch(store, spec, recipe, generator_for(0, 0, 0, CPU)), strict=True):
        places = [
            (way, top, left)
            for way in range(8)
            for top in range(2, 8)
            for left in range(2, 6)
            if np.array_equal(oriented(inputs[top : top + 8, left : left + 8], way), x.permute(1, 2, 0).numpy())
        ]
        assert len(places) == 1
        way, top, left = places[0]
        square = taught[scale * top : scale * (top + 8), scale * left : scale * (left + 8)].astype(np.float32)
        np.testing.assert_array_equal(oriented(square, way), y.permute(1, 2, 0).numpy())
        seen.add(places[0])
    assert {way for way, _, _ in seen} == set(range(8))
    assert len({place[1:] for place in seen}) == 6 * 4


def oriented(image: np.ndarray, way: int) -> np.ndarray:
    """One of the eight flips and rotations, as `turned` makes it."""
    x = image.transpose(1, 0, 2) if way & 1 else image
    return x[:: -1 if way & 2 else 1, :: -1 if way & 4 else 1]


@pytest.mark.parametrize("way", range(8))
def test_every_view_is_turned_back(way: int) -> None:
    """On a picture that is no square either."""
    image = noise(5, 7)
    np.testing.assert_array_equal(turned(image, way), oriented(image, way))
    np.testing.assert_array_equal(turned_back(turned(image, way), way), image)


def test_the_target_is_a_mixture() -> None:
    """`distill` is the share of the teacher's picture, the truth is the rest."""
    image = noise(40, 40)
    taught = np.full(image.shape, 0.25, np.float16)
    batches = {
        share: draw_batch(
            Pictures([image], CPU, [taught], grid=2), SR, replace(RECIPE, distill=share), generator_for(0, 0, 0, CPU)
        )[1]
        for share in (0.0, 0.7, 1.0)
    }
    assert (batches[1.0] == 0.25).all()
    torch.testing.assert_close(batches[0.7], 0.3 * batches[0.0] + 0.7 * 0.25)


@pytest.mark.parametrize("kind", ["twin", "packed"])
def test_a_teacher_gives_the_mean_of_eight(
    kind: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of all flips and rotations, each turned back; tiles with their halo give the same as the whole."""
    name = packed(tmp_path, SR)
    if kind == "twin":
        name = str(train(Run(SR, replace(RECIPE, twin=True), pictures, tmp_path / "run")))
    one, image = open_teacher(name, SR, CPU, TORCH), noise(31, 26).astype(np.float32) / 255
    with torch.no_grad():
        ways = [one.module(torch.from_numpy(oriented(image, way).copy()).permute(2, 0, 1)[None]) for way in range(8)]
    once = ways[0][0].permute(1, 2, 0).numpy()
    back = [turned_back(y[0].permute(1, 2, 0).numpy(), way) for way, y in enumerate(ways)]
    with one.opened(8) as restore:
        whole = restore(image)
    np.testing.assert_allclose(whole, np.mean(back, axis=0), atol=1e-5)
    assert np.abs(once - whole).max() > 1e-3
    with one.opened(1) as restore:
        np.testing.assert_allclose(restore(image), once, atol=1e-5)
    monkeypatch.setattr(teacher, "_MEMORY", bytes_per_pixel(SR, 5) * (2 * SR.halo + 9) ** 2)
    with one.opened(8) as restore:
        np.testing.assert_allclose(restore(image), whole, atol=1e-5)


def test_pictures_are_made_once_and_shared(tmp_path: Path) -> None:
    """A second run finds all of them, a larger set makes only what is new, another teacher has its own."""
    one, images = opened(tmp_path), [noise(24, 20, seed) for seed in range(4)]
    made: list[Lesson] = []
    first = list(taught_pictures(one, images[:3], tmp_path / "kept", report=made.append))
    assert [lesson.picture for lesson in made] == [1, 2, 3]
    assert made[-1].restored == made[-1].total == 3 * 24 * 20
    with one.opened(8) as restore:
        expected = restore(reduce_whole(images[1], 2).astype(np.float32) / 255)
    np.testing.assert_array_equal(first[1], expected.clip(0, 1).astype(np.float16))
    made.clear()
    again = list(taught_pictures(one, images[::-1], tmp_path / "kept", share=0.5, report=made.append))
    assert made[-1].restored == 24 * 20
    np.testing.assert_array_equal(again[2], first[1])
    made.clear()
    other = open_teacher(packed(tmp_path, SR, seed=1), SR, CPU, TORCH)
    taught_pictures(other, images, tmp_path / "kept", report=made.append)
    assert made[-1].restored == made[-1].total
    made.clear()
    (fewer,) = taught_pictures(one, images[:1], tmp_path / "kept", views=2, report=made.append)
    assert made[-1].restored == 24 * 20
    assert not np.array_equal(fewer, first[0])


def test_a_strange_number_of_views_is_refused(pictures: Path, tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match="the mean of 1, 2, 4 or 8 views, not of 3"):
        train(Run(SR, RECIPE, pictures, tmp_path / "run", teacher_views=3))


def test_a_teacher_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    """The picture at work is given up, those before it are kept; litter of a killed run is removed."""
    one, images, stop = opened(tmp_path), [noise(24, 20, seed) for seed in range(3)], threading.Event()
    (tmp_path / "kept" / f"{one.sha256[:16]}-x8").mkdir(parents=True)
    litter = tmp_path / "kept" / f"{one.sha256[:16]}-x8" / ".bbcu-0123456789abcdef.part"
    litter.touch()
    made: list[Lesson] = []

    def report(lesson: Lesson) -> None:
        made.append(lesson)
        stop.set()

    with pytest.raises(KeyboardInterrupt):
        taught_pictures(one, images, tmp_path / "kept", report=report, stop=stop)
    assert len(made) == len(list(litter.parent.iterdir())) == 1
    taught_pictures(one, images, tmp_path / "kept", report=made.append)
    assert made[-1].restored == 2 * 24 * 20


def test_a_damaged_picture_of_a_teacher_is_named(tmp_path: Path) -> None:
    """The error says which file to remove."""
    one, images = opened(tmp_path), [noise(24, 20)]
    taught_pictures(one, images, tmp_path / "kept")
    (file,) = (tmp_path / "kept").rglob("*.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(TrainingError, match=r"\.npy cannot be read .* remove it"):
        list(taught_pictures(one, images, tmp_path / "kept"))
    np.save(file, np.zeros((24, 20, 3)))
    with pytest.raises(TrainingError, match=r"\.npy is no teacher's picture of 20x24"):
        list(taught_pictures(one, images, tmp_path / "kept"))


def test_a_teacher_of_something_else_is_refused(pictures: Path, tmp_path: Path) -> None:
    """Another scale or task, and the checkpoint of a binary network, which has a packed model."""
    with pytest.raises(TrainingError, match="is for sr x4, and the student for sr x2"):
        open_teacher(packed(tmp_path, replace(SR, scale=4)), SR, CPU, TORCH)
    with pytest.raises(TrainingError, match="is for denoise x1"):
        open_teacher(packed(tmp_path, DENOISE), SR, CPU, TORCH)
    train(Run(SR, RECIPE, pictures, tmp_path / "binary"))
    with pytest.raises(TrainingError, match="no full-precision twin; a binary network teaches by its packed model"):
        open_teacher(str(tmp_path / "binary" / CHECKPOINT), SR, CPU, TORCH)


@pytest.mark.parametrize("spec", [SR, DENOISE], ids=lambda spec: spec.task)
def test_twins_and_packed_models_teach(spec: ModelSpec, pictures: Path, tmp_path: Path) -> None:
    """Both change what is learned, each in its own way; pictures are kept for super-resolution, beside the run."""
    twin = train(Run(spec, replace(RECIPE, twin=True), pictures, tmp_path / "twin"))
    assert twin.name == CHECKPOINT
    train(Run(spec, RECIPE, pictures, tmp_path / "alone"))
    train(Run(spec, RECIPE, pictures, tmp_path / "by-twin", teacher=str(twin)))
    train(Run(spec, RECIPE, pictures, tmp_path / "by-packed", teacher=packed(tmp_path, spec)))
    found = [weights(tmp_path / name) for name in ("alone", "by-twin", "by-packed")]
    assert not any(equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    kept = list((tmp_path / "by-packed" / "teacher").rglob("*.npy"))
    assert len(kept) == (2 if spec.task == "sr" else 0)


def test_pictures_are_cut_to_whole_pixels_of_the_input(tmp_path: Path) -> None:
    """A picture of odd size loses its last row and column to a teacher of x2; without a teacher it keeps them."""
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.fromarray(noise(41, 37)).save(folder / "odd.png")
    run = Run(SR, RECIPE, folder, tmp_path / "run", teacher=packed(tmp_path, SR), teacher_pictures=tmp_path / "kept")
    train(run)
    (file,) = (tmp_path / "kept").rglob("*.npy")
    assert np.load(file).shape == (40, 36, 3)
    assert data.read_images(folder)[0].shape == (41, 37, 3)


def test_a_taught_run_does_not_go_on_without_its_teacher(pictures: Path, tmp_path: Path) -> None:
    """Unless that is asked for; the packed model names its teachers."""
    run = Run(SR, RECIPE, pictures, tmp_path / "run", teacher=packed(tmp_path, SR))
    (sha256,) = {open_teacher(packed(tmp_path, SR), SR, CPU, TORCH).sha256}
    path = train(run)
    assert sha256 in load_packed(path).provenance["teacher"]
    with pytest.raises(TrainingError, match="give its --teacher, or --distill 0"):
        train(replace(run, teacher=None, resume=True, recipe=replace(RECIPE, steps=5)))
    train(replace(run, resume=True, recipe=replace(RECIPE, steps=5)))
    train(replace(run, teacher=None, resume=True, recipe=replace(RECIPE, steps=6, distill=0)))
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 6


def test_the_command_tells_how_far_the_teacher_is(pictures: Path, tmp_path: Path) -> None:
    """In one line when it is done, and in none when there was nothing to do."""
    command = ["train", "--task", "sr", "--scale", "2", "--recipe", "quick", "--data", str(pictures), "--device", "cpu"]
    rest = ["--steps", "1", "--batch", "1", "--teacher", "sr-m-x2", "--teacher-pictures", str(tmp_path / "kept")]
    first = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "one"), *rest])
    assert first.exit_code == 0, first.output
    assert "teacher: 2 of 2 pictures" in first.stderr
    second = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "two"), *rest])
    assert "teacher:" not in second.stderr
