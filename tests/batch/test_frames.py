"""Animations and pages on the command line: all or the first, one network, whole or not there, within the memory."""

from __future__ import annotations

import json
import os
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Bbcu
from pictures import gray_photo, photo, saved
from PIL import Image as Pillow
from PIL import ImageSequence
from stand_in import stub

from bbcu_cli.batch.jobs import Job
from bbcu_cli.batch.run import run
from bbcu_cli.batch.settings import Settings, options_key
from bbcu_cli.bench.memory import Case, measure
from bbcu_cli.engines.cpu import kernel_sets
from bbcu_cli.image import EncodeOptions, Image, probe
from bbcu_cli.image.decode import open_frames
from bbcu_cli.restoration.memory import Work, footprint
from bbcu_cli.restoration.model import Model, Options
from bbcu_cli.restoration.pipeline import restore_image
from bbcu_cli.restoration.serving import Served

X2 = ("--weights", "m-x2.safetensors", "--scale", 2)
DURATIONS = [50, 200, 40, 1000]


def clip(form: str = "GIF", count: int = 4, *, loop: int = 2) -> bytes:
    """A small animation, or pages."""
    pictures = [Pillow.fromarray(np.roll(photo(12, 16), number, axis=1)) for number in range(count)]
    about = {"duration": DURATIONS[:count], "loop": loop} if form != "TIFF" else {}
    return saved(pictures[0], form, save_all=True, append_images=pictures[1:], **about)


def pictures_of(path: Path) -> list[np.ndarray]:
    """All of them, as Pillow has them."""
    with Pillow.open(path) as file:
        return [np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(file)]


@pytest.mark.parametrize("form", ["png", "webp", "avif"])
def test_every_frame_of_a_gif_is_restored_with_its_timing(bbcu: Bbcu, form: str) -> None:
    """As the network restores each picture alone; durations and plays are the GIF's."""
    Path("clip.gif").write_bytes(clip())
    lossless = ["--lossless"] if form == "webp" else []
    done = bbcu("sr", "clip.gif", *X2, "--format", form, *lossless, "--json")
    assert done.code == 0, done.err
    row = json.loads(done.out)
    assert (row["frames"], row["output_size"]) == (4, {"width": 32, "height": 24})
    with Pillow.open(f"clip_x2.{form}") as file:
        assert file.n_frames == 4
        durations = []
        for number in range(4):
            file.seek(number)
            file.load()
            durations.append(file.info["duration"])
        assert durations == DURATIONS
        assert form == "avif" or file.info["loop"] == 3
    assert any("for ever" in note for note in row["notes"]) == (form == "avif")
    for number, picture in enumerate(pictures_of(Path("clip.gif"))):
        Pillow.fromarray(picture).save("alone.png")
        assert bbcu("sr", "alone.png", *X2, "--overwrite").code == 0
        with Pillow.open("alone_x2.png") as alone:
            difference = np.abs(np.asarray(alone).astype(int) - pictures_of(Path(f"clip_x2.{form}"))[number])
        assert difference.max() == 0 if form != "avif" else difference.mean() < 6


def test_every_page_of_a_tiff_is_restored(bbcu: Bbcu) -> None:
    """Pages of different sizes, gray and colour, stay such."""
    pages = [Pillow.fromarray(photo(12, 16)), Pillow.fromarray(gray_photo(20, 9)), Pillow.fromarray(photo(8, 30))]
    Path("scan.tif").write_bytes(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    done = bbcu("sr", "scan.tif", *X2, "--format", "same")
    assert done.code == 0, done.err
    assert "scan.tif -> scan_x2.tif  (3 frames, 16x12 to 32x24" in done.err
    with Pillow.open("scan_x2.tif") as file:
        found = [(page.size, page.mode) for page in ImageSequence.Iterator(file)]
    assert found == [((32, 24), "RGB"), ((18, 40), "L"), ((60, 16), "RGB")]


def test_frames_and_pages_come_to_any_size(bbcu: Bbcu) -> None:
    """Each reduced from what the network made of it; pages of different sizes have no width in common."""
    Path("clip.gif").write_bytes(clip())
    done = bbcu("sr", "clip.gif", "--width", "24", "--weights", "m-x2.safetensors", "--json")
    assert done.code == 0, done.err
    assert (json.loads(done.out)["frames"], json.loads(done.out)["output_size"]) == (4, {"width": 24, "height": 18})
    with Pillow.open("clip_width24.png") as file:
        assert (file.n_frames, file.size) == (4, (24, 18))
    pages = [Pillow.fromarray(photo(12, 16)), Pillow.fromarray(photo(20, 9))]
    Path("scan.tif").write_bytes(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    done = bbcu("sr", "scan.tif", "--width", "24", "--weights", "m-x2.safetensors", "--format", "same")
    assert (done.code, "pages of different sizes" in done.err) == (2, True)
    assert not Path("scan_width24.tif").exists()


def test_the_first_frame_can_be_had_alone(bbcu: Bbcu) -> None:
    """Into any format; another choice makes the output again."""
    Path("clip.gif").write_bytes(clip())
    assert bbcu("sr", "clip.gif", *X2, "--frames", "first", "--format", "jpg").code == 0
    with Pillow.open("clip_x2.jpg") as file:
        assert (file.size, file.format) == ((32, 24), "JPEG")
    assert bbcu("sr", "clip.gif", *X2, "--frames", "first").code == 0
    with Pillow.open("clip_x2.png") as file:
        assert getattr(file, "n_frames", 1) == 1
    assert "up to date" in bbcu("sr", "clip.gif", *X2, "--frames", "first", "--skip-existing").err
    assert "4 frames" in bbcu("sr", "clip.gif", *X2, "--skip-existing").err
    again = json.loads(bbcu("sr", "clip.gif", *X2, "--skip-existing", "--json").out)
    assert (again["status"], again["frames"]) == ("skipped", 4)
    with Pillow.open("clip_x2.png") as file:
        assert file.n_frames == 4


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (
            "clip.gif",
            ("--format", "jpg"),
            "clip.gif has 4 frames, and JPEG holds a single picture; give --frames first",
        ),
        (
            "scan.tif",
            (),
            "scan.tif has 4 pages, and PNG holds a single picture; give --frames first, or another --format",
        ),
        ("clip.gif", ("--compare",), "--compare and --gt look at single pictures; give --frames first"),
        ("clip.gif", ("--gt", "photo.png"), "--compare and --gt look at single pictures; give --frames first"),
    ],
)
def test_what_cannot_hold_several_pictures_says_what_to_do(
    bbcu: Bbcu,
    source: str,
    options: tuple[str, ...],
    says: str,
) -> None:
    """One sentence, exit code 2, no output; --dry-run says the same."""
    Path("clip.gif").write_bytes(clip())
    Path("scan.tif").write_bytes(clip("TIFF"))
    before = sorted(Path().iterdir())
    done = bbcu("sr", source, *X2, *options)
    assert (done.code, says in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert says in bbcu("sr", source, *X2, *options, "--dry-run").out
    assert sorted(Path().iterdir()) == before


def test_a_dry_run_counts_the_frames(bbcu: Bbcu) -> None:
    """In words and in JSON."""
    Path("clip.gif").write_bytes(clip())
    assert "(4 frames, 16x12 to 32x24" in bbcu("sr", "clip.gif", *X2, "--dry-run").out
    assert json.loads(bbcu("sr", "clip.gif", *X2, "--dry-run", "--json").out)["frames"] == 4
    assert json.loads(bbcu("sr", "photo.png", *X2, "--dry-run", "--json").out)["frames"] == 1


@pytest.mark.parametrize(("source", "form"), [("PNG", "png"), ("PNG", "webp"), ("TIFF", "tif")])
def test_a_frame_that_is_damaged_leaves_no_output(bbcu: Bbcu, source: str, form: str) -> None:
    """Its number is in the one line; what was there before stays."""
    data = bytearray(clip(source))
    if source == "PNG":
        at = data.rindex(b"fdAT") + 12
        data[at : at + 9] = bytes(9)
    else:
        del data[-40:]
    name = f"in.{'tif' if source == 'TIFF' else 'png'}"
    Path(name).write_bytes(data)
    Path(f"in_x2.{form}").write_bytes(b"before")
    done = bbcu("sr", name, *X2, "--format", form, "--overwrite")
    assert done.code == 2
    assert f"{name}, frame 4, is" in done.err if source == "PNG" else f"{name}" in done.err, done.err
    assert Path(f"in_x2.{form}").read_bytes() == b"before"
    assert not list(Path().glob(".bbcu-*.part"))


def test_frames_come_from_stdin_and_go_to_stdout(bbcu: Bbcu) -> None:
    """As single pictures do."""
    done = bbcu("sr", "-", *X2, "-o", "out.webp", stdin=clip())
    assert done.code == 0, done.err
    assert len(pictures_of(Path("out.webp"))) == 4


@pytest.fixture
def model() -> Model:
    """x2, by repetition."""
    return stub("m-x2")


def settings(**changes: object) -> Settings:
    """Plain ones."""
    plain = Settings(Options(), EncodeOptions(), "PNG", 10**9, existing="overwrite", threads=1)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_first_frame_chooses_the_network_for_all(tmp_path: Path, model: Model) -> None:
    """It is looked at once, and frames do not flicker between networks."""
    looks: list[Image] = []
    source = tmp_path / "clip.gif"
    source.write_bytes(clip())

    def look(image: Image) -> Served:
        looks.append(image)
        return Served(model, "as the first one says")

    wanted = settings(serve=lambda _: Served(model, "", look=look))
    [row] = run([Job(source, tmp_path / "out.png")], model, wanted)
    assert (row.status, row.frames, row.reason, len(looks)) == ("done", 4, "as the first one says", 1)
    np.testing.assert_array_equal(looks[0].pixels, photo(12, 16))


def test_progress_covers_all_frames(tmp_path: Path, model: Model) -> None:
    """Each frame, half done when its engine says so, is a part of it."""
    source = tmp_path / "clip.gif"
    source.write_bytes(clip())
    shares: list[float] = []
    wanted = settings(progress=lambda _, share: shares.append(share))
    [row] = run([Job(source, tmp_path / "out.png")], model, wanted)
    assert row.status == "done", row.error
    assert shares == pytest.approx([0.125, 0.375, 0.625, 0.875])


def test_a_picture_that_no_network_serves_is_carried_over_frame_by_frame(tmp_path: Path, model: Model) -> None:
    """Left as it is, in another format."""
    source, output = tmp_path / "clip.gif", tmp_path / "out.webp"
    source.write_bytes(clip())
    wanted = settings(format="WebP", encoding=EncodeOptions(lossless=True), serve=lambda _: Served(None, "good"))
    [row] = run([Job(source, output)], model, wanted)
    assert (row.status, row.model, row.size_out) == ("done", None, (12, 16))
    for ours, given in zip(pictures_of(output), pictures_of(source), strict=True):
        np.testing.assert_array_equal(ours, given)


def test_frames_of_an_interrupted_folder_are_known_to_the_record() -> None:
    """The choice of frames shapes an output; all of them is what records of before meant by saying nothing."""
    assert options_key(settings()) != options_key(settings(frames="first"))
    assert options_key(settings()) == options_key(settings(frames="all"))


def test_frames_of_any_number_take_the_memory_of_a_few(model: Model) -> None:
    """A thousand frames as many as ten, but for AVIF, whose encoder keeps what it has compressed."""
    info = replace(probe(clip("PNG")), frames=10)
    for form in ("PNG", "WebP", "TIFF", "AVIF"):
        ten, many = (footprint(info, model, Options(), Work(form, frames=count)).peak for count in (10, 1000))
        assert (ten == many) == (form != "AVIF")
    one = footprint(info, model, Options(), Work("PNG")).peak
    assert one < footprint(replace(info, held=10**7), model, Options(), Work("PNG", frames=2)).peak - 10**7 + 1


def test_pages_take_the_memory_of_the_largest(tmp_path: Path, model: Model) -> None:
    """Whichever comes first."""
    small, large = Pillow.fromarray(photo(8, 8)), Pillow.fromarray(photo(300, 400))
    path = tmp_path / "pages.tif"
    path.write_bytes(saved(small, "TIFF", save_all=True, append_images=[large]))
    job = Job(path, tmp_path / "out.tif")
    both = settings(format="TIFF").footprint(job, probe(path), Served(model, "")).image
    path.write_bytes(saved(large, "TIFF"))
    assert both >= settings(format="TIFF").footprint(job, probe(path), Served(model, "")).image


@pytest.mark.parametrize(("form", "count"), [("GIF", 200), ("PNG", 200), ("WEBP", 200), ("TIFF", 300)])
def test_no_more_than_two_pictures_are_held_at_once(
    form: str, count: int, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever decodes the next one has let go of those before, but for the one that it is compared with."""
    pictures = [
        Pillow.fromarray(np.roll(photo(12, 16), (number % 12, number // 12), (0, 1))) for number in range(count)
    ]
    source = tmp_path / f"in.{form.lower()}"
    source.write_bytes(saved(pictures[0], form, save_all=True, append_images=pictures[1:]))
    alive = weakref.WeakSet[Image]()
    most = [0]

    class Watched(Image):
        """One that is counted."""

        __slots__ = ("__weakref__",)

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.size in ((12, 16), (24, 32)):
                alive.add(self)
                most[0] = max(most[0], len(alive))

    for module in ("image", "frames", "pillow", "png_file", "tiff_file", "encode_frames"):
        monkeypatch.setattr(f"bbcu_cli.image.{module}.Image", Watched)
    [row] = run([Job(source, tmp_path / "out.tif")], model, settings(format="TIFF"))
    assert (row.status, row.frames) == ("done", count), row.error
    assert 1 <= most[0] <= 3
    if form != "TIFF":
        most[0] = 0
        [row] = run([Job(source, tmp_path / "out.png")], model, settings())
        assert 1 <= most[0] <= 5


@pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell the peak of a process")
@pytest.mark.skipif(sys.platform == "darwin", reason="figures of Linux")
@pytest.mark.parametrize(
    "case",
    [
        Case(source="PNG", form="PNG", frames=60, megapixels=0.05),
        Case(source="TIFF", form="TIFF", frames=60, megapixels=0.05),
        Case(source="WebP", form="WebP", frames=10, megapixels=0.1),
        Case(source="AVIF", form="AVIF", frames=4, megapixels=0.03),
    ],
    ids=str,
)
def test_the_peak_of_memory_is_within_the_plan(case: Case, tmp_path: Path) -> None:
    """Of frames and pages, with the smallest --memory that is accepted."""
    measured = measure(case, tmp_path)
    assert measured.peak <= measured.planned


def test_the_restored_frames_are_those_of_the_pipeline(tmp_path: Path, model: Model) -> None:
    """The same pixels as of single pictures, also with a transparent canvas."""
    pictures = []
    for number in range(3):
        samples = np.zeros((12, 16, 4), np.uint8)
        samples[2 * number : 2 * number + 5, 3:9] = (40 * number, 200, 90, 255)
        pictures.append(Pillow.fromarray(samples))
    data = saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:], disposal=2)
    source, output = tmp_path / "clip.gif", tmp_path / "out.png"
    source.write_bytes(data)
    [row] = run([Job(source, output)], model, settings())
    assert row.status == "done", row.error
    with open_frames(data, max_pixels=10**6) as given, open_frames(output, max_pixels=10**6) as found:
        for before, after in zip(given.each, found.each, strict=True):
            expected = restore_image(before.image, model)
            np.testing.assert_array_equal(after.image.pixels, expected.pixels)
            np.testing.assert_array_equal(after.image.alpha, expected.alpha)
