"""`bbcu sr`, `denoise`, `deblock` as people type them: names, messages, exit codes, streams."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from commands import Bbcu, Done, size_of
from PIL import Image as Pillow

from bbcu_cli import __version__
from bbcu_cli.batch import queue
from bbcu_cli.batch.manifest import NAME
from bbcu_cli.engines.base import Progress, Session
from bbcu_cli.engines.cpu import kernel_sets

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


@pytest.mark.parametrize(
    "command", [("denoise", "photo.jpg"), ("eval", "--gt", "photo.png", "--task", "denoise", "--sigma", "25")]
)
def test_weights_are_read_once(command: tuple[str, ...], bbcu: Bbcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is verified is what runs: nobody can put another file in its place between two reads."""
    locate, reads = importlib.import_module("bbcu_cli.hub.locate"), []
    read = locate.read_packed
    monkeypatch.setattr(locate, "read_packed", lambda path: (reads.append(path), read(path))[1])
    done = bbcu(*command, "--weights", "denoise.safetensors")
    assert done.code == 0, done.err
    assert [path.name for path in reads] == ["denoise.safetensors"]


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
        (("bench", "--size", "32by18"), "--size 32by18 is not a width and a height"),
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
