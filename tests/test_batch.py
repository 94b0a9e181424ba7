"""Many files through one model: one bad file stops nothing, and what is on the disk is whole."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from small import SMALL_SPECS

from bbcu_cli.batch.jobs import JobList, plan_jobs
from bbcu_cli.batch.manifest import Manifest
from bbcu_cli.batch.run import Row, Settings, Truths, options_key, run
from bbcu_cli.engines.base import EngineInfo, SessionContext
from bbcu_cli.errors import ImageError
from bbcu_cli.image import EncodeOptions
from bbcu_cli.restoration.model import Model, Options
from bbcu_cli.score.trial import convention_of


class _Plain(SessionContext):
    """Enlarges by repeating pixels, and counts its runs."""

    info = EngineInfo("stub", "cpu", "nearest")

    def __init__(self) -> None:
        self.runs = 0

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        self.runs += 1
        return x.repeat(2, axis=2).repeat(2, axis=3)


@pytest.fixture
def model() -> Model:
    """x2, by repetition."""
    return Model("plain", SMALL_SPECS["m-x2"], {}, _Plain())


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Four images and one that is none."""
    root = tmp_path / "in"
    root.mkdir()
    for name in ("a.png", "b.png", "d.png", "e.png"):
        Pillow.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(root / name)
    (root / "c.png").write_text("no image")
    return root


def jobs_of(folder: Path) -> JobList:
    """The folder into folder_x2."""
    return plan_jobs([str(folder)], None, tag="_x2", suffix=None, extension=None, recursive=False)


def settings(**changes: object) -> Settings:
    """PNG, plain."""
    return Settings(
        **{"options": Options(), "encoding": EncodeOptions(), "format": "PNG", "max_pixels": 10_000, **changes}
    )  # type: ignore[arg-type]


def statuses(rows: list[Row]) -> str:
    """First letters, in order."""
    return "".join(row.status[0] for row in rows)


def test_a_bad_file_is_reported_in_its_place_and_the_others_are_done(folder: Path, model: Model) -> None:
    """Rows come in the order of the files, each saying what it was about."""
    rows = list(run(jobs_of(folder).jobs, model, settings()))
    assert statuses(rows) == "ddfdd"
    assert [Path(row.source).stem for row in rows] == list("abcde")
    assert "text file" in rows[2].error
    for row in rows[:2]:
        source, output = (np.asarray(Pillow.open(path)) for path in (row.source, row.output))
        assert np.array_equal(output, source.repeat(2, axis=0).repeat(2, axis=1))
    assert not (folder.parent / "in_x2" / "c.png").exists()


def test_fail_fast_raises_the_first_failure(folder: Path, model: Model) -> None:
    """What was finished before it is on the disk."""
    with pytest.raises(ImageError, match=r"c\.png"):
        list(run(jobs_of(folder).jobs, model, settings(fail_fast=True)))
    assert (folder.parent / "in_x2" / "a.png").exists()


def test_no_thread_outlives_the_run(folder: Path, model: Model) -> None:
    """Also when the caller stops listening half way."""
    before = threading.active_count()
    rows = run(jobs_of(folder).jobs, model, settings())
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_skip_existing_makes_only_what_is_missing_or_outdated(folder: Path, model: Model) -> None:
    """The second run does nothing, a third with other options everything, a touched source only itself."""
    listing = jobs_of(folder)

    def go(key: str) -> list[Row]:
        return list(run(listing.jobs, model, settings(existing="skip"), Manifest(key)))

    assert statuses(go("k")) == "ddfdd"
    assert sorted(statuses(go("k"))) == sorted("ssssf")
    assert sorted(statuses(go("other"))) == sorted("ddddf")
    Pillow.new("RGB", (5, 5)).save(folder / "a.png")
    rows = go("other")
    assert [Path(row.source).name for row in rows if row.status == "done"] == ["a.png"]


def test_skip_existing_never_replaces_a_file_of_somebody_else(folder: Path, model: Model) -> None:
    """A file that no manifest knows is left alone and named."""
    listing = jobs_of(folder)
    foreign = folder.parent / "in_x2" / "a.png"
    foreign.parent.mkdir()
    foreign.write_bytes(b"mine")
    rows = {Path(row.source).name: row for row in run(listing.jobs, model, settings(existing="skip"), Manifest("k"))}
    assert rows["a.png"].status == "failed"
    assert "--overwrite" in rows["a.png"].error
    assert foreign.read_bytes() == b"mine"


def test_an_output_that_appears_during_the_run_is_not_replaced(folder: Path, model: Model) -> None:
    """Without --overwrite a file that another program wrote meanwhile is safe."""
    late = folder.parent / "in_x2" / "e.png"

    class Meddling(_Plain):
        def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
            late.parent.mkdir(exist_ok=True)
            late.write_bytes(b"mine")
            return super().run(x)

    rows = run(jobs_of(folder).jobs, replace(model, session=Meddling()), settings())
    assert "exists" in next(row for row in rows if row.source.endswith("e.png")).error
    assert late.read_bytes() == b"mine"


def test_litter_of_a_killed_run_is_gone_after_the_next(folder: Path, model: Model) -> None:
    """Temporary files of ours, and only those."""
    out = folder.parent / "in_x2"
    out.mkdir()
    (out / ".bbcu-0123456789abcdef.part").touch()
    (out / "other.part").touch()
    list(run(jobs_of(folder).jobs, model, settings()))
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "b.png", "d.png", "e.png", "other.part"]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_litter_behind_a_linked_output_is_removed(folder: Path, model: Model) -> None:
    """A killed run's part lies where the link leads."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".bbcu-0123456789abcdef.part").touch()
    out = folder.parent / "in_x2"
    out.mkdir()
    (out / "a.png").symlink_to(elsewhere / "a.png")
    list(run(jobs_of(folder).jobs, model, settings(existing="overwrite")))
    assert [path.name for path in elsewhere.iterdir()] == ["a.png"]


def test_results_are_scored_and_compared(folder: Path, model: Model) -> None:
    """A ground truth equal to the result scores infinity; the side-by-side is written beside it."""
    (folder / "c.png").unlink()
    listing = jobs_of(folder)
    list(run(listing.jobs, model, settings()))
    truths = Truths({job: job.output for job in listing.jobs if job.output}, convention_of("sr", 2))
    truths.paths[listing.jobs[0]].rename(folder / "kept.png")
    paths = {listing.jobs[0]: folder / "kept.png"}
    [row] = run(listing.jobs[:1], model, settings(truths=Truths(paths, truths.convention), compare=True))
    assert row.scores is not None
    assert row.scores.psnr_y == float("inf")
    assert (folder.parent / "in_x2" / "a_compare.png").exists()


def test_the_key_of_the_manifest_changes_with_whatever_shapes_an_output() -> None:
    """Weights, pixels, encoding and format; not the tile, whose result is the same."""
    base = options_key("sha", settings())
    assert base == options_key("sha", settings(options=Options(tile=7)))
    others = [
        options_key("other", settings()),
        options_key("sha", settings(options=Options(self_ensemble=True))),
        options_key("sha", settings(options=Options(chroma="keep"))),
        options_key("sha", settings(encoding=EncodeOptions(quality=3))),
        options_key("sha", settings(format="WebP")),
    ]
    assert len({base, *others}) == 6
