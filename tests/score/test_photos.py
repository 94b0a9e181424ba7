"""Degradations of photos are what they claim: real encoders on any grid, and a camera's noise by its formula."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from pictures import photo
from PIL import Image as Pillow
from PIL import JpegImagePlugin
from skimage.data import astronaut

from bbcu_cli.errors import UsageError
from bbcu_cli.image import Image
from bbcu_cli.score import camera as cameras
from bbcu_cli.score.camera import MID_GRAY, Camera, camera_noise, demosaic, noise_curve, read_noise, smooth
from bbcu_cli.score.degrade import resize_bicubic
from bbcu_cli.score.photos import Sampling, compress_jpeg, compress_webp, jpeg_bytes, reduce
from bbcu_cli.score.trial import Trial

CAMERA = Camera(shot=2e-3, read=read_noise(2e-3), luma=0.7, chroma=2.5)


@pytest.mark.parametrize(("sampling", "code"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_a_jpeg_has_the_sampling_and_the_quality_asked_for(sampling: Sampling, code: int) -> None:
    """The file's own header says both; its tables are those that libjpeg makes of that quality."""
    with Pillow.open(io.BytesIO(jpeg_bytes(photo(), 83, sampling))) as file:
        assert JpegImagePlugin.get_sampling(file) == code
        # 200 - 2 * 83 = 34 % of the first steps of annex K.1 and K.2, which are 16 and 17.
        assert (file.quantization[0][0], file.quantization[1][0]) == (5, 6)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_phase_is_that_of_a_picture_cropped_after_compression(sampling: Sampling) -> None:
    """Beyond the first block, compressing a crop on its grid gives what cropping the compressed picture gives."""
    picture = astronaut()[:160, :160]
    whole = compress_jpeg(picture, 40, sampling)
    for top, left in ((3, 5), (9, 0), (15, 9)):
        part = compress_jpeg(picture[top:, left:], 40, sampling, (top, left))
        # A block and, where chroma is interpolated over its edge, two pixels more.
        np.testing.assert_array_equal(part[18 - top :, 18 - left :], whole[18:, 18:])
        assert not np.array_equal(part[16:], compress_jpeg(picture[top:, left:], 40, sampling)[16:])


def test_webp_is_lossy_and_keeps_the_size() -> None:
    """Less quality is further away, at any phase."""
    picture = astronaut()[:70, :83]
    errors = [np.abs(compress_webp(picture, q, (5, 2)).astype(int) - picture).mean() for q in (20, 60, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("quality", [0, 101])
def test_an_impossible_quality_is_refused(quality: int) -> None:
    """The message says what was asked for; WebP knows a quality of 0."""
    with pytest.raises(UsageError, match=str(quality)):
        compress_jpeg(photo(), quality)
    with pytest.raises(UsageError, match="WebP"):
        compress_webp(photo(), quality or -1)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_bicubic_reduction_is_that_of_the_tables(scale: int) -> None:
    """In float32, so that a half may round the other way; what exceeds a multiple of the scale is cropped."""
    picture = np.random.default_rng(0).integers(0, 256, (11 * scale + 1, 9 * scale, 3), np.uint8)
    expected = resize_bicubic(picture[: 11 * scale], (11, 9))
    found = reduce(picture, scale)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.99


@pytest.mark.parametrize("kernel", ["lanczos", "area", "bilinear"])
def test_other_reductions_are_not_shifted(kernel: str) -> None:
    """A ramp stays the same ramp, so that the target lies where the input says."""
    ramp = np.repeat(np.tile(np.arange(0, 240, 4, dtype=np.uint8), (60, 1))[..., None], 3, axis=2)
    found = reduce(ramp, 2, kernel).astype(int)
    np.testing.assert_allclose(found[5:-5, 5:-5], reduce(ramp, 2).astype(int)[5:-5, 5:-5], atol=1)


def test_noise_has_the_variance_of_shot_and_read_noise() -> None:
    """On flat gray, its deviation is sqrt(shot * x + read) times the slope of sRGB's curve at that light x."""
    plain = replace(CAMERA, contrast=0.0, shot=3e-3, read=1e-4)
    rng = np.random.default_rng(0)

    def formula(value: int) -> float:
        light = ((value / 255 + 0.055) / 1.055) ** 2.4
        return 1.055 / 2.4 * light ** (1 / 2.4 - 1) * np.sqrt(plain.shot * light + plain.read)

    for value in (20, 60, MID_GRAY, 200, 250):
        card = np.full((400, 400, 3), value, np.uint8)
        found = camera_noise(card, 6.0, plain, rng).std()
        assert found == pytest.approx(6 * formula(value) / formula(MID_GRAY), rel=0.02)


def test_a_contrasty_camera_has_its_noise_in_the_middle() -> None:
    """Where the tone curve is flat, in deep shadows and in highlights, there is less."""
    curve = noise_curve(replace(CAMERA, contrast=8.0))
    assert curve[MID_GRAY] == 1
    assert curve[8] < 0.6
    assert curve[240] < 0.4


def test_read_noise_follows_shot_noise() -> None:
    """The line of Brooks et al. at both ends of their range."""
    assert read_noise(1e-4) == pytest.approx(np.exp(2.18 * np.log(1e-4) + 1.2))
    assert read_noise(1.2e-2) > 100 * read_noise(1e-4)


@pytest.mark.parametrize("how", ["bilinear", "malvar"])
def test_demosaicing_reproduces_what_is_flat(how: cameras.Demosaicing) -> None:
    """A picture of one colour comes back from its mosaic, wherever the circle closes."""
    colour = np.array([0.2, 0.5, 0.9], np.float32)
    mosaic = np.full((10, 12), colour[1], np.float32)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = colour[0], colour[2]
    np.testing.assert_allclose(demosaic(mosaic, how), np.broadcast_to(colour, (10, 12, 3)), atol=1e-6)


def test_malvars_filters_follow_a_gray_edge_better() -> None:
    """A gray picture is nearer to itself after the gradient-corrected filters than after plain averages."""
    gray = astronaut()[:128, :128, 1].astype(np.float32)
    errors = {how: np.abs(demosaic(gray, how) - gray[..., None]).mean() for how in ("bilinear", "malvar")}
    assert errors["malvar"] < 0.7 * errors["bilinear"]


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_smoothed_noise_is_as_long_as_its_kernel(scale: float) -> None:
    """White noise after a Gaussian of deviation s = scale / sqrt(2) has the autocorrelation exp(-d**2 / (4 s**2))."""
    white = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    field = smooth(white, scale)
    assert field.dtype == np.float32
    for distance in (1, 2, 4):
        found = (field * np.roll(field, distance, 1)).mean() / field.var()
        assert found == pytest.approx(np.exp(-(distance**2) / (2 * scale**2)), abs=0.02)


def test_a_cameras_noise_is_long_in_chroma_and_short_in_luma() -> None:
    """As in finished pictures: a pixel's neighbour shares most of its chroma noise and half of its luma noise."""
    noise = camera_noise(np.full((256, 256, 3), MID_GRAY, np.uint8), 5.0, CAMERA, np.random.default_rng(0))
    luma, red = noise @ [0.299, 0.587, 0.114], noise @ [0.5, -0.419, -0.081]

    def neighbours(plane: np.ndarray, distance: int) -> float:
        return float((plane * np.roll(plane, distance, 1)).mean() / plane.var())

    assert neighbours(luma, 1) == pytest.approx(0.55, abs=0.1)
    assert abs(neighbours(luma, 3)) < 0.1
    assert neighbours(red, 1) > 0.85
    assert neighbours(red, 4) > 0.2


def test_noise_begins_anywhere_in_the_bayer_pattern() -> None:
    """Over many pictures no pixel of the 2 x 2 pattern is noisier than another; in one picture it may be."""
    plain = Camera(shot=2e-3, read=1e-5, colour=0.0, demosaicing="bilinear")
    card = np.full((64, 64, 3), MID_GRAY, np.uint8)
    rng = np.random.default_rng(0)
    power = np.mean([camera_noise(card, 5.0, plain, rng)[..., 1] ** 2 for _ in range(60)], axis=0)
    sites = [power[i::2, j::2].mean() for i in (0, 1) for j in (0, 1)]
    assert max(sites) < 1.3 * min(sites)
    one = camera_noise(card, 5.0, plain, rng)[..., 1] ** 2
    sites = [one[i::2, j::2].mean() for i in (0, 1) for j in (0, 1)]
    assert max(sites) > 2 * min(sites)


@pytest.mark.parametrize("size", [(1, 1), (7, 10), (33, 5)])
def test_pictures_of_any_size_get_noise(size: tuple[int, int]) -> None:
    """Odd sides and tiny pictures too."""
    noise = camera_noise(np.full((*size, 3), MID_GRAY, np.uint8), 5.0, CAMERA, np.random.default_rng(0))
    assert noise.shape == (*size, 3)
    assert np.isfinite(noise).all()


def test_a_negative_noise_level_is_refused() -> None:
    """No noise is a level; less is not."""
    assert not camera_noise(photo(), 0.0, CAMERA, np.random.default_rng(0)).any()
    with pytest.raises(UsageError, match="-1"):
        camera_noise(photo(), -1.0, CAMERA, np.random.default_rng(0))


def test_an_enlargement_is_tried_on_a_jpeg() -> None:
    """`--jpeg`: the bicubic input of the tables as a file holds it, and the bicubic enlargement of that."""
    picture = astronaut()[:101, :80]
    truth, x, given = Trial("sr", 2, jpeg=60).degrade(Image(picture))
    small = compress_jpeg(resize_bicubic(picture[:100], (50, 40)), 60)
    np.testing.assert_array_equal(truth, picture[:100])
    np.testing.assert_array_equal(x, small / np.float32(255))
    np.testing.assert_array_equal(given, resize_bicubic(small, (100, 80)))


def test_deblocking_is_tried_in_colour() -> None:
    """Three channels, scored on RGB; what the network is given is the baseline."""
    picture = astronaut()[:80, :80]
    trial = Trial("deblock", quality=90, colour=True, sampling="4:2:2")
    truth, x, given = trial.degrade(Image(picture))
    np.testing.assert_array_equal(truth, picture)
    np.testing.assert_array_equal(given, compress_jpeg(picture, 90, "4:2:2"))
    np.testing.assert_array_equal(x, given / np.float32(255))
    assert (trial.convention.headline, trial.convention.round_luma, trial.strength) == (
        "rgb", False, "quality 90, colour",
    )  # fmt: skip
    gray = trial.run("gray", Image(picture[..., :1]), lambda x: x)
    assert gray.row.scores.psnr_rgb == gray.row.baseline.psnr_rgb > 30


@pytest.mark.parametrize("camera", [None, CAMERA])
def test_denoising_is_tried_on_a_jpeg(camera: Camera | None) -> None:
    """The noise is that of the trial without a JPEG, clipped and rounded, and then compressed."""
    picture = astronaut()[:80, :80]
    lossless = Trial("denoise", sigma=25, camera=camera).degrade(Image(picture))
    truth, x, given = Trial("denoise", sigma=25, jpeg=90, camera=camera).degrade(Image(picture))
    np.testing.assert_array_equal(truth, picture)
    np.testing.assert_array_equal(given, compress_jpeg(lossless[2], 90))
    np.testing.assert_array_equal(x, given / np.float32(255))
    assert (lossless[1] * 255 - picture).std() == pytest.approx(25, rel=0.3)
    assert not np.array_equal(lossless[1], lossless[2] / 255)


def test_the_words_of_a_trial_name_all_that_was_done() -> None:
    """In the label, and in the convention that is printed beside a figure."""
    trial = Trial("denoise", sigma=6, jpeg=90, camera=CAMERA)
    assert trial.strength == "sigma 6, camera, JPEG 90"
    assert "camera noise of sigma 6" in trial.convention.note
    assert "JPEG of quality 90, 4:2:0" in trial.convention.note
    assert Trial("sr", 4).convention.note == (
        "HR cropped to a multiple of 4; LR and baseline by MATLAB's bicubic, rounded to 8 bit; outputs rounded to 8 bit"
    )
