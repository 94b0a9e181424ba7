"""Any size: the way there is planned from sizes alone, and what comes out has exactly the pixels asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from commands import Bbcu, size_of
from PIL import Image as Pillow
from PIL import ImageCms
from small import SMALL_SPECS, small_model
from stand_in import stub
from test_pipeline import small

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.errors import UsageError
from bbcu_cli.hub import Catalogue, Entry, Serves
from bbcu_cli.image import Bands, Image, ImageInfo, Metadata, decode, encode
from bbcu_cli.restoration.memory import Work, footprint
from bbcu_cli.restoration.model import Options
from bbcu_cli.restoration.pipeline import chained_bands, restore
from bbcu_cli.restoration.resize import resized
from bbcu_cli.restoration.size import Target, Then, Way, chain
from bbcu_cli.restoration.tiling import TileSize


@pytest.mark.parametrize(
    ("target", "size", "result"),
    [
        (Target(Fraction("1.5")), (7, 5), (11, 8)),  # 10.5 and 7.5: halves up
        (Target(Fraction("3.7")), (100, 10), (370, 37)),
        (Target(Fraction("1.1")), (1, 1), (1, 1)),
        (Target(Fraction("1.1")), (5, 1000), (6, 1100)),  # 5.5 exactly, which no binary fraction is
        (Target(width=1000), (333, 500), (666, 1000)),
        (Target(height=1000), (333, 500), (1000, 1502)),
        (Target(width=3840, height=2160), (1000, 1500), (2160, 3240)),
        (Target(width=3840, height=2160), (700, 1500), (1792, 3840)),
        (Target(longest=900), (301, 200), (900, 598)),
        (Target(longest=900), (200, 301), (598, 900)),
        (Target(longest=301), (200, 301), (200, 301)),
        (Target(width=10), (200, 301), (200, 301)),
        (Target(width=10, reduce=True), (200, 301), (7, 10)),
        (Target(width=1, reduce=True), (20, 301), (1, 1)),
    ],
)
def test_sizes_are_exact_to_the_pixel(target: Target, size: tuple[int, int], result: tuple[int, int]) -> None:
    """The exact factor times each side, halves up; a side that was named is that side."""
    assert target.way(size).size == result


@pytest.mark.parametrize(
    ("factor", "scales"),
    [
        ("1.01", (2,)), ("2", (2,)), ("2.01", (3,)), ("3.7", (4,)), ("4", (4,)), ("4.5", (2, 3)), ("6", (2, 3)),
        ("8", (2, 4)), ("9", (3, 3)), ("10", (3, 4)), ("12", (3, 4)), ("16", (4, 4)),
    ],
)  # fmt: skip
def test_the_fewest_networks_that_reach_far_enough(factor: str, scales: tuple[int, ...]) -> None:
    """The chain that enlarges least, the smaller network first; without one of scale 3, by the others."""
    assert chain(Fraction(factor)) == scales
    assert 3 not in chain(Fraction(factor), (2, 4))
    assert set(chain(Fraction(factor), (2,))) == {2}


def test_a_way_says_whether_a_filter_runs() -> None:
    """Not where the networks make that very size; a picture beyond 16 times is refused."""
    assert Target(Fraction(8)).way((5, 7)) == Way((2, 4), (40, 56), Fraction(8), filtered=False)
    assert Target(width=28).way((5, 7)) == Way((4,), (20, 28), Fraction(4), filtered=False)
    assert Target(width=27).way((5, 7)).filtered
    assert Target(width=7).way((5, 7)) == Way((), (5, 7), Fraction(1), filtered=False)
    with pytest.raises(UsageError, match=r"5x3 pixels would be enlarged 20 times; the most is 16"):
        Target(width=100).way((3, 5))


def picture(rng: np.random.Generator, size: tuple[int, int], depth: int, channels: int, *, alpha: bool) -> Image:
    """Noise."""
    dtype = np.dtype(f"u{depth // 8}")
    most = np.iinfo(dtype).max
    mask = rng.integers(0, most, size, dtype, endpoint=True) if alpha else None
    return Image(rng.integers(0, most, (*size, channels), dtype, endpoint=True), mask)


def in_bands(image: Image, height: int) -> Bands:
    """The picture in bands of so many rows."""

    def rows() -> Iterator[Image]:
        for top in range(0, image.size[0], height):
            alpha = None if image.alpha is None else image.alpha[top : top + height]
            yield Image(image.pixels[top : top + height], alpha)

    return replace(Bands.of(image), rows=rows())


@pytest.mark.parametrize("size", [(370, 50), (301, 67), (9, 3), (1, 1), (399, 99)])
@pytest.mark.parametrize(("depth", "channels", "alpha"), [(8, 3, False), (16, 3, True), (16, 1, False)])
def test_a_picture_is_reduced_alike_in_any_bands(
    size: tuple[int, int], depth: int, channels: int, *, alpha: bool, rng: np.random.Generator
) -> None:
    """To the bit, whatever the heights of the bands; and as Pillow reduces the whole, but for a rounding."""
    image = picture(rng, (400, 100), depth, channels, alpha=alpha)
    whole = resized(Bands.of(image), size).whole()
    assert whole.size == size
    for height in (1, 7, 64, 399):
        banded = resized(in_bands(image, height), size).whole()
        np.testing.assert_array_equal(banded.pixels, whole.pixels)
        if alpha:
            np.testing.assert_array_equal(banded.alpha, whole.alpha)
    planes = [image.alpha] if image.alpha is not None else [image.pixels[..., c] for c in range(channels)]
    found = [whole.alpha] if whole.alpha is not None else [whole.pixels[..., c] for c in range(channels)]
    for plane, result in zip(planes, found, strict=True):
        floats = Pillow.fromarray(plane.astype(np.float32)).resize(size[::-1], Pillow.Resampling.LANCZOS)
        expected = np.clip(np.asarray(floats), 0, np.iinfo(plane.dtype).max)
        assert np.abs(result - expected).max() < 0.6 if depth == 8 else np.abs(result - expected).max() < 3


def test_hidden_colour_does_not_shine_through() -> None:
    """Black under no opacity beside white: what is left of the edge is white, more or less opaque."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    alpha = np.zeros((40, 40), np.uint8)
    alpha[:, 20:] = 255
    small_one = resized(Bands.of(Image(pixels, alpha)), (27, 27)).whole()
    assert small_one.alpha is not None
    assert (small_one.pixels[small_one.alpha > 0] == 255).all()


def test_a_chain_in_tiles_is_the_chain_of_whole_pictures(rng: np.random.Generator) -> None:
    """Two networks and the filter, in any tiles: the same within a level, as each network is."""
    image = picture(rng, (19, 23), 8, 3, alpha=True)
    shares: list[float] = []
    with small("m-x2") as two, small("m-x3") as three:
        expected = np.dstack([image.pixels, image.alpha])  # type: ignore[list-item]
        for model in (two, three):
            expected = restore(expected, model)
        tiles = (TileSize(8, 8), TileSize(16, 40))
        bands = chained_bands(image, (two, three), (114, 138), Options(), tiles, shares.append)
        exact = bands.whole()
        reduced = chained_bands(image, (two, three), (95, 115), Options(), tiles).whole()
    assert np.abs(exact.pixels.astype(int) - expected[..., :3]).max() <= 1
    assert np.abs(exact.alpha.astype(int) - expected[..., 3]).max() <= 1  # type: ignore[union-attr]
    assert (bands.size, reduced.size) == ((114, 138), (95, 115))
    np.testing.assert_array_equal(reduced.pixels, resized(Bands.of(exact), (95, 115)).whole().pixels)
    assert shares == sorted(shares) or not shares
    assert all(0 <= share <= 1 for share in shares)


def test_everything_of_a_chain_is_counted() -> None:
    """What the first network gives is held; a filter takes rows of floats; results are as large as they are."""
    info, options = ImageInfo("PNG", (300, 400), channels=3, depth=8, alpha=False, frames=1), Options(tile=100)
    two, four = stub("m-x2"), stub("m-x4")

    def peak(*models: object, size: tuple[int, int], form: str = "JPEG") -> int:
        then = Then(models, size, Fraction(2), filtered=True)  # type: ignore[arg-type]
        return footprint(info, two, options, Work(form), then).peak

    between, large = 4 * info.nbytes, 64 * info.pixels
    assert peak(four, size=(2400, 3200)) >= info.nbytes + between + 4 * large
    assert peak(four, size=(2400, 3200)) > peak(size=(600, 800))
    assert peak(size=(599, 799), form="PNG") > peak(size=(600, 800), form="PNG")


def test_an_array_comes_to_any_size(rng: np.random.Generator) -> None:
    """restore(size=): the network as often as it takes, then the filter; impossible sizes are refused."""
    pixels = rng.integers(0, 65536, (9, 14, 4), dtype=np.uint16)
    with small("m-x2") as model, small("denoise") as denoiser:
        for size in ((18, 28), (13, 20), (27, 42), (72, 113), (9, 15)):
            out = restore(pixels, model, size=size)
            assert (out.shape, out.dtype) == ((*size, 4), np.uint16)
        np.testing.assert_array_equal(restore(pixels, model, size=(18, 28)), restore(pixels, model))
        for size, message in (((9, 14), "larger than"), ((8, 50), "larger than"), ((9, 400), "16 times at the most")):
            with pytest.raises(UsageError, match=message):
                restore(pixels, model, size=size)
        with pytest.raises(UsageError, match="networks that enlarge"):
            restore(pixels, denoiser, size=(18, 28))


@pytest.fixture
def shelf(bbcu: Bbcu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bbcu]:
    """The commands with small networks in place of those that ship, among them one that deblocks."""
    folder = Path("shelf")
    folder.mkdir()
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(folder))
    entries = {}
    specs = {f"sr-m-x{s}": SMALL_SPECS[f"m-x{s}"] for s in (2, 3, 4)}
    specs |= {f"sr-l-x{s}": SMALL_SPECS[f"l-x{s}"] for s in (2, 4)}
    for name, spec in {**specs, "deblock-mid": replace(SMALL_SPECS["deblock"], channels=3)}.items():
        (folder / f"{name}.safetensors").write_bytes(to_bytes(small_model(spec, len(name))))
        entries[name] = Entry(name, spec, name, serves=Serves((1, 88), full_step=20) if "mid" in name else None)
    entries["sr-l-x3"] = Entry("sr-l-x3", SMALL_SPECS["l-x3"], "sr-l-x3")  # not trained
    Catalogue(entries).save(folder)
    Catalogue.load(folder).refreshed(folder)[0].save(folder)
    return bbcu


@pytest.mark.parametrize(
    ("options", "output", "size", "way"),
    [
        (("--scale", "1.5"), "photo_x1.5.png", (21, 14), ["sr-m-x2", "Lanczos"]),
        (("-s", "3.7"), "photo_x3.7.png", (52, 33), ["sr-m-x4", "Lanczos"]),
        (("--scale", "8"), "photo_x8.png", (112, 72), ["sr-m-x2", "sr-m-x4"]),
        (("--scale", "5"), "photo_x5.png", (70, 45), ["sr-m-x2", "sr-m-x3", "Lanczos"]),
        (("--scale", "16"), "photo_x16.png", (224, 144), ["sr-m-x4", "sr-m-x4"]),
        (("--width", "42"), "photo_width42.png", (42, 27), ["sr-m-x3"]),
        (("--height", "20"), "photo_height20.png", (31, 20), ["sr-m-x3", "Lanczos"]),
        (("--fit", "50x30"), "photo_fit50x30.png", (47, 30), ["sr-m-x4", "Lanczos"]),
        (("--longest", "15"), "photo_longest15.png", (15, 10), ["sr-m-x2", "Lanczos"]),
        (("--longest", "14"), "photo_longest14.png", (14, 9), []),
        (("--width", "7"), "photo_width7.png", (14, 9), []),
        (("--width", "7", "--reduce"), "photo_width7.png", (7, 5), ["Lanczos"]),
        (("--width", "42", "--model", "l"), "photo_width42.png", (42, 27), ["sr-l-x4", "Lanczos"]),
        (("--scale", "3.7", "--weights", "m-x2.safetensors"), "photo_x3.7.png", (52, 33), ["m-x2"] * 2 + ["Lanczos"]),
    ],
)
def test_the_command_line_makes_any_size(
    options: tuple[str, ...], output: str, size: tuple[int, int], way: list[str], shelf: Bbcu
) -> None:
    """Exactly; --dry-run foresees it, and both say the way."""
    plan = json.loads(shelf("sr", "photo.png", *options, "--dry-run", "--json").out)
    row = json.loads(shelf("sr", "photo.png", *options, "--json").out)
    for told in (plan, row):
        assert told["output"] == output
        assert [Path(name).stem for name in told["way"]] == way
        assert told["output_size"] == {"width": size[0], "height": size[1]}
    assert size_of(output) == size
    if size == (14, 9):
        assert (row["model"], row["reason"]) == (None, "14x9 is large enough")
        np.testing.assert_array_equal(decode(Path(output), max_pixels=999).pixels, np.asarray(Pillow.open("photo.png")))


def test_another_size_or_way_is_not_up_to_date(shelf: Bbcu) -> None:
    """The record knows sizes and networks; two ways to say the same are the same; --gt and a second look keep it."""
    statuses = []
    for options in (
        ("--scale", "3.7"), ("--scale", "3.7"), ("--scale", "3.69"), ("--width", "52"), ("--width", "56"),
        ("--scale", "4"), ("--scale", "8"), ("--longest", "112"), ("--longest", "112", "--model", "l"),
        ("--longest", "5"), ("--width", "9"), ("--width", "9", "--reduce"), ("--width", "9", "--reduce"),
    ):  # fmt: skip
        row = json.loads(shelf("sr", "photo.png", *options, "-o", "out.png", "--skip-existing", "--json").out)
        statuses.append(row["status"])
        assert row["way"] or options[1] in "5 9"
    # 3.69 and the width of 52 pixels lead to the size of 3.7 by the same way; 56 pixels are x4, 112 are x8.
    kept = [1, 2, 3, 5, 7, 10, 12]
    assert [n for n, status in enumerate(statuses) if status == "skipped"] == kept


def test_the_way_is_told_to_people(shelf: Bbcu) -> None:
    """In the line of the file; also of one that is up to date, and of one that stays as it is."""
    assert "(14x9 to 112x72, " in (done := shelf("sr", "photo.png", "--scale", "8").err)
    assert "sr-m-x2, then sr-m-x4: a lossless file" in done
    kept = shelf("sr", "photo.png", "--scale", "8", "--skip-existing").err
    assert "is up to date  (sr-m-x2, then sr-m-x4: a lossless file)" in kept
    assert "left as it is: 14x9 is large enough" in shelf("sr", "photo.png", "--width", "9").err
    assert (
        "Lanczos: 14x9 is larger than asked" in shelf("sr", "photo.png", "--width", "9", "--reduce", "-o", "r.png").err
    )


def test_a_photo_is_deblocked_first(shelf: Bbcu) -> None:
    """The networks behind see what that made, which is clean; --input clean leaves it out; a plan foresees it."""
    Path("photo.jpg").rename("other.jpg")
    Pillow.open("other.jpg").save("photo.jpg", quality=75)
    for options, way in (((), []), (("--scale", "4"), []), (("--scale", "8"), ["sr-m-x4"])):
        both = [json.loads(shelf("sr", "photo.jpg", *options, "--json", *more).out) for more in (("--dry-run",), ())]
        first = "sr-m-x2" if options == ("--scale", "8") else "sr-m-x4"
        for row in both:
            assert row["way"] == ["deblock-mid", first, *way]
            assert row["model"] == first
            assert row["reason"] == "a JPEG of quality 75"
        Path(both[0]["output"]).unlink()
    row = json.loads(shelf("sr", "photo.jpg", "--scale", "7", "--json").out)
    assert row["way"] == ["deblock-mid", "sr-m-x2", "sr-m-x4", "Lanczos"]
    row = json.loads(shelf("sr", "photo.jpg", "--scale", "7", "--json", "--input", "clean", "--overwrite").out)
    assert row["way"] == ["sr-m-x2", "sr-m-x4", "Lanczos"]


def test_a_folder_of_many_sizes_comes_to_one(shelf: Bbcu, rng: np.random.Generator) -> None:
    """Each picture by its own way, with all that it has: gray, 16 bits, alpha, profile; one is too small."""
    Path("in").mkdir()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds = {"a": (8, 1, False), "b": (16, 3, False), "c": (16, 3, True), "d": (8, 3, True)}
    for n, (name, (depth, channels, alpha)) in enumerate(kinds.items()):
        image = picture(rng, (20 + 11 * n, 16 + 17 * n), depth, channels, alpha=alpha)
        about = Metadata(icc=icc if channels == 3 else None)
        Path(f"in/{name}.png").write_bytes(encode(replace(image, metadata=about), "PNG"))
    Pillow.new("RGB", (2, 2)).save("in/e.png")
    done = shelf("sr", "in", "--width", "60", "--json", "--tile", "13", "-o", "out", "--compare")
    rows = {Path(row["source"]).stem: row for row in map(json.loads, done.out.splitlines())}
    assert done.code == 1
    assert "would be enlarged 30 times" in rows.pop("e")["error"]
    ways = {name: row["way"] for name, row in rows.items()}
    assert ways == {
        "a": ["sr-m-x4", "Lanczos"], "b": ["sr-m-x2", "Lanczos"], "c": ["sr-m-x2", "Lanczos"], "d": [],
    }  # fmt: skip
    for name, (depth, channels, alpha) in kinds.items():
        result = decode(Path(f"out/{name}.png"), max_pixels=99999)
        assert (result.depth, result.channels, result.alpha is not None) == (depth, channels, alpha)
        assert result.size[1] == (67 if name == "d" else 60)
        assert (result.metadata.icc is not None) == (channels == 3)
        assert Path(f"out/{name}_compare.png").exists()


def test_results_are_scored_at_their_size(shelf: Bbcu, rng: np.random.Generator) -> None:
    """Against a ground truth of that size, or one that differs by less than a pixel of the input; else it fails."""
    for size, code in (((33, 52), 0), ((35, 53), 0), ((45, 52), 2)):
        Path("gt.png").write_bytes(encode(picture(rng, size, 8, 3, alpha=False), "PNG"))
        for options in (("--self-ensemble",), ("--no-self-ensemble",)):
            done = shelf("sr", "photo.png", "--scale", "3.7", "--gt", "gt.png", "--json", "--overwrite", *options)
            assert done.code == code
            row = json.loads(done.out)
            assert (row["scores"] is not None) == (code == 0)


@pytest.mark.parametrize("options", [("--scale", "3.7"), ("--width", "52"), ("--fit", "52x40"), ("--longest", "52")])
def test_results_of_any_size_are_paired_with_their_truth(
    options: tuple[str, str], shelf: Bbcu, rng: np.random.Generator
) -> None:
    """By the names that bbcu gives them, of which none is taken for a scale of 2, 3 or 4."""
    Path("gt").mkdir()
    Path("gt/photo.png").write_bytes(encode(picture(rng, (33, 52), 8, 3, alpha=False), "PNG"))
    output = json.loads(shelf("sr", "photo.png", *options, "--json").out)["output"]
    Path("pred").mkdir()
    Path(output).rename(Path("pred") / output)
    report = json.loads(shelf("eval", "--gt", "gt", "--pred", "pred", "--json").out)
    assert "not told by names, record or sizes" in json.dumps(report)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scale", "1"), "--scale is 1; give a number above 1 and up to 16"),
        (("--scale", "16.1"), "--scale is 16.1; give a number above 1"),
        (("--scale", "nan"), "--scale is nan; give a number"),
        (("--scale", "inf"), "--scale is inf; give a number"),
        (("--scale", "3", "--width", "40"), "--scale and --width exclude each other"),
        (("--width", "40", "--height", "40"), "exclude each other; for a box, give --fit WxH"),
        (("--fit", "40x40", "--longest", "3"), "--fit and --longest exclude each other"),
        (("--fit", "40"), "--fit 40 is not a width and a height; give for example 3840x2160"),
        (("--fit", "0x40"), "--fit 0x40 is not"),
        (("--reduce",), "--reduce is for --width"),
        (("--width", "300"), "14x9 pixels would be enlarged 21.43 times; the most is 16"),
    ],
)
def test_impossible_sizes_are_refused_in_a_sentence(options: tuple[str, ...], message: str, shelf: Bbcu) -> None:
    """Exit 2, and nothing is written."""
    before = sorted(Path().iterdir())
    done = shelf("sr", "photo.png", *options)
    assert done.code == 2
    assert message in done.err
    assert sorted(Path().iterdir()) == before


def test_a_size_overrides_the_variable_of_the_scale(shelf: Bbcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """BBCU_SCALE is what --scale is by default, and any number that it takes."""
    monkeypatch.setenv("BBCU_SCALE", "2.5")
    assert shelf("sr", "photo.png").code == 0
    assert size_of("photo_x2.5.png") == (35, 23)
    assert shelf("sr", "photo.png", "--width", "20").code == 0
    assert size_of("photo_width20.png") == (20, 13)
