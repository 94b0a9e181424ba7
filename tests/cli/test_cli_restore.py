"""`bbcu sr`, `denoise`, `deblock` as people type them: names, messages, exit codes, streams."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from commands import Bbcu, Done, size_of
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model

from bbcu_cli import __version__
from bbcu_cli.batch import queue
from bbcu_cli.batch.manifest import NAME
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.engines.base import Progress, Session
from bbcu_cli.engines.cpu import kernel_sets
from bbcu_cli.hub import Catalogue, Entry, Serves

X4 = ("--weights", "m-x4.safetensors")


def test_a_photo_becomes_a_larger_one_beside_it(bbcu: Bbcu) -> None:
    """photo.jpg -> photo_x4.png, nothing on stdout, one line on stderr."""
    done = bbcu("sr", "photo.jpg", *X4)
    assert (done.code, done.out) == (0, "")
    assert "photo.jpg -> photo_x4.png  (14x9 to 56x36" in done.err
    assert size_of("photo_x4.png") == (56, 36)


@pytest.mark.parametrize(
    ("command", "weights", "output"),
    [("denoise", "denoise", "photo_denoised.png"), ("deblock", "deblock", "photo_deblocked.png")],
)
def test_the_other_tasks_name_their_results(command: str, weights: str, output: str, bbcu: Bbcu) -> None:
    """_denoised, _deblocked, at the size of the input."""
    assert bbcu(command, "photo.jpg", "--weights", f"{weights}.safetensors").code == 0
    assert size_of(output) == (14, 9)


def test_the_file_chooses_its_network(bbcu: Bbcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the quality of a JPEG; what no network helps is left as it is, pixel for pixel; all of it is said."""
    shelf = Path("shelf")
    shelf.mkdir()
    low, high = (entry.serves.quality for entry in (Catalogue.load()["deblock"], Catalogue.load()["deblock-high"]))
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(shelf))
    entries = {}
    for name, spec, quality in (
        ("deblock", SMALL_SPECS["deblock"], low),
        ("deblock-high", replace(SMALL_SPECS["deblock"], channels=3), high),
    ):
        (shelf / f"{name}.safetensors").write_bytes(to_bytes(small_model(spec)))
        entries[name] = Entry(name, spec, name, serves=Serves(quality))
    Catalogue(entries).save(shelf)
    Catalogue.load(shelf).refreshed(shelf)[0].save(shelf)
    pixels = np.random.default_rng(2).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    for quality in (20, 90, 100):
        Pillow.fromarray(pixels).save(f"q{quality}.jpg", quality=quality)

    rows = [
        json.loads(line)
        for line in bbcu("deblock", *sorted(map(str, Path().glob("q*.jpg"))), "--json").out.splitlines()
    ]
    assert [(row["source"], row["model"]) for row in rows] == [
        ("q100.jpg", None), ("q20.jpg", "deblock"), ("q90.jpg", "deblock-high"),
    ]  # fmt: skip
    with Pillow.open("q100.jpg") as before, Pillow.open("q100_deblocked.png") as after:
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert "deblock-high: a JPEG of quality 90" in bbcu("deblock", "q90.jpg", "--overwrite").err
    assert "left as it is: a JPEG of quality 100" in bbcu("deblock", "q100.jpg", "--overwrite").err
    assert rows[0]["reason"] == "a JPEG of quality 100, and no network helps above quality 90"
    assert "deblock: --input clean" in bbcu("deblock", "q90.jpg", "--overwrite", "--input", "clean").err
    planned = json.loads(bbcu("deblock", "q90.jpg", "--dry-run", "--json").out)
    assert (planned["model"], planned["reason"]) == ("deblock-high", "a JPEG of quality 90")


@pytest.fixture
def levels(bbcu: Bbcu, monkeypatch: pytest.MonkeyPatch) -> Catalogue:  # noqa: ARG001 - in its folder
    """A catalogue with denoisers for weak and strong noise; files with weak and strong noise to serve."""
    shelf = Path("shelf")
    shelf.mkdir()
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(shelf))
    entries = {}
    for seed, (name, serves) in enumerate(
        (
            ("denoise", None),
            ("denoise-photo-low", Serves((1, 100), (0, 8))),
            ("denoise-photo-high", Serves((1, 100), (8, 75))),
        )
    ):
        spec = SMALL_SPECS["denoise"]
        (shelf / f"{name}.safetensors").write_bytes(to_bytes(small_model(spec, seed)))
        entries[name] = Entry(name, spec, name, serves=serves)
    catalogue = Catalogue(entries).refreshed(shelf)[0]
    catalogue.save(shelf)
    for name, sigma in (("weak", 2), ("strong", 25)):
        noise = np.random.default_rng(3).normal(128, sigma, (64, 64, 3)).round().astype(np.uint8)
        Pillow.fromarray(noise).save(f"{name}.jpg", quality=98, subsampling=0)
        Pillow.fromarray(noise).save(f"{name}-scan.png")
    return catalogue


@pytest.mark.usefixtures("levels")
def test_the_noise_chooses_the_denoiser(bbcu: Bbcu) -> None:
    """By the estimate on each picture, which is told; the plan says the same; --sigma and --input have precedence."""
    files = ("weak.jpg", "strong.jpg", "strong-scan.png")
    rows = [json.loads(line) for line in bbcu("denoise", *files, "--json").out.splitlines()]
    assert [row["model"] for row in rows] == ["denoise-photo-low", "denoise-photo-high", "denoise"]
    assert [row["noise"] for row in rows] == pytest.approx([2, 25, 25], rel=0.25)
    plan = [json.loads(line) for line in bbcu("denoise", *files, "--json", "--dry-run").out.splitlines()]
    for told, done in zip(plan, rows, strict=True):
        assert [told[key] for key in ("model", "reason", "noise")] == [
            done[key] for key in ("model", "reason", "noise")
        ]
    again = ("--overwrite", "-o", "out.png")
    for source, options, words in (
        ("strong.jpg", (), "denoise-photo-high: a JPEG of quality 98, noise of about 2"),
        ("strong-scan.png", ("--input", "photo"), "denoise-photo-high: --input photo, noise of about 2"),
        ("strong.jpg", ("--input", "clean"), "denoise: --input clean, noise of about 2"),
        ("strong.jpg", ("--sigma", 5, "--input", "photo"), "denoise-photo-low: --input photo, --sigma 5)"),
        ("strong.jpg", ("--sigma", 40), "JPEG of quality 98, --sigma 40, a level that has no network of its own)"),
        ("weak-scan.png", ("--weights", "denoise"), "denoise: --weights, noise of about 2"),
    ):
        assert words in bbcu("denoise", source, *options, *again).err


def test_the_rule_of_the_noise_is_part_of_the_record(levels: Catalogue, bbcu: Bbcu) -> None:
    """A kept output tells what made it; other ranges, or another network in one, make it outdated."""
    options = ("denoise", "strong.jpg", "--skip-existing", "--json")
    first, second = (json.loads(bbcu(*options).out) for _ in range(2))
    assert (first["status"], second["status"]) == ("done", "skipped")
    assert [second[key] for key in ("model", "reason", "noise")] == [first[key] for key in ("model", "reason", "noise")]
    assert "up to date  (denoise-photo-high: a JPEG of quality 98, noise" in bbcu(*options[:-1]).err
    shelf = Path("shelf")
    entry = levels["denoise-photo-low"]
    moved = Catalogue({**levels.entries, entry.name: replace(entry, serves=Serves((1, 100), (0, 50)))})
    moved.save(shelf)
    low = json.loads(bbcu(*options).out)
    assert (low["status"], low["model"]) == ("done", "denoise-photo-low")
    (shelf / f"{entry.name}.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["denoise"], 9)))
    moved.refreshed(shelf)[0].save(shelf)
    assert json.loads(bbcu(*options).out)["status"] == "done"
    assert json.loads(bbcu(*options).out)["status"] == "skipped"


def test_camera_noise_in_a_lossless_file_chooses_too(levels: Catalogue, bbcu: Bbcu) -> None:
    """Noise that is correlated, if the catalogue says so; a change of that is not up to date."""
    noise = np.random.default_rng(3).normal(0, 12, (65, 65, 3))
    pixels = 128 + (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 2
    Pillow.fromarray(pixels.round().astype(np.uint8)).save("camera.png")
    options = ("denoise", "camera.png", "strong-scan.png", "--skip-existing", "--json", "-o", "out")

    def served() -> list[tuple[str, str]]:
        rows = [json.loads(line) for line in bbcu(*options).out.splitlines()]
        return [(row["status"], row["model"]) for row in rows]

    assert served() == [("done", "denoise")] * 2
    name = "denoise-photo-high"
    entry = replace(levels[name], serves=Serves((1, 100), (0, 75), 2.0))
    Catalogue({**levels.entries, name: entry}).save(Path("shelf"))
    assert served() == [("done", name), ("done", "denoise")]
    assert served() == [("skipped", name), ("skipped", "denoise")]


def test_another_network_is_not_up_to_date(bbcu: Bbcu) -> None:
    """--skip-existing records the network of each file; --weights are one for all."""
    Path("in").mkdir()
    Path("photo.jpg").rename("in/photo.jpg")
    statuses = [
        json.loads(bbcu("deblock", "in", "--skip-existing", "--json", *options).out)["status"]
        for options in ((), (), ("--weights", "deblock.safetensors"), ("--weights", "deblock.safetensors"), ())
    ]
    assert statuses == ["done", "skipped", "done", "skipped", "done"]


@pytest.mark.parametrize("command", ["denoise", "deblock"])
def test_strength_keeps_grain_and_is_part_of_the_record(command: str, bbcu: Bbcu) -> None:
    """0 writes the input's samples; another strength is not up to date; out of range is bad usage."""
    options = ("photo.png", "--weights", f"{command}.safetensors", "-o", "out.png", "--skip-existing", "--json")
    statuses = []
    for strength in ("0", "0.5", "0.5", "1"):
        statuses.append(json.loads(bbcu(command, *options, "--strength", strength).out)["status"])
        if strength == "0":
            with Pillow.open("photo.png") as before, Pillow.open("out.png") as after:
                np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert statuses == ["done", "done", "skipped", "done"]
    whole = Path("out.png").read_bytes()
    assert bbcu(command, *options[:3], "-o", "whole.png").code == 0
    assert Path("whole.png").read_bytes() == whole
    for strength in ("-0.1", "1.5", "nan", "x"):
        assert bbcu(command, *options, "--strength", strength).code == 2
    assert bbcu("sr", "photo.png", *X4, "--strength", "1").code == 2


def test_existing_results_are_never_replaced_unasked(bbcu: Bbcu) -> None:
    """Exit 2 and the two ways out; --overwrite replaces."""
    Path("photo_x4.png").write_bytes(b"mine")
    done = bbcu("sr", "photo.jpg", *X4)
    assert done.code == 2
    assert "--overwrite, --skip-existing" in done.err
    assert Path("photo_x4.png").read_bytes() == b"mine"
    assert bbcu("sr", "photo.jpg", *X4, "--overwrite").code == 0
    assert size_of("photo_x4.png") == (56, 36)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sr", "missing.png"), "'missing.png' does not exist"),
        (("sr", "photo.jpg", "--scale", "0.5"), "give a number above 1 and up to 16"),
        (("sr", "photo.jpg", "--format", "bmpx"), "--format bmpx is unknown"),
        (("sr", "photo.jpg", "--overwrite", "--skip-existing"), "exclude each other"),
        (("sr", "photo.jpg", "--weights", "m-x2.safetensors"), "are for sr x2, not for sr x4"),
        (("sr", "photo.jpg", "--weights", "denoise.safetensors"), "are for denoise, not for sr x4"),
        (("sr", "photo.jpg", "--weights", "photo.png"), "photo.png"),
        (("sr", "photo.jpg", *X4, "--device", "tpu"), "Unknown device 'tpu'"),
        (("sr", "photo.jpg", *X4, "--memory", "much"), "not a size"),
        (("sr", "photo.jpg", *X4, "-o", "no/such/../\x1b[31m.gif"), ".gif"),
        (("sr", "empty"), "No image in empty"),
        (("sr", "text.png", *X4), "text file"),
        (("sr", "cut.jpg", *X4), "cut.jpg"),
        (("sr", "photo.jpg", *X4, "-o", "blocked/out.png"), "blocked"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_2(arguments: tuple[str, ...], message: str, bbcu: Bbcu) -> None:
    """What, where, what to do; no traceback, and no output file."""
    Path("empty").mkdir()
    Path("text.png").write_text("not an image")
    Path("cut.jpg").write_bytes(Path("photo.jpg").read_bytes()[:300])
    Path("blocked").write_text("a file where a folder should be")
    before = sorted(p.name for p in Path().rglob("*"))
    done = bbcu(*arguments)
    assert done.code == 2, done.err
    assert message in " ".join(done.err.split()).replace("│ ", "")
    assert "Traceback" not in done.err
    assert "\x1b" not in done.err
    assert sorted(p.name for p in Path().rglob("*")) == before


def test_a_batch_goes_on_after_a_bad_file_and_ends_with_1(bbcu: Bbcu) -> None:
    """The failure is named at the end, the summary counts everything."""
    Path("folder").mkdir()
    for name in ("a.png", "c.png"):
        Path("folder", name).write_bytes(Path("photo.png").read_bytes())
    Path("folder/b.png").write_text("no image")
    Path("folder/readme.txt").write_text("text")
    done = bbcu("sr", "folder", *X4)
    assert done.code == 1
    assert "2 done, 0 skipped, 1 failed, 1 not images" in done.err
    assert done.err.rstrip().splitlines()[-1].startswith("bbcu: failed: folder/b.png")
    assert sorted(p.name for p in Path("folder_x4").iterdir() if p.name[0] != ".") == ["a.png", "c.png"]


def test_single_files_leave_a_record(bbcu: Bbcu) -> None:
    """So that --skip-existing knows their results, whether it was given before or not."""
    assert bbcu("sr", "photo.png", *X4).code == 0
    done = bbcu("sr", "photo.png", *X4, "--skip-existing")
    assert (done.code, "photo_x4.png is up to date" in done.err) == (0, True)
    assert bbcu("sr", "photo.png", *X4, "-o", "named.png").code == 0
    assert "up to date" in bbcu("sr", "photo.png", *X4, "-o", "named.png", "--skip-existing").err


def test_a_second_run_over_a_pattern_does_not_take_results_for_inputs(bbcu: Bbcu) -> None:
    """Nor side-by-sides; what was left out is said."""
    Path("second.png").write_bytes(Path("photo.png").read_bytes())
    assert bbcu("sr", *sorted(map(str, Path().glob("*.png"))), *X4, "--compare").code == 0
    names = sorted(map(str, Path().glob("*.png")))
    assert len(names) == 6
    done = bbcu("sr", *names, *X4, "--compare", "--skip-existing")
    assert (done.code, "0 done, 2 skipped, 0 failed" in done.err) == (0, True)
    assert "as a side-by-side: photo_x4.png and 3 more" in done.err
    assert sorted(map(str, Path().glob("*.png"))) == names
    done = bbcu("sr", *names, *X4)
    assert (done.code, "photo_x4.png exists (and 1 more); give --overwrite" in done.err) == (2, True)
    assert "left out" not in bbcu("sr", *names, *X4, "--skip-existing", "--quiet").err


def test_a_folder_of_results_is_restored_without_its_side_by_sides(bbcu: Bbcu) -> None:
    """What the record of --compare knows as one, and what was made of the same source."""
    Path("in").mkdir()
    Path("photo.png").rename("in/photo.png")
    assert bbcu("denoise", "in", "-o", "mid", "--compare", "--weights", "denoise.safetensors").code == 0
    assert Path("mid/photo_compare.png").exists()
    done = bbcu("sr", "mid", *X4)
    assert (done.code, "mid/photo_compare.png" in done.err) == (0, True)
    assert [path.name for path in Path("mid_x4").glob("*.png")] == ["photo.png"]


def test_a_record_that_cannot_be_written_costs_a_note(bbcu: Bbcu) -> None:
    """The picture is there."""
    Path(NAME).mkdir()
    done = bbcu("sr", "photo.png", *X4)
    assert (done.code, "not recorded for --skip-existing" in done.err) == (0, True)
    assert size_of("photo_x4.png") == (56, 36)


def test_files_of_one_name_are_both_restored(bbcu: Bbcu) -> None:
    """Each under its full name, which is said, planned and known again."""
    Path("in").mkdir()
    for name in ("photo.jpg", "photo.png"):
        Path(name).rename(f"in/{name}")
    planned = bbcu("sr", "in", *X4, "--dry-run", "--json").out.splitlines()
    assert [json.loads(line)["output"] for line in planned] == ["in_x4/photo.jpg.png", "in_x4/photo.png.png"]
    rows = [json.loads(line) for line in bbcu("sr", "in", *X4, "--json").out.splitlines()]
    assert [row["output"] for row in rows] == ["in_x4/photo.jpg.png", "in_x4/photo.png.png"]
    assert "named in full, since in/photo.png would be written to photo.png" in rows[0]["notes"][0]
    assert "0 done, 2 skipped" in bbcu("sr", "in", *X4, "--skip-existing").err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_folder_with_what_is_no_file_is_done_and_ends_with_1(bbcu: Bbcu) -> None:
    """A pipe does not hold the run up, and a broken link is named; so is one that is typed alone."""
    Path("in").mkdir()
    Path("photo.png").rename("in/photo.png")
    os.mkfifo("in/a.png")
    Path("in/z.png").symlink_to("nowhere.png")
    for options in ((), ("--dry-run",)):
        done = bbcu("sr", "in", *X4, *options)
        assert "a.png is not a regular file" in done.err + done.out
        assert "z.png is a symbolic link that leads nowhere" in done.err + done.out
        assert done.code == (0 if options else 1)
    assert size_of("in_x4/photo.png") == (56, 36)
    assert bbcu("sr", "in/a.png").code == 2


def test_a_file_in_the_place_of_a_folder_fails_what_goes_there(bbcu: Bbcu) -> None:
    """The rest of the tree is done."""
    for name in ("in/photo.png", "in/sub/photo.png"):
        Path(name).parent.mkdir()
        Path(name).write_bytes(Path("photo.png").read_bytes())
    Path("out").mkdir()
    Path("out/sub").touch()
    done = bbcu("sr", "in", "-r", "-o", "out", *X4)
    assert (done.code, "folder out/sub cannot be made: a file is in the way" in done.err) == (1, True)
    assert size_of("out/photo.png") == (56, 36)


def test_ground_truth_of_a_tree_is_found_by_its_path(bbcu: Bbcu) -> None:
    """Two pictures of one name in different folders are scored against their own; one that has none ends the run."""
    for name in ("hr/a/b/p.png", "hr/c/p.png", "in/a/b/p.jpg", "in/c/p.png"):
        Path(name).parent.mkdir(parents=True)
        value = 200 if "/c/" in name else 40
        Pillow.new("L", (28, 18), value).save(name)
    done = bbcu("deblock", "in", "-r", "-o", "out", "--weights", "deblock.safetensors", "--gt", "hr", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    alone = [
        json.loads(
            bbcu("deblock", f"in/{name}", "--weights", "deblock.safetensors", "--gt", f"hr/{truth}", "--json").out
        )
        for name, truth in (("a/b/p.jpg", "a/b/p.png"), ("c/p.png", "c/p.png"))
    ]
    assert [row["scores"] for row in rows] == [row["scores"] for row in alone]
    Path("hr/c/p.png").unlink()
    done = bbcu("deblock", "in", "-r", "-o", "other", "--weights", "deblock.safetensors", "--gt", "hr")
    assert (done.code, "No ground truth in 'hr' for in/c/p.png" in done.err) == (2, True)


def test_json_is_one_object_per_line_and_nothing_else_on_stdout(bbcu: Bbcu) -> None:
    """With sizes by their names, engine, tile and scores."""
    done = bbcu("deblock", "photo.jpg", "--weights", "deblock.safetensors", "--gt", "photo.png", "--json")
    [row] = [json.loads(line) for line in done.out.splitlines()]
    assert (row["schema"], row["status"], row["tile"]) == (2, "done", "14x9")
    assert row["input_size"] == row["output_size"] == {"width": 14, "height": 9}
    assert row["scores"]["psnr_y"] > 0
    assert row["scores"]["ssim_y"] is None  # smaller than the SSIM window: not a number, so null


def test_dry_run_tells_the_plan_and_writes_nothing(bbcu: Bbcu) -> None:
    """Sizes, network, tile and memory, for every file."""
    done = bbcu("sr", "photo.jpg", *X4, "--dry-run", "-o", "out/")
    assert done.code == 0
    assert re.search(
        r"photo\.jpg -> out/photo\.png  \(14x9 to 56x36, m-x4.safetensors: --weights, tile 14x9, about \d+ MB\)",
        done.out,
    )
    assert not Path("out").exists()
    planned = json.loads(bbcu("sr", "photo.jpg", *X4, "--dry-run", "--json").out)
    assert (planned["schema"], planned["tile"]) == (2, "14x9")
    assert planned["output_size"] == {"width": 56, "height": 36}


@pytest.mark.usefixtures("bbcu")
def test_stdin_to_stdout_is_a_filter() -> None:
    """As in `cat a.jpg | bbcu sr - --format webp > b.webp`."""
    command = [sys.executable, "-m", "bbcu_cli", "sr", "-", *X4, "--format", "webp"]
    done = subprocess.run(command, input=Path("photo.jpg").read_bytes(), capture_output=True, check=True)
    assert Pillow.open(BytesIO(done.stdout)).format == "WEBP"
    assert b"Traceback" not in done.stderr


def test_quiet_prints_nothing_on_success(bbcu: Bbcu) -> None:
    """Errors only."""
    assert bbcu("sr", "photo.jpg", *X4, "--quiet") == Done(0, "", "")


def test_environment_is_used_and_options_win(bbcu: Bbcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag > BBCU_* > default."""
    monkeypatch.setenv("BBCU_SCALE", "2")
    assert bbcu("sr", "photo.jpg", "--weights", "m-x2.safetensors").code == 0
    assert bbcu("sr", "photo.jpg", *X4, "--scale", "4").code == 0


def test_tile_and_threads_do_not_change_a_pixel_of_the_file(bbcu: Bbcu) -> None:
    """8-bit results are the same file."""
    for tile, threads in ((3, 1), (100, 2)):
        options = ("--tile", tile, "--threads", threads, "-o", f"{tile}.png")
        assert bbcu("sr", "photo.jpg", *X4, *options).code == 0
    assert Path("3.png").read_bytes() == Path("100.png").read_bytes()


def test_compare_writes_a_side_by_side(bbcu: Bbcu) -> None:
    """NAME_compare.png beside the result."""
    assert bbcu("sr", "photo.jpg", *X4, "--compare").code == 0
    assert Path("photo_x4_compare.png").exists()


def test_control_characters_in_names_are_written_out(bbcu: Bbcu) -> None:
    """A file name cannot colour or clear the terminal."""
    Path("bad\x1b[2J.png").write_text("no image")
    done = bbcu("sr", "bad\x1b[2J.png", *X4)
    assert "\x1b" not in done.err
    assert "\\x1b[2J" in done.err


def test_a_background_goes_under_transparent_pixels(bbcu: Bbcu) -> None:
    """A JPEG of a transparent picture is refused without --background, and shows that colour with it."""
    Pillow.new("RGBA", (40, 40), (0, 0, 0, 0)).save("glass.png")
    jpeg = ("sr", "glass.png", *X4, "-o", "glass.jpg")
    assert "--background" in bbcu(*jpeg).err
    assert "'reddish' is not an opaque colour" in bbcu(*jpeg, "--background", "reddish").err
    assert bbcu(*jpeg, "--background", "red").code == 0
    with Pillow.open("glass.jpg") as picture:
        assert picture.resize((1, 1)).getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=8)  # the network is random


def test_version(bbcu: Bbcu) -> None:
    """One line."""
    assert bbcu("--version").out == f"bbcu {__version__}\n"


def test_ctrl_c_is_130_and_leaves_no_litter(bbcu: Bbcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is interrupted at the second file that reaches it; the other stays whole."""
    real, calls = queue._timed, []

    def interrupted(session: Session, x: np.ndarray, progress: Progress | None) -> tuple[np.ndarray, float]:
        calls.append(x)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(session, x, progress=progress)

    monkeypatch.setattr(queue, "_timed", interrupted)
    Path("second.png").write_bytes(Path("photo.png").read_bytes())
    done = bbcu("sr", "photo.png", "second.png", *X4, "-o", "out")
    assert done.code == 130
    assert "interrupted" in done.err
    [whole] = [p for p in Path("out").iterdir() if p.name != NAME]
    assert whole.name in ("photo.png", "second.png")
    assert size_of(str(whole)) == (56, 36)


@pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak of a process")
def test_the_peak_of_memory_is_within_the_estimate(bbcu: Bbcu) -> None:
    """A photo that gives several bands, under a budget that the estimate just meets: VmHWM is no higher."""
    Pillow.effect_noise((1500, 1000), 50).convert("RGB").save("large.jpg")
    command = ["sr", "large.jpg", "--weights", "m-x2.safetensors", "--scale", "2"]
    [plan] = [json.loads(line) for line in bbcu(*command, "--dry-run", "--json").out.splitlines()]
    budget = plan["memory_bytes"] * 2 // 3  # smaller tiles, more bands
    code = (
        "import sys, bbcu_cli.cli.app as app, atexit, pathlib\n"
        "atexit.register(lambda: print(pathlib.Path('/proc/self/status').read_text()))\n"
        f"sys.argv = ['bbcu', *{[*command, '--memory', str(budget)]!r}]\n"
        "app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak = next(int(line.split()[1]) << 10 for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    assert peak <= budget
    assert size_of("large_x2.png") == (3000, 2000)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
def test_one_image_shows_its_progress_on_a_terminal(tmp_path: Path) -> None:
    """A bar that moves while the network runs, is gone at the end, and never appears with --quiet or in a pipe."""
    import pty

    rng = np.random.default_rng(0)
    Pillow.fromarray(rng.integers(0, 256, (1200, 1000, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    for options, expected in ([], True), (["--quiet"], False):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "bbcu_cli", "denoise", "photo.png", "--threads", "1", "--overwrite", *options]
        environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # Linux ends a closed terminal with EIO
            while part := os.read(ours, 4096):
                seen += part
        os.close(ours)
        assert process.wait() == 0, seen
        shares = {int(share) for share in re.findall(rb"(\d+)%", seen)}
        assert (len(shares) >= 3) == expected, seen


def header(path: Path) -> tuple[str | None, object]:
    """The format of a file and, of a JPEG, its quantisation tables."""
    with Pillow.open(path) as picture:
        return picture.format, getattr(picture, "quantization", None)


def test_a_folder_keeps_its_formats_and_the_qualities_of_its_jpegs(bbcu: Bbcu) -> None:
    """--format same over every format that is written; --quality is for all; a format that is only read becomes PNG."""
    Path("in").mkdir()
    with Pillow.open("photo.png") as picture:
        for quality in (30, 80, 97):
            picture.save(f"in/q{quality}.jpg", quality=quality)
        for ending in ("png", "webp", "tif", "bmp", "avif", "gif"):
            picture.save(f"in/p.{ending}")
    done = bbcu("sr", "in", *X4, "--format", "same", "-o", "out")
    assert done.code == 0, done.err
    assert {path.name: header(path)[0] for path in Path("out").iterdir() if path.name != NAME} == {
        **{f"q{quality}.jpg": "JPEG" for quality in (30, 80, 97)},
        "p.png.png": "PNG",  # beside the one that was a GIF
        "p.gif.png": "PNG",
        "p.webp": "WEBP",
        "p.tif": "TIFF",
        "p.bmp": "BMP",
        "p.avif": "AVIF",
    }
    for quality in (30, 80, 97):
        assert header(Path(f"out/q{quality}.jpg")) == header(Path(f"in/q{quality}.jpg"))
    again = bbcu("sr", "in", *X4, "--format", "same", "-o", "out", "--skip-existing")
    assert "9 skipped" in again.err
    forced = bbcu("sr", "in/q30.jpg", *X4, "--format", "same", "--quality", "97", "-o", "forced/")
    assert forced.code == 0, forced.err
    assert header(Path("forced/q30.jpg")) == header(Path("in/q97.jpg"))
    assert bbcu("sr", "-", *X4, "--format", "same", "-o", "x.png", stdin=Path("photo.png").read_bytes()).code == 0
    assert bbcu("sr", "-", *X4, "--format", "same", stdin=b"").code == 2


def test_outputs_can_keep_the_times_of_their_inputs(bbcu: Bbcu) -> None:
    """The modification time, to the nanosecond; and the record still knows them as up to date."""
    os.utime("photo.jpg", ns=(1, 1_234_567_890_123_456_789))
    assert bbcu("sr", "photo.jpg", *X4, "--preserve-times").code == 0
    assert Path("photo_x4.png").stat().st_mtime_ns == Path("photo.jpg").stat().st_mtime_ns
    assert "up to date" in bbcu("sr", "photo.jpg", *X4, "--preserve-times", "--skip-existing").err


def test_patterns_leave_out_what_a_search_finds(bbcu: Bbcu) -> None:
    """--exclude may be given several times."""
    Path("in/raw").mkdir(parents=True)
    for name in ("in/a.png", "in/a_old.png", "in/raw/b.png"):
        Path(name).write_bytes(Path("photo.png").read_bytes())
    done = bbcu("sr", "in", "-r", *X4, "--exclude", "*_old.*", "--exclude", "raw", "-o", "out")
    assert done.code == 0, done.err
    assert [path.name for path in Path("out").rglob("*.png")] == ["a.png"]
