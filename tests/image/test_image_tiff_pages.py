"""Which page of a TIFF is the picture: never a thumbnail or a mask; others are counted; a damaged list costs a note."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pictures import deep, gray_photo, photo
from tiff_files import directory, spread, tiff, written

from bbcu_cli.image import decode, probe

pytest.importorskip("tifffile", reason="tifffile is not installed")


def read(data: bytes) -> np.ndarray:
    """Samples of the decoded picture."""
    return decode(data, max_pixels=10**6).pixels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bits", [8, 12])
def test_a_thumbnail_in_front_is_not_the_picture(order: str, big: bool, bits: int) -> None:  # noqa: FBT001
    """NewSubfileType 1 (or the old SubfileType 2) in front: the picture is a later page, or one below the first."""
    samples = deep(photo(13, 21)) >> (16 - bits)
    for small in ({254: 1}, {255: 2}, {254: 5}):
        page = tiff(samples, bits, order=order, big=big)
        at = struct.unpack_from(order + ("Q" if big else "L"), page, 8 if big else 4)[0]
        thumb = {256: 4, 257: 2, 258: 8, 259: 1, 262: 1, 277: 1, 273: 8, 279: 8, **small}
        for entries, following in ((thumb, at), (thumb | {330: at}, 0)):
            first = directory(entries, len(page), following, order=order, big=big)
            pointer = struct.pack(order + ("Q" if big else "L"), len(page))
            data = page[: 8 if big else 4] + pointer + page[16 if big else 8 :] + first
            np.testing.assert_array_equal(read(data), spread(samples, bits))
            assert probe(data).frames == 1


def test_pages_that_are_pictures_are_counted_and_others_are_not() -> None:
    """Thumbnails before, between and behind, masks, and pages below pages of a whole picture."""
    small, whole = (photo(12, 16), {"subfiletype": 1}), (photo(), {})
    for pages, count in (
        ([small, whole, small], 1),
        ([whole, small, (gray_photo() > 99, {"subfiletype": 4, "photometric": "minisblack"})], 1),
        ([small, whole, whole], 2),
        ([(photo(), {"subifds": 2}), small, small], 1),
        ([(photo(12, 16), {"subifds": 2, "subfiletype": 1}), whole, whole], 2),
        ([small], 1),
    ):
        data = written(pages)
        assert probe(data).frames == count
        if count == 1:
            np.testing.assert_array_equal(read(data), photo(12, 16) if pages == [small] else photo())


@pytest.mark.parametrize("following", [10**6, 9, 8, 2**32 - 1])
def test_a_bad_pointer_behind_a_good_page_costs_a_note(following: int) -> None:
    """To behind the end, into the pixels, to an odd place: the page in front of it is whole."""
    data = tiff(photo(), 8, following=following)
    np.testing.assert_array_equal(read(data), photo())
    assert any("page 1" in note for note in decode(data, max_pixels=10**6).notes)


def test_a_list_of_pages_that_leads_back_ends_there() -> None:
    """As a loop it has one page."""
    data = tiff(photo(), 8)
    at = struct.unpack_from("<L", data, 4)[0]
    np.testing.assert_array_equal(read(tiff(photo(), 8, following=at)), photo())
