"""Many files: what is an input, where results go, what one bad file costs, what is kept of each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from commands import Bbcu, size_of
from PIL import Image as Pillow

from bbcu_cli.batch.manifest import NAME

X4 = ("--weights", "m-x4.safetensors")


def test_existing_results_are_never_replaced_unasked(bbcu: Bbcu) -> None:
    """Exit 2 and the two ways out; --overwrite replaces."""
    Path("photo_x4.png").write_bytes(b"mine")
    done = bbcu("sr", "photo.jpg", *X4)
    assert done.code == 2
    assert "--overwrite, --skip-existing" in done.err
    assert Path("photo_x4.png").read_bytes() == b"mine"
    assert bbcu("sr", "photo.jpg", *X4, "--overwrite").code == 0
    assert size_of("photo_x4.png") == (56, 36)


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
