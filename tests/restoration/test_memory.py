"""The account of memory: what is planned is not passed by the process, whatever is asked for."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import SMALL_SPECS
from stand_in import stub

from bbcu_cli.batch.jobs import Job
from bbcu_cli.batch.run import run
from bbcu_cli.batch.settings import Settings
from bbcu_cli.bench.memory import Case, measure
from bbcu_cli.engines.cpu import kernel_sets
from bbcu_cli.image import EncodeOptions, Image, ImageInfo, encode, probe
from bbcu_cli.restoration.memory import Work, footprint, row_bytes
from bbcu_cli.restoration.model import Options
from bbcu_cli.restoration.serving import Served

PHOTO = ImageInfo("PNG", (1500, 2000), channels=3, depth=8, alpha=False, frames=1)


@pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell the peak of a process")
@pytest.mark.skipif(sys.platform == "darwin", reason="figures of Linux")
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(form="JPEG", depth=16, alpha=True),
        Case(extras=("--compare", "--gt"), depth=16, alpha=True),
        Case(("sr", "--scale", "2"), ("--gt",), form="WebP", megapixels=0.4),
        Case(("sr", "--scale", "6"), depth=16, alpha=True, megapixels=0.1),
    ],
    ids=str,
)
def test_the_peak_of_memory_is_within_the_plan(case: Case, tmp_path: Path) -> None:
    """With the smallest --memory that is accepted; of a plain run, the plan is at the most 1.4 times the peak."""
    measured = measure(replace(case, megapixels=min(case.megapixels, 1.5)), tmp_path)
    assert measured.peak <= measured.planned
    if not case.extras:
        assert measured.planned <= 1.4 * measured.peak


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_everything_that_is_asked_for_is_counted(depth: int, *, alpha: bool) -> None:
    """Formats that want the whole picture, scores and side-by-sides take more than a stream of rows."""
    info, model = replace(PHOTO, depth=depth, alpha=alpha), stub("m-x2")
    options = Options(memory=1 << 40, tile=200)

    def peak(work: Work) -> int:
        return footprint(info, model, options, work).peak

    truth = replace(info, size=(3000, 4000))
    result = truth.nbytes
    read = footprint(info, None, options, Work(form=None)).peak  # decoded, and handed over as it is
    held = info.nbytes + result
    assert peak(Work(form=None)) >= held
    assert peak(Work(compare=True)) >= held + 4 * truth.pixels
    assert peak(Work(truth=truth)) >= held + result + 16 * truth.pixels
    assert peak(Work(truth=truth, compare=True)) >= peak(Work(compare=True)) + result
    assert peak(Work("JPEG")) >= info.nbytes + 4 * truth.pixels
    assert peak(Work("AVIF")) > peak(Work("WebP")) > peak(Work("JPEG")) > read


def test_self_ensemble_and_decoding_are_counted() -> None:
    """Flips and rotations hold a second tile and a sum; a decoder its own copies."""
    small = Options(memory=1 << 40, tile=300)
    once, eight = (footprint(PHOTO, stub("m-x2"), replace(small, self_ensemble=way), Work()) for way in (False, True))
    assert eight.image > once.image
    copies = replace(PHOTO, working=16 * PHOTO.pixels)
    assert footprint(copies, stub("m-x2"), small, Work()).image >= 19 * PHOTO.pixels


def test_rows_of_an_engine_grow_with_its_threads() -> None:
    """Sixteen threads hold sixteen times the rows of one, and what each hands to the next."""
    spec = SMALL_SPECS["m-x2"]
    assert row_bytes(spec, 16) > 16 * row_bytes(spec, 1)
    one = stub("m-x2")
    info = replace(one.session.info, bands=16)
    one.session.info = info
    assert (
        footprint(PHOTO, one, Options(), Work()).engine > 15 * footprint(PHOTO, stub("m-x2"), Options(), Work()).engine
    )


def test_a_picture_that_no_network_serves_needs_no_engine() -> None:
    """It is decoded and encoded."""
    found = footprint(PHOTO, None, Options(), Work())
    assert found.engine == 0
    assert found.peak < footprint(PHOTO, stub("m-x2"), Options(), Work()).peak


@pytest.mark.parametrize(("form", "depth", "copies"), [("PNG", 8, 4), ("PNG", 16, 7), ("TIFF", 8, 0), ("WebP", 8, 13)])
def test_a_header_tells_what_decoding_takes(form: str, depth: int, copies: int) -> None:
    """Bytes of a pixel beside the picture."""
    pixels = np.zeros((300, 400, 3), np.dtype(f"u{depth // 8}"))
    data = encode(Image(pixels), form, EncodeOptions(lossless=True))
    files = len(data) if form == "WebP" else 0
    assert probe(data).working == copies * 300 * 400 + files


def test_an_image_is_admitted_when_it_fits_beside_the_process_and_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory for one image at a time, never two are decoded before the first is done; with more, they are."""
    import bbcu_cli.batch.run as module

    rng = np.random.default_rng(1)
    jobs = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(Image(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8)), "PNG"))
        jobs.append(Job(path, tmp_path / f"{number}-out.png"))
    model = stub("m-x2")
    real, most, now = module.restore_one, [0], [0]

    def counted(*arguments: object) -> object:
        now[0] += 1
        most[0] = max(most[0], now[0])
        try:
            return real(*arguments)
        finally:
            now[0] -= 1

    monkeypatch.setattr(module, "restore_one", counted)
    settings = Settings(Options(), EncodeOptions(), "PNG", 10**9, existing="overwrite", threads=2)
    need = settings.footprint(jobs[0], probe(tmp_path / "0.png"), Served(model, ""))

    def at_once(memory: int) -> int:
        most[0] = 0
        options = Options(memory=memory, tile=400)
        rows = list(run(jobs, model, replace(settings, options=options)))
        assert [row.status for row in rows] == ["done"] * 4
        return most[0]

    assert at_once(need.peak + need.image - 1) == 1
    assert at_once(need.peak + 4 * need.image) > 1
