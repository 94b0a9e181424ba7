"""Training on photos as people have them: what is drawn, that it repeats, and what it is validated on."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import photo
from small import small_model
from test_train import CPU, DEBLOCK, RECIPE, SR, assert_same, weights
from torch import Tensor, nn
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import load_packed, to_bytes
from bbcu_cli.cli.app import app
from bbcu_cli.errors import TrainingError
from bbcu_cli.hub import Catalogue
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Shelf, load_model
from bbcu_cli.restoration.pipeline import restore, run_tiled
from bbcu_cli.restoration.serving import Restorer, serve
from bbcu_cli.score.camera import MID_GRAY, camera_noise
from bbcu_cli.score.photos import compress_jpeg, decoded, jpeg_bytes
from bbcu_cli.spec import COLOUR_DEBLOCK_SPEC, DENOISE_SPEC, ModelSpec
from bbcu_cli.train import data, photos
from bbcu_cli.train.deblocked import reader
from bbcu_cli.train.loop import LOG, MODEL, Run, train
from bbcu_cli.train.photo_validation import PhotoValidation
from bbcu_cli.train.recipes import RECIPES, Recipe, photo_recipe

COLOUR = replace(COLOUR_DEBLOCK_SPEC, features=8, blocks=2)
DENOISE = replace(DENOISE_SPEC, features=8, blocks=2)
PHOTO = replace(RECIPE, steps=6, patch=16, photo=True, quality=(30, 90), sigma=(0.0, 30.0))


def draw(store: data.Pictures, spec: ModelSpec, recipe: Recipe, step: int = 0) -> tuple[Tensor, Tensor]:
    """The batch of a step."""
    return data.draw_batch(store, spec, recipe, data.generator_for(0, step, 0, CPU))


@pytest.fixture
def store(pictures: Path) -> data.Pictures:
    """The training pictures of the tests."""
    return data.Pictures(data.read_images(pictures, 16), CPU)


@pytest.mark.parametrize("spec", [SR, DENOISE, COLOUR], ids=lambda spec: spec.task)
def test_batches_depend_on_their_stream_alone(spec: ModelSpec, store: data.Pictures) -> None:
    """The same stream gives the same batch, also while another thread draws; another step gives another batch."""
    alone = [draw(store, spec, PHOTO, step) for step in range(6)]
    assert not torch.equal(alone[0][0], alone[1][0])
    together: dict[int, tuple[Tensor, Tensor]] = {}

    def work(steps: range) -> None:
        together.update({step: draw(store, spec, PHOTO, step) for step in steps})

    np.random.seed(1)  # noqa: NPY002 - what nothing may depend on
    threads = [threading.Thread(target=work, args=[range(first, 6, 2)]) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step, (x, y) in enumerate(alone):
        assert torch.equal(together[step][0], x)
        assert torch.equal(together[step][1], y)


@pytest.mark.parametrize("spec", [SR, DENOISE, COLOUR], ids=lambda spec: spec.task)
def test_a_batch_is_a_degraded_and_a_sharp_patch_of_one_place(spec: ModelSpec, store: data.Pictures) -> None:
    """Whole 8-bit values of the shapes that the network takes, each input nearest to its own target."""
    recipe = replace(PHOTO, batch=16, sigma=(0.0, 10.0))
    x, y = draw(store, spec, recipe)
    assert x.shape == (16, 3, 16, 16)
    assert y.shape == (16, 3, 16 * spec.scale, 16 * spec.scale)
    assert torch.equal((x * 255).round() / 255, x)
    small = torch.nn.functional.avg_pool2d(y, spec.scale) if spec.scale > 1 else y
    distances = (x[:, None] - small[None]).abs().mean((2, 3, 4))
    assert torch.equal(distances.argmin(1), torch.arange(16))
    assert distances.diagonal().mean() > 0.002


def test_the_grid_of_blocks_lies_anywhere(store: data.Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of heavily compressed patches, the steps between columns of blocks are found at each of the 8 places."""
    monkeypatch.setattr(photos, "WEBP", 0.0)
    monkeypatch.setattr(photos, "TWICE", 0.0)
    recipe = replace(PHOTO, batch=400, patch=24, quality=(4, 4))
    x, _ = draw(store, COLOUR, recipe)
    steps = x.mean(1).diff(dim=2).abs().mean(1)  # between neighbouring columns, (N, 23)
    by_phase = torch.stack([steps[:, phase::8].mean(1) for phase in range(8)], 1)
    found = torch.bincount(by_phase.argmax(1), minlength=8)
    assert found.min() > 400 / 8 / 2


def test_a_range_of_qualities_is_kept(store: data.Pictures) -> None:
    """The worse the quality, the further from the target; a fixed one is a range too."""
    errors = []
    for quality in (10, 50, 90):
        x, y = draw(store, COLOUR, replace(PHOTO, batch=32, quality=(quality, quality)))
        errors.append(float((x - y).abs().mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2] > 0


def test_a_range_of_noise_is_kept(store: data.Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels stay within the range, by Gaussian noise over the patch; most camera noise is in its lower half."""
    monkeypatch.setattr(photos, "RESIZED", 0.0)
    monkeypatch.setitem(photos.LOSSLESS, "denoise", 1.0)
    levels = {}
    for camera in (0.0, 1.0):
        monkeypatch.setattr(photos, "CAMERA", camera)
        x, y = draw(store, DENOISE, replace(PHOTO, batch=128, patch=32, sigma=(5.0, 20.0)))
        levels[camera] = 255 * (x - y).flatten(1).std(1)
    assert 4.5 < levels[0.0].min() < levels[0.0].max() < 21
    assert levels[0.0].median() == pytest.approx(12, abs=2)
    assert levels[1.0].median() < 10


def test_cameras_span_what_finished_pictures_show() -> None:
    """Noise on a gray card, over many cameras: luma and chroma correlate as in the pictures of Nam et al. (CVPR 2016).

    There luma has 0.43 to 0.62 at one pixel, 0.60 in the middle; red chroma 0.84 to 0.92, 0.88; and at four pixels
    0.18 to 0.46, 0.33.
    """
    rng, card = np.random.default_rng(0), np.full((96, 96, 3), MID_GRAY, np.uint8)
    found = []
    for _ in range(100):
        noise = camera_noise(card, 5.0, photos.draw_camera(rng), rng)
        luma, red = noise @ [0.299, 0.587, 0.114], noise @ [0.5, -0.419, -0.081]
        found.append([(p * np.roll(p, d, 1)).mean() / p.var() for p, d in ((luma, 1), (red, 1), (red, 4))])
    low, middle, high = np.percentile(found, [10, 50, 90], axis=0)
    assert (low < [0.43, 0.84, 0.18]).all()
    assert (high > [0.62, 0.92, 0.46]).all()
    np.testing.assert_allclose(middle, [0.60, 0.88, 0.33], atol=0.06)


@pytest.mark.parametrize("spec", [SR, DENOISE, COLOUR], ids=lambda spec: spec.task)
def test_a_photo_run_resumes_to_the_same_bits(spec: ModelSpec, pictures: Path, tmp_path: Path) -> None:
    """Stopped halfway and resumed, it ends like one that was not."""
    recipe = replace(
        PHOTO, steps=4, batch=2, patch=8, warmup=4
    )  # the rate of a warm-up does not depend on the number of steps
    train(Run(spec, replace(recipe, steps=2), pictures, tmp_path / "two"))
    train(Run(spec, recipe, pictures, tmp_path / "two", resume=True))
    train(Run(spec, recipe, pictures, tmp_path / "one"))
    assert_same(weights(tmp_path / "two"), weights(tmp_path / "one"))


def test_a_colour_deblocker_packs_and_restores_rgb(tmp_path: Path) -> None:
    """It sees the three channels of the picture as they are, gray as three equal ones."""
    path = tmp_path / "colour.safetensors"
    path.write_bytes(to_bytes(small_model(replace(COLOUR_DEBLOCK_SPEC, blocks=2))))
    pixels = photo(40, 50)
    with load_model(str(path), engine="reference") as model:
        assert model.spec.channels == 3
        y = run_tiled(model, pixels / np.float32(255))
        expected = np.rint(np.clip(y, 0, 1) * 255)
        np.testing.assert_array_equal(restore(pixels, model), expected)
        assert restore(pixels[..., :1], model).shape == (40, 50, 1)


def test_a_luma_network_is_refused(pictures: Path, tmp_path: Path) -> None:
    """Photos are in colour."""
    with pytest.raises(TrainingError, match="3 channels"):
        train(Run(DEBLOCK, PHOTO, pictures, tmp_path / "run"))


class _Identity(nn.Module):
    """A network that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.none


@pytest.mark.parametrize(
    ("spec", "recipe", "levels"),
    [
        (SR, PHOTO, ["x2, JPEG 40", "x2, JPEG 60", "x2, JPEG 75", "x2, JPEG 85", "x2, JPEG 95", "x2"]),
        (COLOUR, replace(PHOTO, quality=(80, 96)), [f"quality {q}, colour" for q in (80, 90, 95)]),
        (COLOUR, replace(PHOTO, quality=(97, 98)), ["quality 97, colour"]),
        (
            DENOISE,
            replace(PHOTO, sigma=(3.0, 10.0)),
            ["sigma 5, JPEG 90", "sigma 3, camera, JPEG 90", "sigma 6, camera, JPEG 90"],
        ),
    ],
)
def test_validation_is_at_levels_that_the_recipe_trains_for(
    spec: ModelSpec, recipe: Recipe, levels: list[str], pictures: Path
) -> None:
    """The baseline is the input itself at each level, so that a network that changes nothing gains nothing."""
    validation = PhotoValidation(spec, recipe, pictures)
    assert list(validation.baseline) == levels
    assert all(20 < psnr < 60 for psnr in validation.baseline.values())
    if spec.scale == 1:
        score = validation.score(_Identity())
        assert score == pytest.approx(np.mean(list(validation.baseline.values())), abs=1e-9)
        assert validation.scores == pytest.approx(dict.fromkeys(levels, 0), abs=1e-9)
    again = PhotoValidation(spec, recipe, pictures)
    assert again.baseline == validation.baseline


def test_the_log_has_the_gain_at_each_level(pictures: Path, tmp_path: Path) -> None:
    """A line of the log has the mean, and what was gained by level."""
    train(Run(COLOUR, replace(PHOTO, steps=1), pictures, tmp_path / "run", val=pictures))
    line = json.loads((tmp_path / "run" / LOG).read_text())
    assert list(line["scores"]) == [
        "quality 30, colour",
        "quality 50, colour",
        "quality 70, colour",
        "quality 80, colour",
        "quality 90, colour",
    ]
    assert line["psnr"] > 20


def test_photo_recipes_have_ranges_of_their_own() -> None:
    """`--photo` alone trains for what files have; the paper's ranges stay where it is not given."""
    assert photo_recipe(RECIPES["full", "sr"], "sr").quality == (30, 96)
    assert photo_recipe(RECIPES["full", "denoise"], "denoise").sigma == (0, 50)
    assert not RECIPES["full", "sr"].photo


def test_the_command_trains_a_colour_deblocker_and_resumes_it(pictures: Path, tmp_path: Path) -> None:
    """`--photo` makes deblocking a matter of three channels; --resume knows by the recipe."""
    out = tmp_path / "run"
    common = ["train", "--task", "deblock", "--data", str(pictures), "--out", str(out), "--device", "cpu"]
    options = ["--photo", "--recipe", "quick", "--steps", "1", "--batch", "1", "--patch", "8", "--quality", "80", "96"]
    assert CliRunner().invoke(app, [*common, *options]).exit_code == 0
    assert CliRunner().invoke(app, [*common, "--resume", "--steps", "2"]).exit_code == 0
    packed = load_packed(out / MODEL)
    assert packed.spec == COLOUR_DEBLOCK_SPEC
    recipe = json.loads(packed.provenance["recipe"])
    assert (recipe["photo"], recipe["quality"], recipe["steps"]) == (True, [80, 96], 2)


def test_networks_behind_the_deblocking_one_see_what_it_makes(store: data.Pictures) -> None:
    """By the weights that ship, as the command line would, wherever the block grid lies; that one sees the file."""
    picture = photo(64, 80)
    recipe = replace(PHOTO, batch=12, quality=(40, 60))
    for task, kind in (("deblock", True), ("denoise", False)):
        with reader(task, photo=kind) as read:
            assert read is decoded
    with reader("denoise", photo=True) as read, Shelf(load_model) as shelf:
        restorer = Restorer(partial(serve, Wish("deblock"), Catalogue.load(), shelf))
        file = jpeg_bytes(np.pad(picture, ((3, 0), (5, 0), (0, 0)), "edge"), 50)
        expected = restorer(file).pixels[3:, 5:]
        np.testing.assert_array_equal(compress_jpeg(picture, 50, phase=(3, 5), read=read), expected)
        assert (expected != compress_jpeg(picture, 50, phase=(3, 5))).any()
        plain, target = draw(store, DENOISE, recipe)
        behind, same = data.draw_batch(store, DENOISE, recipe, data.generator_for(0, 0, 0, CPU), read)
    assert torch.equal(target, same)
    changed = (plain != behind).flatten(1).any(1)
    assert 0 < changed.sum() < 12  # some inputs are lossless
    assert (plain - behind).abs().max() < 0.3


def test_a_run_behind_the_deblocking_network_is_validated_there(pictures: Path) -> None:
    """Inputs are what that makes of the files; the gain is still counted from the files."""
    recipe = replace(PHOTO, quality=(60, 100), sigma=(0.0, 6.0))
    plain = PhotoValidation(DENOISE, recipe, pictures)
    with reader("denoise", photo=True) as read:
        behind = PhotoValidation(DENOISE, recipe, pictures, read)
    assert behind.baseline == plain.baseline
    for level, pairs in behind.pairs.items():
        for (truth, x), (other_truth, other) in zip(pairs, plain.pairs[level], strict=True):
            np.testing.assert_array_equal(truth, other_truth)
            assert (x != other).any()
            assert np.abs(x - other).max() < 0.3
