"""Pairing by name, the paper's degradations, and what they score."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from bbcu_cli.errors import UsageError
from bbcu_cli.image import EncodeOptions, Image, encode
from bbcu_cli.score.metrics import Convention, mean_scores
from bbcu_cli.score.pairs import Pair, check_sizes, find_scale, find_truth, images_at, pair, scale_of, truths_at
from bbcu_cli.score.trial import Trial, convention_of, evaluate_pairs, evaluate_trial, score_images


def _pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def _folder(path, **images):
    path.mkdir(parents=True)
    for name, pixels in images.items():
        Pillow.fromarray(pixels).save(path / f"{name}.png")
    return path


def _enlarge(scale):
    return lambda x: x.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize(
    "stem",
    [
        "a",
        "a_x4",
        "ax4",
        "a-x2",
        "a_X3",
        "a_bbcu",
        "a_bbcu-sr-m-x4",
        "a_bbcu_m_x4",
        "a_x4_bbcu",
        "a_denoised",
        "a_deblocked_x2",
    ],
)
def test_a_result_finds_its_ground_truth_behind_every_mark(stem):
    """What tools put behind a name does not hide it."""
    assert find_truth(stem, {"a": Path("a.png"), "b": Path("b.png")}) == Path("a.png")


def test_the_whole_name_wins_over_a_shorter_one():
    """A ground truth that is itself called a_x4 is the partner of a_x4."""
    truths = {"a": Path("a.png"), "a_x4": Path("a_x4.png")}
    assert find_truth("a_x4", truths) == Path("a_x4.png")
    assert find_truth("a_x4_bbcu", truths) == Path("a_x4.png")


@pytest.mark.parametrize("stem", ["c", "_x4", "a_x5_", "ax", "ab", "a_hr"])
def test_a_stranger_finds_nothing(stem):
    """No guess is made beyond the marks."""
    assert find_truth(stem, {"a": Path("a.png"), "": Path(".png")}) is None


def test_pairs_are_made_by_name_whatever_the_order(tmp_path):
    """b_x2 sorts before c and after a10; only names count. Other files are skipped."""
    dot = _pixels(4, 4)
    hr = _folder(tmp_path / "hr", a10=dot, a9=dot, b=dot)
    out = _folder(tmp_path / "out", b_x2=dot, a9_x2=dot, a10_x2=dot)
    (hr / "LIST.txt").write_text("not an image")
    pairs = pair(hr, out)
    assert {(p.truth.stem, p.restored.stem) for p in pairs} == {("a10", "a10_x2"), ("a9", "a9_x2"), ("b", "b_x2")}


def test_two_files_are_a_pair_whatever_their_names(tmp_path):
    """Given one by one they need no common name."""
    folder = _folder(tmp_path / "d", one=_pixels(4, 4), two=_pixels(4, 4))
    assert pair(folder / "one.png", folder / "two.png") == [Pair(folder / "one.png", folder / "two.png")]


@pytest.mark.parametrize(
    ("truths", "results", "message"),
    [
        ("ab", ["a"], "No result in .*out' for b.png"),
        ("a", ["a", "b"], "No ground truth in .*hr' for b.png"),
        ("a", ["a_x2", "a_x4"], "Several results for one ground truth: a_x2.png, a_x4.png"),
        ("abcdefgh", ["x"], "No ground truth .* x.png"),
        ("abcdefgh", ["a"], "b.png, c.png, d.png, e.png, f.png and 2 more"),
    ],
)
def test_files_without_exactly_one_partner_are_named(tmp_path, truths, results, message):
    """A mean over fewer images than the reader believes is worse than no mean."""
    dot = _pixels(4, 4)
    hr = _folder(tmp_path / "hr", **dict.fromkeys(truths, dot))
    out = _folder(tmp_path / "out", **dict.fromkeys(results, dot))
    with pytest.raises(UsageError, match=message):
        pair(hr, out)


def test_two_ground_truths_of_one_name_are_refused(tmp_path):
    """a.png and a.jpg: which one is meant cannot be told."""
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"a.jpg.*a.png.*both"):
        truths_at(tmp_path)


def test_missing_and_empty_folders_are_refused(tmp_path):
    """Each with its own sentence."""
    with pytest.raises(UsageError, match="does not exist"):
        images_at(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"No image in '[^']*'\.$"):
        images_at(tmp_path)
    _folder(tmp_path / "sub", a=_pixels(4, 4))
    with pytest.raises(UsageError, match="only in folders below it"):
        images_at(tmp_path)


@pytest.mark.parametrize(
    ("restored", "scale"),
    [
        ("out/a_x4.png", 4), ("out/ax2.png", 2), ("out/a_bbcu-sr-m-x3.png", 3), ("Set5_x4/a.png", 4), ("X2/a.png", 2),
        ("out/a.png", 1), ("out/a_denoised.png", 1), ("linux2/a_x4.png", 4), ("out/a_x42.png", 1),
    ],
)  # fmt: skip
def test_the_scale_is_told_by_names(restored, scale):
    """First by what stands behind the ground truth's name, then by the folder."""
    assert scale_of([Pair(Path("hr/a.png"), Path(restored))]) == scale


def test_a_scale_in_the_name_of_the_ground_truth_tells_nothing():
    """The picture is called a_x4 on both sides; nobody enlarged it."""
    assert scale_of([Pair(Path("hr/a_x4.png"), Path("out/a_x4.png"))]) == 1


def test_several_scales_are_refused():
    """One border cannot serve x2 and x4."""
    pairs = [Pair(Path(f"hr/{n}.png"), Path(f"out/{n}_x{s}.png")) for n, s in (("a", 2), ("b", 4))]
    with pytest.raises(UsageError, match="x2, x4"):
        scale_of(pairs)


def _pairs(tmp_path, *sizes):
    """Pairs of neutral names of these (truth, result) sizes, each (height, width)."""
    hr = _folder(tmp_path / "hr", **{f"p{i}": _pixels(*truth) for i, (truth, _) in enumerate(sizes)})
    out = _folder(tmp_path / "out", **{f"p{i}": _pixels(*result) for i, (_, result) in enumerate(sizes)})
    return pair(hr, out)


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [
        ([((150, 226), (148, 224))], 4),
        ([((150, 226), (150, 225))], 3),
        ([((151, 226), (150, 226))], 2),
        ([((150, 226), (152, 228))], 4),  # the input was rounded up
        ([((150, 226), (148, 228))], 4),  # to the nearest
        ([((25, 25), (24, 24)), ((30, 31), (28, 28))], 4),  # the first alone fits all
        ([((24, 24), (24, 24)), ((33, 31), (33, 30))], 3),
    ],
)
def test_the_scale_is_told_by_sizes_where_names_say_nothing(tmp_path, sizes, scale):
    """A difference of less than S pixels, to a multiple of S; both are brought to one size."""
    pairs = _pairs(tmp_path, *sizes)
    found = find_scale(pairs)
    assert (found.factor, "by the sizes" in str(found)) == (scale, True)
    assert "cropped" in " ".join(check_sizes(pairs, scale))
    for evaluated in evaluate_pairs(pairs, Convention(), scale):
        assert evaluated.truth.shape == evaluated.restored.shape


def test_a_scale_that_sizes_do_not_tell_is_asked_for(tmp_path):
    """Where several fit; where none fits the sizes are named; equal sizes tell none."""
    with pytest.raises(UsageError, match="fit x2 and x3 and x4; give --scale"):
        find_scale(_pairs(tmp_path / "several", ((25, 25), (24, 24))))
    pairs = _pairs(tmp_path / "none", ((30, 30), (20, 20)))
    with pytest.raises(UsageError, match=r"Sizes differ: p0\.png is 20x20.*give --scale"):
        check_sizes(pairs, find_scale(pairs).factor)
    assert find_scale(_pairs(tmp_path / "equal", ((24, 24), (24, 24)))).factor == 1


def test_the_user_then_names_then_the_record_then_sizes_tell_the_scale(tmp_path):
    """A record of another scale than the sizes have is of another picture's making."""
    pairs = _pairs(tmp_path, ((25, 25), (24, 24)))
    assert str(find_scale(pairs, given=3, recorded=2)) == "x3, by --scale"
    assert str(find_scale(pairs, recorded=2)) == "x2, by bbcu's record of the results"
    with pytest.raises(UsageError, match="give --scale"):
        find_scale(pairs, recorded=1)
    (tmp_path / "out").rename(tmp_path / "out_x4")
    pairs = pair(tmp_path / "hr", tmp_path / "out_x4")
    assert str(find_scale(pairs, recorded=2)) == "x4, by the names of the results or of their folder"


def test_side_by_sides_of_bbcu_are_no_results(tmp_path):
    """a_compare.png beside a.png; one that has a ground truth of its own, or stands alone, is one like any other."""
    dot = _pixels(4, 4)
    hr = _folder(tmp_path / "hr", a=dot)
    out = _folder(tmp_path / "out", a_x4=dot, a_x4_compare=_pixels(9, 30))
    assert [one.restored.name for one in pair(hr, out)] == ["a_x4.png"]
    Pillow.fromarray(dot).save(out / "b_compare.png")
    with pytest.raises(UsageError, match=r"for b_compare\.png"):
        pair(hr, out)
    own = _folder(tmp_path / "own", a=dot, a_compare=dot)
    assert len(pair(own, own)) == 2


def test_trees_are_paired_by_their_paths(tmp_path):
    """One name in two folders is two pictures; a folder's name tells the scale of what is below it."""
    dot = _pixels(4, 4)
    for side, mark in (("hr", ""), ("out_x2", "_denoised")):
        (tmp_path / side).mkdir()
        for folder in ("one", "two"):
            _folder(tmp_path / side / folder, **{f"a{mark}": dot})
    pairs = pair(tmp_path / "hr", tmp_path / "out_x2", recursive=True)
    assert [one.called for one in pairs] == ["one/a", "two/a"]
    assert all(one.truth.parent.name == one.restored.parent.name for one in pairs)
    assert scale_of(pairs) == 2
    (tmp_path / "out_x2/two/a_denoised.png").rename(tmp_path / "out_x2/two/b.png")
    with pytest.raises(UsageError, match=r"for two.b\.png"):
        pair(tmp_path / "hr", tmp_path / "out_x2", recursive=True)


@pytest.mark.parametrize(
    ("truths", "results", "pattern"),
    [
        (["p1", "p2"], ["SR_p1_final", "SR_p2_final"], "SR_{name}_final"),
        (["p1", "p2"], ["SR_p1_final", "SR_p2_final"], "SR_{name}_final.png"),
        (["HR.001", "HR.002"], ["002-out", "001-out"], r"\d+"),
        (["img_1_HR", "img_2_HR"], ["img_1_SR_x4", "img_2_SR_x4"], r"^(img_\d+)_"),
        (["a+b", "c"], ["new (a+b)", "new (c)"], "new ({name})"),
    ],
)
def test_a_pattern_pairs_names_that_differ(tmp_path, truths, results, pattern):
    """Where the ground truth's name stands in the result's, or what both have in common."""
    hr = _folder(tmp_path / "hr", **dict.fromkeys(truths, _pixels(4, 4)))
    out = _folder(tmp_path / "out", **dict.fromkeys(results, _pixels(4, 4)))
    found = {one.truth.stem: one.restored.stem for one in pair(hr, out, pattern=pattern)}
    assert found == dict(zip(truths, sorted(results), strict=True))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*_out", "neither a name with {name} nor a regular expression"),
        ("(", "regular expression"),
        (r"z\d", "finds nothing in the name of the ground truth"),
        ("p", "both ground truth for 'p'"),
        ("{name}_final", "No ground truth in .* for SR_p1"),
    ],
)
def test_a_pattern_that_does_not_pair_is_refused(tmp_path, pattern, message):
    """One sentence."""
    hr = _folder(tmp_path / "hr", p1=_pixels(4, 4), p2=_pixels(4, 4))
    out = _folder(tmp_path / "out", SR_p1=_pixels(4, 4), SR_p2=_pixels(4, 4))
    with pytest.raises(UsageError, match=message):
        pair(hr, out, pattern=pattern)


def test_sizes_that_differ_are_all_named_before_any_work(tmp_path):
    """Every pair that cannot be compared is listed with both sizes, width first."""
    hr = _folder(tmp_path / "hr", a=_pixels(8, 12), b=_pixels(8, 8), c=_pixels(9, 9))
    out = _folder(tmp_path / "out", a=_pixels(8, 8), b=_pixels(8, 8), c=_pixels(8, 8))
    with pytest.raises(UsageError, match=r"a.png is 8x8, its ground truth 12x8; c.png is 8x8, its ground truth 9x9 "):
        check_sizes(pair(hr, out), 1)
    with pytest.raises(UsageError, match=r"a\.png is 8x8"):
        check_sizes(pair(hr, out), 2)


def test_a_ground_truth_is_cropped_to_a_multiple_of_the_scale(tmp_path):
    """9x9 against the 8x8 that x2 made of its 4x4: the surplus row and column are no error."""
    truth = _pixels(9, 9, 3)
    hr, out = _folder(tmp_path / "hr", a=truth), _folder(tmp_path / "out", a_x2=truth[:8, :8])
    pairs = pair(hr, out)
    check_sizes(pairs, 2)
    [evaluated] = evaluate_pairs(pairs, Convention(), scale=2)
    assert evaluated.row.scores.psnr_rgb == math.inf
    assert evaluated.truth.shape == evaluated.restored.shape == (8, 8, 3)


def test_depths_may_differ(tmp_path):
    """An 8-bit result of a 16-bit ground truth is compared on the same scale."""
    truth = _pixels(16, 16, 3)
    wide = Image(truth.astype(np.uint16) * 257)
    assert score_images(wide, Image(truth), Convention()).psnr_rgb == math.inf
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "a.png").write_bytes(encode(wide, "PNG", EncodeOptions()))
    out = _folder(tmp_path / "out", a=np.clip(truth.astype(int) + 1, 0, 255).astype(np.uint8))
    [evaluated] = evaluate_pairs(pair(tmp_path / "hr", out), Convention())
    assert evaluated.row.scores.psnr_rgb == pytest.approx(48.13, abs=0.1)


def test_an_error_names_the_file(tmp_path):
    """A border that leaves nothing of one image says of which."""
    hr = _folder(tmp_path / "hr", tiny=_pixels(4, 4))
    with pytest.raises(UsageError, match=r"tiny.png: A border of 2 px"):
        list(evaluate_pairs(pair(hr, hr), Convention(border=2)))
    with pytest.raises(UsageError, match=r"tiny.png: "):
        list(evaluate_trial(Trial("sr", scale=4), images_at(hr), _enlarge(4)))


def test_conventions_are_those_of_the_tables():
    """SR ignores a border and counts gray as RGB; denoising is about RGB; deblocking rounds Y."""
    assert convention_of("sr", 3) == Convention(border=3)
    assert convention_of("denoise").headline == "rgb"
    assert convention_of("deblock") == Convention(round_luma=True, gray_is_luma=True)
    assert Trial("sr", scale=2, border=0).convention.border == 0


def test_sr_input_is_the_rounded_bicubic_of_the_cropped_truth():
    """13x10 at x4 is cropped to 12x8 and shrunk to 3x2; the baseline has the truth's size."""
    truth, x, given = Trial("sr", scale=4).degrade(Image(_pixels(10, 13, 3)))
    assert truth.shape == given.shape == (8, 12, 3)
    assert x.shape == (2, 3, 3)
    assert np.array_equal(x * 255, np.rint(x * 255))
    assert x.dtype == np.float32


def test_gray_is_shown_to_rgb_networks_as_three_channels():
    """Set14 has a gray image, and the networks take RGB."""
    for trial in (Trial("sr", scale=2), Trial("denoise", sigma=10)):
        truth, x, _ = trial.degrade(Image(_pixels(8, 8, 1)))
        assert truth.shape[2] == x.shape[2] == 3
        assert np.array_equal(truth[..., 0], truth[..., 2])


def test_noise_is_that_of_the_published_test_and_not_clipped():
    """numpy.random.seed(0) before each image; a white image exceeds 1."""
    white = Image(np.full((32, 32, 3), 255, np.uint8))
    _, x, given = Trial("denoise", sigma=25).degrade(white)
    np.random.seed(0)  # noqa: NPY002 - what the published script calls
    expected = 1 + np.random.normal(0, 25 / 255, (32, 32, 3))  # noqa: NPY002
    assert np.allclose(x, expected, atol=1e-6)
    assert x.max() > 1.2
    assert given.max() == 255
    assert np.array_equal(x, Trial("denoise", sigma=25).degrade(white)[1])


def test_deblocking_works_on_rounded_luma():
    """Colour becomes studio-swing Y; gray is Y as it is."""
    white = Image(np.full((16, 16, 3), 255, np.uint8))
    assert Trial("deblock", quality=90).degrade(white)[0].tolist() == np.full((16, 16, 1), 235).tolist()
    green = Image(np.tile(np.array([0, 255, 0], np.uint8), (16, 16, 1)))
    assert (Trial("deblock", quality=90).degrade(green)[0] == 145).all()  # 144.55
    gray = Image(np.full((16, 16, 1), 255, np.uint8))
    truth, x, given = Trial("deblock", quality=90).degrade(gray)
    assert truth.min() == 255
    assert x.shape == given.shape == (16, 16, 1)


def test_sixteen_bit_truth_is_reduced_to_eight():
    """The tables are of 8-bit images."""
    truth, _, _ = Trial("denoise", sigma=5).degrade(Image(np.full((4, 4, 3), 0x8080, np.uint16)))
    assert truth.dtype == np.uint8
    assert (truth == 128).all()


def test_a_perfect_restoration_scores_infinity_and_the_baseline_does_not():
    """The result and the baseline are scored apart, in that order."""
    image = Image(_pixels(16, 16, 3))
    evaluated = Trial("denoise", sigma=25).run("a", image, lambda _: image.pixels.astype(np.float32) / 255)
    assert evaluated.row.scores.psnr_rgb == math.inf
    assert 15 < evaluated.row.baseline.psnr_rgb < 25


def test_outputs_are_clipped_before_they_are_scored():
    """A network may leave 0..1; a file cannot."""
    image = Image(np.full((16, 16, 3), 255, np.uint8))
    evaluated = Trial("denoise", sigma=25).run("a", image, lambda x: np.full_like(x, 3))
    assert evaluated.row.scores.psnr_rgb == math.inf


@pytest.mark.parametrize(
    ("trial", "folder", "score", "value"),
    [
        (Trial("sr", scale=2), "Set5", "psnr_y", 33.68),
        (Trial("sr", scale=4), "Set5", "psnr_y", 28.43),
        (Trial("sr", scale=4), "Set5", "ssim_y", 0.8113),
        (Trial("deblock", quality=10), "Classic5", "psnr_y", 27.82),
        (Trial("deblock", quality=40), "Classic5", "psnrb_y", 29.92),
    ],
)
def test_baselines_score_what_the_literature_says(shared, trial, folder, score, value):
    """The whole road from files to a mean; the restoration is not looked at."""
    images = evaluate_trial(trial, images_at(shared / "data/test" / folder), _enlarge(trial.scale))
    mean = mean_scores([image.row.baseline for image in images])
    assert round(getattr(mean, score), 4 if score.startswith("ssim") else 2) == value
