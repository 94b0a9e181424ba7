"""Which network serves which file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bbcu_cli.errors import CheckpointError
from bbcu_cli.hub import Catalogue, Entry, Serves
from bbcu_cli.image.compression import Compression
from bbcu_cli.restoration.choice import UNTOLD_QUALITY, Choice, Wish, choose, hardly_pays
from bbcu_cli.restoration.noise import Noise
from bbcu_cli.spec import COLOUR_DEBLOCK_SPEC, DEBLOCK_SPEC, DENOISE_SPEC, ModelSpec, sr_spec

X2, X3, DENOISE, DEBLOCK = Wish("sr", 2), Wish("sr", 3), Wish("denoise"), Wish("deblock")


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """Networks of the paper, and some for photos; all files are there, since only their presence counts."""
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(tmp_path))

    def entry(name: str, spec: ModelSpec, quality: tuple[int, int] | None = None, *, untold: bool = False) -> Entry:
        (tmp_path / f"{name}.safetensors").touch()
        return Entry(name, spec, name, serves=None if quality is None else Serves(quality, untold=untold))

    return Catalogue(
        {
            e.name: e
            for e in (
                entry("sr-m-x2", sr_spec("m", 2)),
                entry("sr-m-x3", sr_spec("m", 3)),
                entry("sr-l-x2", sr_spec("l", 2)),
                entry("denoise", DENOISE_SPEC),
                entry("denoise-photo", DENOISE_SPEC, (1, 100)),
                entry("deblock", DEBLOCK_SPEC),
                entry("deblock-best", COLOUR_DEBLOCK_SPEC, (91, 96), untold=True),
                entry("deblock-high", COLOUR_DEBLOCK_SPEC, (70, 90)),
                entry("deblock-70", COLOUR_DEBLOCK_SPEC, (65, 75)),
                entry("deblock-web", COLOUR_DEBLOCK_SPEC, (20, 59)),
            )
        }
    )


def jpeg(quality: int) -> Compression:
    """A usual one."""
    return Compression("JPEG", quality)


@pytest.mark.parametrize(
    ("wish", "compression", "model"),
    [
        (X2, None, "sr-m-x2"),
        (X2, jpeg(75), "sr-m-x2"),
        (replace(X2, size="l"), jpeg(75), "sr-l-x2"),
        (replace(X2, size="l"), None, "sr-l-x2"),
        (replace(X2, size="l", input="clean"), jpeg(75), "sr-l-x2"),
        (X3, jpeg(75), "sr-m-x3"),
        (replace(X2, input="clean"), jpeg(75), "sr-m-x2"),
        (replace(X2, input="photo"), None, "sr-m-x2"),
        (DENOISE, None, "denoise"),
        (DENOISE, jpeg(90), "denoise-photo"),
        (replace(DENOISE, sigma=25.0), jpeg(90), "denoise"),
        (replace(DENOISE, sigma=25.0, input="photo"), jpeg(90), "denoise-photo"),
        (DEBLOCK, jpeg(10), "deblock"),
        (DEBLOCK, jpeg(30), "deblock-web"),
        (DEBLOCK, jpeg(66), "deblock-70"),
        (DEBLOCK, jpeg(72), "deblock-70"),
        (DEBLOCK, jpeg(90), "deblock-high"),
        (DEBLOCK, jpeg(97), None),
        (replace(DEBLOCK, input="photo"), jpeg(97), "deblock-best"),
        (replace(DEBLOCK, input="photo"), jpeg(64), "deblock-70"),
        (replace(DEBLOCK, input="photo"), None, "deblock-best"),
        (replace(X3, input="photo"), None, "sr-m-x3"),
        (replace(DENOISE, input="photo"), None, "denoise-photo"),
        (replace(DENOISE, input="clean"), jpeg(50), "denoise"),
        (DEBLOCK, jpeg(62), "deblock"),
        (DEBLOCK, None, "deblock"),
        (DEBLOCK, Compression("WebP"), "deblock-best"),
        (DEBLOCK, Compression("JPEG"), "deblock-best"),
        (replace(DEBLOCK, input="clean"), jpeg(90), "deblock"),
    ],
)
def test_the_file_and_the_wish_choose(
    catalogue: Catalogue, wish: Wish, compression: Compression | None, model: str | None
) -> None:
    """The narrowest range of the catalogue that holds the file's quality, else the network of the paper."""
    assert choose(wish, compression, catalogue).model == model


@pytest.mark.parametrize(
    ("wish", "compression", "first"),
    [
        (X2, None, None),
        (X2, jpeg(30), "deblock-web"),
        (X2, jpeg(75), "deblock-70"),
        (X2, jpeg(96), "deblock-best"),
        (X2, jpeg(97), None),
        (X2, jpeg(62), None),
        (X2, Compression("WebP"), "deblock-best"),
        (X2, Compression("AVIF"), "deblock-best"),
        (replace(X2, size="l"), jpeg(90), "deblock-high"),
        (replace(X2, input="clean"), jpeg(75), None),
        (replace(X2, input="photo"), None, "deblock-best"),
        (replace(X2, input="photo"), jpeg(97), "deblock-best"),
        (DENOISE, None, None),
        (DENOISE, jpeg(90), "deblock-high"),
        (replace(DENOISE, sigma=25.0), jpeg(90), None),
        (replace(DENOISE, sigma=25.0, input="photo"), jpeg(90), "deblock-high"),
        (replace(DENOISE, input="clean"), jpeg(90), None),
        (replace(DENOISE, input="photo"), None, "deblock-best"),
        (DEBLOCK, jpeg(90), None),
    ],
)
def test_a_lossy_file_is_deblocked_first(
    catalogue: Catalogue, wish: Wish, compression: Compression | None, first: str | None
) -> None:
    """By the network that `bbcu deblock` takes for it, if one was made for such files."""
    choice = choose(wish, compression, catalogue)
    assert choice.first == first
    if first:
        assert str(choice).startswith(f"{first}, then {choice.model}: ")
        assert choose(replace(DEBLOCK, input=wish.input), compression, catalogue).model == first


@pytest.fixture
def levels(catalogue: Catalogue, tmp_path: Path) -> Catalogue:
    """With denoisers for ranges of noise as well: one over the other, one of few qualities, and a gap."""
    entries = dict(catalogue.entries)
    del entries["denoise-photo"]
    for name, quality, sigma in (
        ("denoise-photo-low", (1, 100), (0, 8)),
        ("denoise-photo-high", (1, 100), (7, 30)),
        ("denoise-photo-six", (60, 80), (5.5, 6.5)),
        ("denoise-photo-most", (1, 100), (50, 75)),
    ):
        (tmp_path / f"{name}.safetensors").touch()
        entries[name] = Entry(name, DENOISE_SPEC, name, serves=Serves(quality, sigma))
    return Catalogue(entries)


@pytest.mark.parametrize(
    ("noise", "quality", "which"),
    [
        (0, 90, "low"), (6, 90, "low"), (6, 70, "six"), (7.5, 90, "low"), (8.1, 90, "high"), (30, 90, "high"),
        (35, 90, "high"), (45, 90, "most"), (200, 90, "most"),
    ],
)  # fmt: skip
def test_the_noise_of_a_photo_chooses(levels: Catalogue, noise: float, quality: int, which: str) -> None:
    """The narrowest range that holds the estimate; between two and beyond all the nearest one."""
    assert choose(DENOISE, jpeg(quality), levels, Noise(noise)).model == f"denoise-photo-{which}"
    told = replace(DENOISE, sigma=noise, input="photo")
    assert choose(told, jpeg(quality), levels, noise=Noise(20)).model == f"denoise-photo-{which}"
    assert choose(DENOISE, None, levels, Noise(noise)).model == "denoise"


def test_a_network_for_all_levels_serves_those_without_their_own(levels: Catalogue) -> None:
    """An entry without a range of noise holds every level, and is the widest."""
    entry = Entry("denoise-photo", DENOISE_SPEC, "all levels", serves=Serves((1, 100)))
    entry.file.touch()
    catalogue = Catalogue({**levels.entries, entry.name: entry})
    assert [choose(DENOISE, jpeg(90), catalogue, Noise(noise)).model for noise in (5, 35, 60)] == [
        "denoise-photo-low", "denoise-photo", "denoise-photo-most",
    ]  # fmt: skip


def test_correlated_noise_in_a_lossless_file_is_that_of_a_camera(levels: Catalogue) -> None:
    """If a network of the catalogue takes it; the options, and white noise, leave it to the others."""
    entry = replace(levels["denoise-photo-low"], serves=Serves((1, 100), (0, 8), correlated=(0, 8)))
    catalogue = Catalogue({**levels.entries, entry.name: entry})
    camera, white = Noise(3, 2), Noise(3, 1.9)
    assert str(choose(DENOISE, None, catalogue, camera)) == f"{entry.name}: a lossless file, for its noise"
    assert choose(DENOISE, None, catalogue, white).model == "denoise"
    assert choose(DENOISE, None, catalogue).model == "denoise"
    assert choose(DENOISE, None, levels, camera).model == "denoise"
    assert choose(replace(DENOISE, sigma=3.0), None, catalogue, camera).model == "denoise"
    assert choose(replace(DENOISE, input="clean"), None, catalogue, camera).model == "denoise"
    assert choose(DENOISE, jpeg(90), catalogue, white).model == entry.name
    assert choose(DENOISE, None, catalogue, Noise(20, 2.4)).model == "denoise"  # beyond its levels
    other = Catalogue({**levels.entries, entry.name: replace(entry, serves=Serves((1, 100), (0, 8), white=(1, 4)))})
    assert [choose(DENOISE, None, other, Noise(level)).model for level in (2, 5)] == [entry.name, "denoise"]


def test_a_picture_with_too_little_noise_is_left_as_it_is(levels: Catalogue) -> None:
    """Or only deblocked: below every range no denoiser helps; a level that the user gives, or --input, decides."""
    entry = levels["denoise-photo-low"]
    serves = Serves((1, 100), *[(0.5, 8)] * 3)
    catalogue = Catalogue({**levels.entries, entry.name: replace(entry, serves=serves)})
    quiet = Noise(0.4, 1.0)
    only = choose(DENOISE, jpeg(90), catalogue, quiet)
    assert str(only) == "deblock-high: a JPEG of quality 90; no denoiser helps where the noise is below 0.5"
    assert choose(DENOISE, jpeg(62), catalogue, quiet).model == "denoise-photo-low"  # which also has blocks
    for compression, kind in ((jpeg(97), "a JPEG of quality 97"), (None, "a lossless file")):
        left = choose(DENOISE, compression, catalogue, quiet)
        assert str(left) == f"left as it is: {kind}, and no network helps where the noise is below 0.5"
        assert choose(DENOISE, compression, catalogue, Noise(0.5, 3.0)).model == "denoise-photo-low"
        assert choose(replace(DENOISE, input="photo"), compression, catalogue, quiet).model == "denoise-photo-low"
        assert choose(replace(DENOISE, input="clean"), compression, catalogue, quiet).model == "denoise"
        assert choose(replace(DENOISE, sigma=0.1), compression, catalogue, quiet).model == "denoise"


def test_white_noise_has_a_floor_of_its_own(levels: Catalogue) -> None:
    """In a lossless file; that of a camera, or in a lossy file, is removed from a lower level on."""
    entry = levels["denoise-photo-low"]
    serves = Serves((1, 100), (2, 8), white=(4, 8), correlated=(2, 8))
    catalogue = Catalogue({**levels.entries, entry.name: replace(entry, serves=serves)})
    served = [
        choose(DENOISE, None, catalogue, Noise(level, correlation)).model
        for level in (1, 3, 5)
        for correlation in (1, 3)
    ]
    assert served == [None, None, None, entry.name, entry.name, entry.name]
    assert choose(DENOISE, jpeg(100), catalogue, Noise(3, 1)).model == entry.name


@pytest.mark.parametrize(("gain", "said"), [(-0.1, "does not pay at x2"), (0.11, "does not pay"), (0.13, "")])
def test_the_larger_network_has_to_be_worth_its_time(gain: float, said: str, catalogue: Catalogue) -> None:
    """A sentence where it gains less than 0.12 dB on the smaller one by the measured figures; none without figures."""
    large, figures = replace(X2, size="l"), {"sr-m-x2": 30.0, "sr-l-x2": 30.0 + gain}
    assert hardly_pays(large, catalogue) == ""
    known = Catalogue({name: replace(catalogue[name], measured={"Set14": psnr}) for name, psnr in figures.items()})
    line = hardly_pays(large, known)
    assert said in line
    assert bool(line) == bool(said)
    assert hardly_pays(X2, known) == ""


def test_a_network_that_is_not_at_hand_is_not_chosen(catalogue: Catalogue) -> None:
    """A network without weights leaves its files to the others."""
    catalogue["deblock-70"].file.unlink()
    assert choose(X2, jpeg(75), catalogue) == Choice("sr-m-x2", "a JPEG of quality 75", "deblock-high")
    catalogue["deblock-high"].file.unlink()
    assert choose(X2, jpeg(75), catalogue) == Choice(
        "sr-m-x2", "a JPEG of quality 75, for which no network was trained"
    )


def test_the_choice_says_why(catalogue: Catalogue) -> None:
    """In words for the result line."""
    assert str(choose(X2, jpeg(75), catalogue)) == "deblock-70, then sr-m-x2: a JPEG of quality 75"
    assert str(choose(X2, None, catalogue)) == "sr-m-x2: a lossless file"
    good = "sr-m-x2: a JPEG of quality 99, good enough for the network for clean pictures"
    assert str(choose(X2, jpeg(99), catalogue)) == good
    level = "denoise: a lossless file, --sigma 40, a level that has no network of its own"
    assert str(choose(replace(DENOISE, sigma=40.0), None, catalogue)) == level
    assert str(choose(replace(X2, input="photo"), None, catalogue)) == "deblock-best, then sr-m-x2: --input photo"
    assert str(choose(replace(X2, input="clean"), jpeg(9), catalogue)) == "sr-m-x2: --input clean"
    above = "left as it is: a JPEG of quality 99, and no network helps above quality 96"
    assert str(choose(DEBLOCK, jpeg(99), catalogue)) == above


def test_an_untold_quality_has_a_network_where_that_of_cameras_has(catalogue: Catalogue) -> None:
    """WebP, AVIF and HEIC count as a JPEG of the usual quality, unless a network is named for them."""
    for wish in (X2, DENOISE):
        assert choose(wish, Compression("HEIC"), catalogue).model == choose(wish, jpeg(UNTOLD_QUALITY), catalogue).model
    assert choose(DEBLOCK, Compression("HEIC"), catalogue).model == "deblock-best"


def test_what_a_network_serves_survives_the_catalogue(catalogue: Catalogue, tmp_path: Path) -> None:
    """Saved and read again; an older catalogue without the field, too; nonsense is rejected."""
    catalogue.save(tmp_path)
    assert Catalogue.load(tmp_path).entries == catalogue.entries
    fields = catalogue["deblock-high"].to_dict()
    assert Entry.from_dict("deblock-high", fields) == catalogue["deblock-high"]
    old = {name: value for name, value in fields.items() if name != "serves"}
    assert Entry.from_dict("deblock-high", old).serves is None
    for serves in ({"quality": [90, 80]}, {"quality": [0, 80]}, {"quality": [80]}, {"sigma": [1, 2]}, {}, 7):
        with pytest.raises(CheckpointError, match="deblock-high"):
            Entry.from_dict("deblock-high", fields | {"serves": serves or {"none": 1}})


def test_a_range_of_noise_survives_the_catalogue(levels: Catalogue, tmp_path: Path) -> None:
    """Saved and read again; nonsense, and noise for another task, is rejected."""
    levels.save(tmp_path)
    assert Catalogue.load(tmp_path).entries == levels.entries
    fields = levels["denoise-photo-low"].to_dict()
    assert fields["serves"] == {"quality": [1, 100], "sigma": [0, 8]}
    for kind in ("sigma", "white", "correlated"):
        for ends in ([8, 2], [-1, 8], [1], [1, float("nan")], "low", 7):
            with pytest.raises(CheckpointError, match="denoise-photo-low"):
                Entry.from_dict("denoise-photo-low", fields | {"serves": {"quality": [1, 100], kind: ends}})
    every = Serves((1, 100), (0, 8), (1, 8), (2, 8))
    assert Serves.from_dict(every.to_dict()) == every
    with pytest.raises(CheckpointError, match="only denoisers"):
        Entry("deblock", DEBLOCK_SPEC, "", serves=Serves((1, 50), (0, 8)))
