"""`bbcu eval` as a user types it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import typer
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app as bbcu
from bbcu_cli.cli.console import guarded
from bbcu_cli.cli.evaluate import evaluate
from bbcu_cli.hub import Catalogue, Entry, Serves
from bbcu_cli.score.degrade import resize_bicubic
from bbcu_cli.score.metrics import psnr


@pytest.fixture
def run():
    """Run `bbcu eval` with arguments; gives the result with exit_code, stdout and stderr."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("eval")(guarded(evaluate))
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def hr(tmp_path):
    """Two RGB images and one gray, 24x20 pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "hr"
    folder.mkdir()
    for name, shape in (("one", (20, 24, 3)), ("two", (20, 24, 3)), ("gray", (20, 24))):
        Pillow.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def weights(tmp_path):
    """Small packed models by name."""

    def write(name):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(to_bytes(small_model(SMALL_SPECS[name])))
        return path

    return write


def test_existing_results_are_scored_with_the_convention_beside(run, hr):
    """Identical folders: inf, SSIM 1, and how it was counted."""
    result = run("--gt", hr, "--pred", hr)
    assert result.exit_code == 0, result.stderr
    assert "mean" in result.stdout
    assert "inf" in result.stdout
    assert "border 0 px" in result.stdout
    assert "one: inf dB" in result.stderr


def test_json_is_one_object_and_nothing_else(run, hr):
    """Stdout is for the machine; quiet silences the line per image."""
    result = run("--gt", hr, "--pred", hr, "--json", "--quiet")
    data = json.loads(result.stdout)
    assert data["schema"] == 1
    assert [image["name"] for image in data["images"]] == ["gray", "one", "two"]
    assert data["mean"]["infinite"] == ["psnr_y", "psnr_rgb"]
    assert result.stderr == ""


def test_border_follows_the_names_unless_it_is_given(run, hr, tmp_path):
    """Results in a folder ..._x2 lose 2 pixels; --border says otherwise."""
    out = tmp_path / "hr_x2"
    out.mkdir()
    for path in hr.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    assert json.loads(run("--gt", hr, "--pred", out, "--json").stdout)["convention"]["border"] == 2
    assert json.loads(run("--gt", hr, "--pred", out, "--json", "--border", 5).stdout)["convention"]["border"] == 5


@pytest.fixture
def road(tmp_path, monkeypatch, weights):
    """The documented road: HR of 226x150, its bicubic LR, and `bbcu sr` of that into `out` and `lr_x4`."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    for folder in ("hr", "lr"):
        (tmp_path / folder / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/a"):
        truth = rng.integers(0, 256, (150, 226, 3)).astype(np.uint8)
        Pillow.fromarray(truth).save(f"hr/{name}.png")
        Pillow.fromarray(resize_bicubic(truth[:148, :224], (37, 56))).save(f"lr/{name}.png")
    model = ["--scale", "4", "--weights", str(weights("m-x4"))]
    for output in (["-o", "out", "--compare"], []):
        done = CliRunner().invoke(bbcu, ["sr", "lr", *model, *output, "--recursive"])
        assert done.exit_code == 0, done.output
    return tmp_path


def scores(result):
    """The figures of a report, and what it says of the scale."""
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    return data["images"], data["convention"], data["facts"]["scale"]


@pytest.mark.usefixtures("road")
def test_the_documented_road_is_scored_however_the_folder_is_called(run):
    """The scale by --scale, by the folder's name, by bbcu's record, or by sizes: the same figures, and the reason."""
    with Pillow.open("hr/a.png") as truth, Pillow.open("out/a.png") as result:
        planes = [np.asarray(picture).astype(float)[4:144, 4:220] for picture in (truth, result)]
    expected = -10 * np.log10(np.mean((planes[0] - planes[1]) ** 2) / 255**2)
    shutil.copytree("out", "plain", ignore=shutil.ignore_patterns(".bbcu*", "*_compare.png"))
    images, convention, reason = scores(run("--gt", "hr", "--pred", "plain", "--json"))
    assert [image["name"] for image in images] == ["a", "b"]
    assert images[0]["psnr_rgb"] == pytest.approx(expected, abs=1e-9)
    assert convention["border"] == 4
    assert reason == "x4, by the sizes of the results; 2 of 2 ground truths cropped to a multiple of 4"
    for arguments, told in (
        (["--pred", "out"], "by bbcu's record"),
        (["--pred", "lr_x4"], "by the names"),
        (["--pred", "plain", "--scale", 4], "by --scale"),
    ):
        assert scores(run("--gt", "hr", "--json", *arguments))[:2] == (images, convention)
        assert told in scores(run("--gt", "hr", "--json", *arguments))[2]
    text = run("--gt", "hr", "--pred", "plain").stdout
    assert "scale: x4, by the sizes of the results" in text


@pytest.mark.usefixtures("road")
def test_the_record_tells_a_scale_that_sizes_cannot(run):
    """Ground truth of whole multiples; a chain of commands leaves a record of its last, which is not taken for all."""
    for name in ("a", "b"):
        with Pillow.open(f"hr/{name}.png") as picture:
            picture.crop((0, 0, 224, 148)).save(f"hr/{name}.png")
    assert scores(run("--gt", "hr", "--pred", "out", "--json"))[1]["border"] == 4
    shutil.copytree("out", "plain", ignore=shutil.ignore_patterns(".bbcu*"))
    _, convention, reason = scores(run("--gt", "hr", "--pred", "plain", "--json"))
    assert (convention["border"], "give --scale" in reason) == (0, True)


@pytest.mark.usefixtures("road")
def test_sub_folders_are_paired_on_demand_and_never_left_out_in_silence(run):
    """--recursive scores them too; the names are paths."""
    assert "1 in sub-folders of lr_x4 left out" in run("--gt", "hr", "--pred", "lr_x4").stderr
    for pred in ("lr_x4", "out"):
        images, _, _ = scores(run("--gt", "hr", "--pred", pred, "--recursive", "--json"))
        assert [image["name"] for image in images] == ["a", "b", "sub/a"]


def test_a_pattern_pairs_what_the_names_do_not(run, road):
    """And what is no pattern is one sentence."""
    for name in ("a", "b"):
        (road / f"lr_x4/{name}.png").rename(road / f"lr_x4/{name}_final.png")
    assert run("--gt", "hr", "--pred", "lr_x4").exit_code == 2
    assert len(scores(run("--gt", "hr", "--pred", "lr_x4", "--pattern", "{name}_final", "--json"))[0]) == 2
    refused = run("--gt", "hr", "--pred", "lr_x4", "--pattern", "*")
    assert (refused.exit_code, "--pattern '*' is neither" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "arguments", "baseline"),
    [
        ("m-x2", ["--task", "sr", "--scale", 2], "bicubic"),
        ("denoise", ["--task", "denoise", "--sigma", 25], "noisy"),
        ("deblock", ["--task", "deblock", "--quality", 10], "JPEG"),
    ],
)
def test_each_task_is_degraded_restored_and_scored(run, hr, weights, name, arguments, baseline):
    """One command makes a column of the paper's tables, and says what the baseline scores."""
    result = run("--gt", hr, *arguments, "--weights", weights(name), "--engine", "reference", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["baseline"] == baseline
    assert len(data["images"]) == 3
    assert data["images"][0]["baseline"]["psnr_y"] > data["images"][0]["psnr_y"] > 0  # random weights restore nothing
    assert "reference on cpu" in data["facts"]["engine"]


@pytest.fixture
def photo_weights(tmp_path, monkeypatch):
    """A catalogue of small networks, some of them for photos."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(shelf))
    colour = replace(SMALL_SPECS["deblock"], channels=3)
    entries = {}
    for seed, (name, spec, serves) in enumerate(
        (
            ("sr-m-x2", SMALL_SPECS["m-x2"], None),
            ("denoise", SMALL_SPECS["denoise"], None),
            ("denoise-photo-low", SMALL_SPECS["denoise"], Serves((1, 100), (0, 8))),
            ("denoise-photo-high", SMALL_SPECS["denoise"], Serves((1, 100), (8, 99))),
            ("deblock", SMALL_SPECS["deblock"], None),
            ("deblock-mid", colour, Serves((1, 60), full_step=30)),
            ("deblock-high", colour, Serves((61, 90), full_step=15)),
        )
    ):
        (shelf / f"{name}.safetensors").write_bytes(to_bytes(small_model(spec, seed)))
        entries[name] = Entry(name, spec, name, serves=serves)
    Catalogue(entries).refreshed(shelf)[0].save(shelf)


@pytest.mark.usefixtures("photo_weights")
@pytest.mark.parametrize(
    ("command", "arguments", "serving"),
    [
        ("sr --scale 2", ["--task", "sr", "--scale", 2, "--jpeg", 75], "deblock-high + sr-m-x2"),
        ("sr --scale 2", ["--task", "sr", "--scale", 2, "--jpeg", 95], "sr-m-x2"),
        ("denoise", ["--task", "denoise", "--sigma", 25, "--jpeg", 90], "deblock-high + denoise-photo-high"),
        ("deblock", ["--task", "deblock", "--quality", 30, "--colour"], "deblock-mid"),
        ("deblock", ["--task", "deblock", "--quality", 80, "--colour"], "deblock-high"),
        ("deblock", ["--task", "deblock", "--quality", 95, "--colour"], "left as it is"),
    ],
)
def test_photos_are_made_and_restored_as_the_command_line_does(run, hr, tmp_path, command, arguments, serving):
    """The scores are those of the same file through the command, and of its input; the network is told."""
    result = run("--gt", hr, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["facts"]["model"] == serving
    task, scale = arguments[1], 2 if "--scale" in arguments else 1
    quality = int(arguments[arguments.index("--jpeg" if "--jpeg" in arguments else "--quality") + 1])
    for image in data["images"]:
        with Pillow.open(hr / f"{image['name']}.png") as picture:
            truth = np.asarray(picture.convert("RGB"))
        small = resize_bicubic(truth, (10, 12)) if scale == 2 else truth
        if task == "denoise":
            noisy = truth / 255 + np.random.RandomState(0).normal(0, 25 / 255, truth.shape)
            small = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
        source, output = tmp_path / f"{image['name']}.jpg", tmp_path / f"{image['name']}-out.png"
        Pillow.fromarray(small).save(source, quality=quality, subsampling="4:2:0")
        done = CliRunner().invoke(bbcu, [*command.split(), str(source), "-o", str(output)])
        assert done.exit_code == 0, done.output
        border = np.s_[scale:-scale, scale:-scale] if task == "sr" else np.s_[:, :]
        with Pillow.open(output) as restored, Pillow.open(source) as given:
            baseline = np.asarray(given)
            baseline = resize_bicubic(baseline, truth.shape[:2]) if scale == 2 else baseline
            assert image["psnr_rgb"] == pytest.approx(psnr(truth[border], np.asarray(restored)[border]))
            assert image["baseline"]["psnr_rgb"] == pytest.approx(psnr(truth[border], baseline[border]))
    assert data["convention"]["headline"] == ("y" if task == "sr" else "rgb")


@pytest.mark.usefixtures("photo_weights")
def test_given_pairs_are_restored_and_scored(run, hr, tmp_path):
    """Each input by what its file says, beside the input itself; sizes that do not fit are named before any work."""
    noisy, half = tmp_path / "noisy", tmp_path / "half"
    noisy.mkdir()
    half.mkdir()
    for path in hr.iterdir():
        with Pillow.open(path) as picture:
            picture.save(noisy / f"{path.stem}.jpg", quality=97)
            picture.resize((12, 10)).save(half / path.name)
    data = json.loads(run("--gt", hr, "--input", noisy, "--task", "denoise", "--json").stdout)
    assert (data["baseline"], data["convention"]["headline"]) == ("input", "rgb")
    assert data["facts"]["model"] == "denoise-photo-high"
    with Pillow.open(hr / "one.png") as truth, Pillow.open(noisy / "one.jpg") as given:
        [one] = [image for image in data["images"] if image["name"] == "one"]
        assert one["baseline"]["psnr_rgb"] == pytest.approx(psnr(np.asarray(truth), np.asarray(given)))
    told = run("--gt", hr, "--input", noisy, "--task", "denoise", "--sigma", 25, "--json")
    assert json.loads(told.stdout)["facts"]["model"] == "denoise"
    enlarged = json.loads(run("--gt", hr, "--input", half, "--task", "sr", "--scale", 2, "--json").stdout)
    assert (enlarged["baseline"], enlarged["facts"]["model"]) == ("bicubic", "sr-m-x2")
    assert enlarged["convention"]["border"] == 2
    wrong = run("--gt", hr, "--input", half, "--task", "denoise")
    assert wrong.exit_code == 2
    assert "gray.png is 12x10, its ground truth 24x20" in wrong.stderr
    assert wrong.stdout == ""


@pytest.mark.usefixtures("photo_weights")
def test_without_the_options_of_photos_it_is_the_papers_protocol(run, hr):
    """By the paper's networks, whatever serves photos."""
    for arguments, model in (
        (["--task", "sr", "--scale", 2], "sr-m-x2"),
        (["--task", "denoise", "--sigma", 25], "denoise"),
        (["--task", "deblock", "--quality", 80], "deblock"),
    ):
        data = json.loads(run("--gt", hr, *arguments, "--json").stdout)
        assert data["facts"]["model"] == model


@pytest.mark.usefixtures("photo_weights")
def test_weights_serve_every_photo(run, hr, weights):
    """--weights is the network for all files."""
    path = weights("denoise")
    result = run("--gt", hr, "--task", "denoise", "--sigma", 5, "--jpeg", 90, "--weights", path, "--json")
    assert json.loads(result.stdout)["facts"]["model"] == str(path)


def test_tiles_do_not_change_the_scores(run, hr, weights):
    """--tile 7 gives what the whole image gives."""
    common = ["--gt", hr, "--task", "sr", "--scale", 2, "--weights", weights("m-x2"), "--engine", "reference", "--json"]
    whole, tiled = (json.loads(run(*common, *more).stdout)["mean"] for more in ([], ["--tile", 7]))
    # 8-bit rounding may fall otherwise where float sums differ in their last bit.
    assert tiled["psnr_y"] == pytest.approx(whole["psnr_y"], abs=1e-3)


def test_reports_are_written_and_not_overwritten(run, hr, tmp_path):
    """CSV, Markdown and HTML; a second run asks for --overwrite and leaves the first in place."""
    files = {option: tmp_path / f"r.{option}" for option in ("csv", "markdown", "report")}
    options = [text for option, path in files.items() for text in (f"--{option}", path)]
    assert run("--gt", hr, "--pred", hr, *options).exit_code == 0
    with files["csv"].open() as lines:
        assert [row["name"] for row in csv.DictReader(lines)] == ["gray", "one", "two", "mean"]
    assert "| mean |" in files["markdown"].read_text()
    assert "data:image/webp" in files["report"].read_text()
    files["csv"].write_text("mine")
    again = run("--gt", hr, "--pred", hr, *options)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert again.stdout == ""  # refused before the work, not after it
    assert files["csv"].read_text() == "mine"
    assert run("--gt", hr, "--pred", hr, *options, "--overwrite").exit_code == 0
    assert files["csv"].read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --pred"),
        (["--pred", "{hr}", "--task", "sr"], "either --pred"),
        (["--pred", "{hr}", "--sigma", "5"], "--sigma is for --task denoise"),
        (["--pred", "{hr}/nothing"], "does not exist"),
        (["--pred", "{hr}", "--border", "wide"], "--border is 'wide'"),
        (["--pred", "{hr}", "--border", "12"], "leaves nothing"),
        (["--pred", "{hr}", "--csv", "{hr}/no/such/folder.csv"], "does not exist"),
        (["--task", "sr", "--scale", "0"], "there are networks for 2, 3 and 4"),
        (["--task", "sr", "--scale", "5"], "there are networks for 2, 3 and 4"),
        (["--task", "sr", "--sigma", "5"], "--sigma is for --task denoise"),
        (["--task", "denoise"], "give --sigma"),
        (["--task", "deblock"], "give --quality"),
        (["--task", "denoise", "--sigma", "5", "--model", "l"], "--model is for --task sr"),
        (["--task", "deblock", "--jpeg", "5"], "--jpeg is for --task sr or denoise"),
        (["--task", "sr", "--colour"], "--colour is for --task deblock"),
        (["--task", "denoise", "--jpeg", "5"], "give --sigma"),
        (["--task", "deblock", "--colour"], "give --quality"),
        (["--pred", "{hr}", "--input", "{hr}"], "--input needs --task"),
        (["--task", "deblock", "--input", "{hr}", "--quality", "5"], "nothing to degrade"),
        (["--task", "denoise", "--input", "{hr}/nothing"], "does not exist"),
        (["--task", "sr", "--input", "{hr}", "--scale", "7"], "there are networks for 2, 3 and 4"),
    ],
)
def test_impossible_requests_are_one_sentence_and_exit_code_2(run, hr, arguments, message):
    """What cannot be meant is refused before any work."""
    result = run("--gt", hr, *(argument.format(hr=hr) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_weights_of_another_task_are_refused(run, hr, weights):
    """An x4 network cannot make the x2 column."""
    result = run("--gt", hr, "--task", "sr", "--scale", 2, "--weights", weights("m-x4"), "--engine", "reference")
    assert result.exit_code == 2
    assert "are for sr x4, not for sr x2" in result.stderr
