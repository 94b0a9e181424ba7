"""Which network serves a file, what the record says of it, and how much of its result is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Bbcu
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.hub import Catalogue, Entry, Serves

X4 = ("--weights", "m-x4.safetensors")


def test_the_file_chooses_its_network(bbcu: Bbcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the quality of a JPEG; what no network helps is left as it is, pixel for pixel; all of it is said."""
    shelf = Path("shelf")
    shelf.mkdir()
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(shelf))
    entries = {}
    for name, spec, quality in (
        ("deblock", SMALL_SPECS["deblock"], (1, 28)),
        ("deblock-high", replace(SMALL_SPECS["deblock"], channels=3), (79, 90)),
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
    entry = replace(levels[name], serves=Serves((1, 100), (0, 75), correlated=(0, 75)))
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
