"""TIFF by its tags: whatever depth, planes, order and compression, samples are right or refused in a true sentence."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from pictures import as_jpeg, cmyk_profile, deep, gray_photo, photo, saved, soft_mask
from PIL import Image as Pillow
from tiff_files import by_libtiff, deflate, lzw, pack_bits, spread, tiff, written

from bbcu_cli.errors import ImageError
from bbcu_cli.image import Image, decode, encode, probe

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")

DEPTHS = range(1, 17)
COMPRESSIONS = {
    "none": (1, lambda data, _: data),
    "deflate": (8, deflate),
    "old deflate": (32946, deflate),
    "LZW": (5, lzw),
    "PackBits": (32773, pack_bits),
    "Zstandard": (50000, by_libtiff("zstd")),
    "LZMA": (34925, by_libtiff("lzma")),
}


def read(data: bytes) -> np.ndarray:
    """Samples of the decoded picture, alpha last; the header has promised what they are."""
    info, image = probe(data), decode(data, max_pixels=10**6)
    assert (info.size, info.channels, info.depth) == (image.size, image.channels, image.depth)
    assert info.alpha == (image.alpha is not None)
    return image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])


def taken_from(parts: list[bytes]) -> Any:
    """An encoder that gives one after the other."""
    rest = iter(parts)
    return lambda *_: next(rest)


def cut_to(bits: int, samples: np.ndarray) -> np.ndarray:
    """Samples of all values of `bits` bits."""
    return deep(samples) >> (16 - bits)


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("planar", [False, True])
def test_every_depth_keeps_its_share_of_white(bits: int, channels: int, planar: bool) -> None:  # noqa: FBT001
    """1 to 16 bits, packed: 12 bits are not shown 16 times too dark; interleaved or in planes, an odd number wide."""
    samples = cut_to(bits, np.dstack([photo(13, 21), soft_mask(13, 21)])[..., :channels])
    data = tiff(samples, bits, planar=planar, extras=[2] * (channels == 4), chunk=5)
    np.testing.assert_array_equal(read(data), spread(samples, bits))


@pytest.mark.parametrize("bits", [1, 4, 8, 10, 12, 16])
@pytest.mark.parametrize("white", [0, 1])
def test_white_is_zero_in_every_depth(bits: int, white: int) -> None:
    """What is stored the other way round is turned, opacity is not."""
    samples = cut_to(bits, np.dstack([gray_photo(13, 21), soft_mask(13, 21)]))
    expected = spread(samples, bits)
    if white == 0:
        expected[..., 0] = np.iinfo(expected.dtype).max - expected[..., 0]
    np.testing.assert_array_equal(read(tiff(samples, bits, photometric=white, extras=[2])), expected)


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("chunk", [None, 7, (16, 32)], ids=["one strip", "strips", "tiles"])
def test_every_compression_of_bytes_is_undone(name: str, order: str, chunk: Any) -> None:
    """Both byte orders, strips and tiles, planes and none, 8 bits and 12 and 16, classic and big."""
    number, how = COMPRESSIONS[name]
    rgba = np.dstack([photo(20, 37), soft_mask(20, 37)])
    for bits, planar, big in ((8, False, True), (12, True, False), (16, True, True), (16, False, False)):
        samples = cut_to(bits, rgba)
        data = tiff(
            samples, bits, extras=[2], planar=planar, compression=number, encode=how, chunk=chunk, order=order, big=big
        )
        np.testing.assert_array_equal(read(data), spread(samples, bits))


@pytest.mark.parametrize("name", ["deflate", "LZW", "Zstandard"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_differences_are_summed_up(name: str, order: str, bits: int, planar: bool) -> None:  # noqa: FBT001
    """Predictor 2 in strips and tiles, in numbers of the file's byte order."""
    number, how = COMPRESSIONS[name]
    samples = cut_to(bits, photo(20, 37))
    for chunk in (9, (16, 16)):
        data = tiff(samples, bits, planar=planar, predictor=2, compression=number, encode=how, chunk=chunk, order=order)
        np.testing.assert_array_equal(read(data), samples)


@pytest.mark.parametrize("name", ["none", "PackBits"])
def test_a_predictor_counts_only_where_it_is_allowed(name: str) -> None:
    """Files without LZW or deflate carry the tag without its meaning."""
    number, how = COMPRESSIONS[name]
    data = tiff(photo(), 8, compression=number, encode=how, tags={317: 2})
    np.testing.assert_array_equal(read(data), photo())


@pytest.mark.parametrize("name", ["none", "deflate", "LZW", "PackBits"])
@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_the_lowest_bit_may_come_first(name: str, bits: int) -> None:
    """FillOrder 2 turns the bits of the stored bytes, compressed or not."""
    number, how = COMPRESSIONS[name]
    samples = cut_to(bits, photo(13, 21))
    data = tiff(samples, bits, compression=number, encode=how, lowest_first=True, chunk=4)
    np.testing.assert_array_equal(read(data), spread(samples, bits))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_faxes_are_read(compression: str) -> None:
    """CCITT in all its kinds, as Pillow and libtiff read it."""
    picture = Pillow.fromarray(gray_photo(61, 77)).convert("1")
    data = saved(picture, "TIFF", compression=compression)
    np.testing.assert_array_equal(read(data)[..., 0], np.asarray(picture) * np.uint8(255))


@pytest.mark.parametrize("photometric", [2, 6])
def test_the_tags_say_what_the_colours_of_a_jpeg_are(photometric: int) -> None:
    """Not the segments of the JPEG stream: RGB stored as it is, and YCbCr, neither said in the stream."""
    jpeg = as_jpeg(photo(), quality=98, subsampling=0, keep_rgb=photometric == 2)
    bare = jpeg[:2] + jpeg[jpeg.index(b"\xff\xdb") :]  # without JFIF and Adobe
    data = tiff(photo(), 8, compression=7, photometric=photometric, encode=lambda *_: bare)
    assert np.abs(read(data).astype(int) - photo()).mean() < 2


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_strips_and_tiles_are_put_together(subsampling: str) -> None:
    """Each is the picture that it is alone, whatever its chroma; a tile at the edge is cut."""
    for chunk in (16, (16, 32)):
        rows, columns = (chunk, 64) if isinstance(chunk, int) else chunk
        whole = np.pad(photo(40, 64), ((0, -40 % rows if isinstance(chunk, tuple) else 0), (0, 0), (0, 0)))
        parts = [whole[y : y + rows, x : x + columns] for y in range(0, 40, rows) for x in range(0, 64, columns)]
        streams = [as_jpeg(part, subsampling=subsampling) for part in parts]
        data = tiff(photo(40, 64), 8, compression=7, photometric=6, chunk=chunk, encode=taken_from(streams))
        expected = np.zeros_like(whole)
        for number, stream in enumerate(streams):
            y, x = divmod(number, 64 // columns)
            shown = decode(stream, max_pixels=10**6).pixels
            expected[y * rows :, x * columns :][: len(shown), :columns] = shown
        np.testing.assert_array_equal(read(data), expected[:40])


def test_shared_tables_of_jpeg_streams_are_put_in() -> None:
    """JPEGTables: strips of Pillow's have none of their own; also in planes of one sample each."""
    data = saved(Pillow.fromarray(photo()), "TIFF", compression="jpeg", quality=95)
    assert np.abs(read(data).astype(int) - photo()).mean() < 3
    planes = [as_jpeg(photo()[..., i], quality=98) for i in range(3)]
    data = tiff(photo(), 8, compression=7, planar=True, encode=taken_from(planes))
    assert np.abs(read(data).astype(int) - photo()).mean() < 2


def test_an_old_jpeg_page_that_keeps_its_whole_stream_is_read() -> None:
    """Compression 6 with JPEGInterchangeFormat; one without is refused by name."""
    jpeg = as_jpeg(photo(), quality=95)
    about = {"compression": 6, "photometric": 6, "encode": lambda *_: jpeg}
    data = tiff(photo(), 8, **about, tags={513: 8, 514: len(jpeg)})
    np.testing.assert_array_equal(read(data), decode(jpeg, max_pixels=10**6).pixels)
    with pytest.raises(ImageError, match="old-style JPEG"):
        read(tiff(photo(), 8, **about))


@pytest.mark.parametrize("blocks", [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize("name", ["none", "deflate", "LZW"])
def test_ycbcr_is_converted(blocks: tuple[int, int], name: str) -> None:
    """TIFF 6.0, section 21: blocks of Y with one Cb and Cr, sizes that do not divide, as libtiff shows them."""
    across, down = blocks
    ycbcr = np.asarray(Pillow.fromarray(photo(22, 35)).convert("YCbCr")).astype(int)
    height, width = -(-22 // down) * down, -(-35 // across) * across
    padded = np.pad(ycbcr, ((0, height - 22), (0, width - 35), (0, 0)), mode="edge")
    cells = padded.reshape(height // down, down, width // across, across, 3)
    chroma = cells[..., 1:].mean(axis=(1, 3)).round()
    luma = cells[..., 0].swapaxes(1, 2).reshape(height // down, width // across, -1)
    units = np.concatenate([luma, chroma], axis=2).astype(np.uint8)
    number, how = COMPRESSIONS[name]
    strip = how(units.tobytes(), units.nbytes // len(units))
    data = tiff(
        photo(22, 35), 8, photometric=6, compression=number, encode=lambda *_: strip, tags={530: [across, down]}
    )
    y, cb, cr = ycbcr[..., 0], *np.moveaxis(chroma.repeat(down, 0).repeat(across, 1)[:22, :35], -1, 0)
    rgb = np.stack(
        [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)], -1
    )
    assert np.abs(read(data) - np.clip(rgb, 0, 255)).max() < 1.01


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("scale", [1, 256, 257])
def test_palettes_are_looked_up(bits: int, scale: int) -> None:
    """Colours of 16 bits made of 8 in any of the ways in use, gray palettes stay gray, indices may have alpha."""
    rng = np.random.default_rng(0)
    colours = rng.integers(1, 256, (1 << bits, 3))
    index = cut_to(bits, photo(13, 21)[..., :1])
    for palette in (colours, colours[:, :1].repeat(3, axis=1)):
        data = tiff(index, bits, photometric=3, tags={320: (palette.T * scale).ravel().tolist()})
        expected = palette[index[..., 0]]
        np.testing.assert_array_equal(read(data), expected if palette is colours else expected[..., :1])
    both = np.dstack([index, cut_to(bits, soft_mask(13, 21))])
    data = tiff(both, bits, photometric=3, extras=[2], tags={320: (colours.T * scale).ravel().tolist()})
    np.testing.assert_array_equal(read(data)[..., 3], spread(both[..., 1], bits))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("planar", [False, True])
def test_associated_alpha_is_divided_out(bits: int, channels: int, planar: bool) -> None:  # noqa: FBT001
    """Gray as well as RGB, 8 bits as well as 16, in planes or not: where it is not transparent the colour is back."""
    top = (1 << bits) - 1
    colour, mask = cut_to(bits, photo()[..., :channels]), cut_to(bits, soft_mask())
    stored = np.dstack([np.rint(colour * (mask[..., None] / top)).astype(np.uint16), mask])
    image = read(tiff(stored, bits, extras=[1], planar=planar))
    seen = mask > top * 0.6
    assert np.abs(image[seen][:, :channels].astype(int) - colour[seen]).max() <= 1
    np.testing.assert_array_equal(image[..., channels], mask)


def test_channels_of_no_stated_meaning_are_left_out_with_a_note() -> None:
    """RGB beside a mask and an opacity; four channels without a word are RGBA, as everywhere."""
    many = np.dstack([photo(), gray_photo(), soft_mask(), gray_photo()])
    for planar in (False, True):
        data = tiff(many, 8, extras=[0, 2, 0], planar=planar)
        np.testing.assert_array_equal(read(data), many[..., [0, 1, 2, 4]])
        assert "2 channels" in decode(data, max_pixels=10**6).notes[0]
    np.testing.assert_array_equal(read(tiff(many[..., :4], 8, extras=[0])), photo())
    np.testing.assert_array_equal(read(tiff(many[..., :4], 8)), many[..., :4])


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("planar", [False, True])
def test_cmyk_of_any_depth_goes_through_its_profile(bits: int, planar: bool) -> None:  # noqa: FBT001
    """More than 8 bits are reduced to 8 with a note, and give what those give; alpha beside them is kept."""
    stored = cut_to(bits, np.dstack([np.asarray(Pillow.fromarray(photo()).convert("CMYK")), soft_mask()]))
    scaled = spread(stored, bits)
    reduced = scaled if bits <= 8 else np.floor(scaled / 257 + 0.5).astype(np.uint8)
    expected = read(saved(Pillow.fromarray(reduced[..., :4], "CMYK"), "TIFF", icc_profile=cmyk_profile()))
    data = tiff(stored, bits, photometric=5, extras=[2], planar=planar, tags={34675: cmyk_profile()})
    found = read(data)
    np.testing.assert_array_equal(found[..., :3], expected)
    np.testing.assert_array_equal(found[..., 3], reduced[..., 4])
    assert any(f"{bits}-bit CMYK" in note for note in decode(data, max_pixels=10**6).notes) == (bits > 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_packed_samples_come_out_upright(orientation: int) -> None:
    """The orientation counts for every kind of TIFF."""
    samples = cut_to(12, photo(13, 21))
    turned = read(tiff(samples, 12, tags={274: orientation}, order=">", big=True))
    flip = samples[:, ::-1] if orientation in (2, 4, 5, 7) else samples
    upright = np.rot90(flip, {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation])
    np.testing.assert_array_equal(turned, spread(upright, 12))


REFUSED = {
    "signed bytes": (
        tiff(photo(), 8, tags={339: [2, 2, 2]}),
        "signed samples (8-bit), whose black and white the file does not say; say",
    ),
    "signed 16 bits": (tiff(deep(gray_photo())[..., None], 16, tags={339: 2}), "signed samples"),
    "32-bit RGB": (written([(photo().astype(np.uint32), {})]), "32-bit samples"),
    "64-bit gray": (written([(gray_photo().astype(np.uint64), {"photometric": "minisblack"})]), "64-bit samples"),
    "half floats": (written([(photo().astype(np.float16), {})]), "floating-point samples (16-bit)"),
    "float RGB": (written([(photo().astype(np.float32), {})]), "white with --range LOW HIGH"),
    "double": (written([(gray_photo().astype(np.float64), {"photometric": "minisblack"})]), "floating-point"),
    "complex": (written([(gray_photo().astype(np.complex64), {"photometric": "minisblack"})]), "complex numbers"),
    "different depths": (tiff(photo(), 8, tags={258: [8, 8, 6]}), "8, 8, 6 bits"),
    "LogLuv": (tiff(photo(), 8, photometric=32845, compression=34676), "LogLuv"),
    "unknown colours": (tiff(photo(), 8, photometric=4711), "PhotometricInterpretation 4711"),
    "a mask": (tiff(gray_photo()[..., None] >> 7, 1, photometric=4), "transparency mask"),
    "other inks": (tiff(np.dstack([photo()] * 2), 8, photometric=5, tags={332: 2}), "not CMYK"),
    "five channels": (tiff(np.dstack([photo()] * 2)[..., :5], 8, photometric=1, extras=[0] * 4), "5 channels"),
    "JPEG XL": (tiff(photo(), 8, compression=50002), "compressed by JPEG XL"),
    "JPEG 2000": (tiff(photo(), 8, compression=34712), "compressed by JPEG 2000"),
    "LERC": (tiff(photo(), 8, compression=34887), "compressed by LERC"),
    "a new compression": (tiff(photo(), 8, compression=4242), "number 4242"),
    "12-bit JPEG": (tiff(cut_to(12, photo()), 12, compression=7), "12-bit JPEG"),
    "differences of 12 bits": (tiff(cut_to(12, photo()), 12, predictor=2, compression=8, encode=deflate), "12-bit"),
    "differences of floats": (tiff(photo(), 8, compression=8, encode=deflate, tags={317: 3}), "predictor 3"),
    "sparse tiles": (tiff(photo(), 8, chunk=(16, 16), tags={324: [8] * 11 + [0], 325: [768] * 11 + [0]}), "sparse"),
    "YCbCr in planes": (tiff(photo(), 8, photometric=6, planar=True, tags={530: [1, 1]}), "YCbCr"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_whole_and_not_read_is_called_what_it_is(name: str) -> None:
    """Never "damaged": the kind, and what to do."""
    data, words = REFUSED[name]
    for look in (probe, lambda data: decode(data, max_pixels=10**6)):
        with pytest.raises(ImageError) as caught:
            look(data)
        assert words in str(caught.value)
        assert "damaged" not in str(caught.value)


def test_lengths_of_strips_may_be_missing() -> None:
    """Old files: what lies between the strips, or what the size needs, is taken."""
    for number, how in (COMPRESSIONS["none"], COMPRESSIONS["LZW"], COMPRESSIONS["deflate"]):
        for missing in ({279: None}, {279: 0}, {279: [0] * 7}):
            data = tiff(photo(), 8, compression=number, encode=how, chunk=7, tags=missing)
            np.testing.assert_array_equal(read(data), photo())


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("chunk", [None, 16, (16, 16)])
def test_a_truncated_tiff_is_an_error(name: str, chunk: Any) -> None:
    """With its directory in front and any strip or tile cut, no pixels come out."""
    number, how = COMPRESSIONS[name]
    lengths = read_lengths(tiff(photo(32, 32), 8, compression=number, encode=how, chunk=chunk))
    for cut in {0, len(lengths) - 1}:
        for length in (lengths[cut] // 2, 1):
            parts: list[int] = []

            def shortened(data: bytes, row: int, cut: int = cut, length: int = length, parts: Any = parts) -> bytes:
                parts.append(0)
                return how(data, row)[: length if len(parts) == cut + 1 else None]

            with pytest.raises(ImageError, match=r"truncated|damaged"):
                read(tiff(photo(32, 32), 8, compression=number, encode=shortened, chunk=chunk))


def test_truncated_jpeg_strips_are_an_error() -> None:
    """Whichever strip it is."""
    strips = [as_jpeg(photo()[top : top + 16]) for top in (0, 16, 32)]
    for cut in range(3):
        parts = [strip[: -len(strip) // 3] if i == cut else strip for i, strip in enumerate(strips)]
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            read(tiff(photo(), 8, compression=7, photometric=6, chunk=16, encode=taken_from(parts)))


def read_lengths(data: bytes) -> list[int]:
    """Bytes of each strip or tile."""
    return list(tifffile.TiffFile(io.BytesIO(data)).pages[0].databytecounts)


def test_what_libtiff_says_does_not_appear(capfd: pytest.CaptureFixture[str]) -> None:
    """Its messages have no name of a file; ours has."""
    data = bytearray(tiff(photo(), 8, compression=5, encode=lzw))
    for at in range(60, 800, 3):
        data[at] ^= 0x55
    with pytest.raises(ImageError, match=r"cat\.tif is damaged"):
        decode(bytes(data), max_pixels=10**6, name="cat.tif")
    assert capfd.readouterr() == ("", "")


def test_hostile_sizes_are_refused_before_memory_is_taken() -> None:
    """Tiles larger than any picture, smaller than any, millions of strips, samples by the thousand."""
    for tags in (
        {322: 1 << 31, 323: 1 << 31, 324: 8, 325: 8},
        {322: 1, 323: 1, 324: [8] * 3072, 325: [1] * 3072},
        {277: 65535},
        {258: 0},
        {256: 0},
        {273: [1 << 40], 279: 8},
    ):
        with pytest.raises(ImageError):
            read(tiff(photo(), 8, tags=tags, big=True))


def test_what_we_write_we_read() -> None:
    """Every kind of our own TIFF."""
    for samples in (photo(), deep(photo()), gray_photo()[..., None], deep(gray_photo())[..., None]):
        for mask in (None, soft_mask() if samples.dtype == np.uint8 else deep(soft_mask())):
            image = decode(encode(Image(samples, mask), "TIFF"), max_pixels=10**6)
            np.testing.assert_array_equal(image.pixels[..., : samples.shape[2]], samples)
            assert (image.alpha is None) == (mask is None)
