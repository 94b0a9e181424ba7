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
from bbcu_cli.batch.run import run
from bbcu_cli.batch.settings import Row, Settings, Truths, options_key
from bbcu_cli.engines.base import EngineInfo, SessionContext
from bbcu_cli.errors import ImageError, UsageError
from bbcu_cli.image import EncodeOptions
from bbcu_cli.restoration.model import Model, Options
from bbcu_cli.score.trial import convention_of


class _Plain(SessionContext):
    """Enlarges by repeating pixels, and counts its runs."""

    info = EngineInfo("stub", "cpu", "nearest")

    def __init__(self) -> None:
        self.runs = 0

    def run(self, x: NDArray[np.float32], _progress: object = None) -> NDArray[np.float32]:
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
    assert statuses(go("k")) == "ssfss"
    assert statuses(go("other")) == "ddfdd"
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


def test_fail_fast_stops_at_a_file_of_somebody_else(folder: Path, model: Model) -> None:
    """In its place: what comes before it is done, what comes after it is not."""
    out = folder.parent / "in_x2"
    out.mkdir()
    (out / "b.png").write_bytes(b"mine")
    rows = run(jobs_of(folder).jobs, model, settings(existing="skip", fail_fast=True), Manifest("k"))
    assert Path(next(rows).source).name == "a.png"
    with pytest.raises(UsageError, match="not known as an output of bbcu"):
        next(rows)


def test_a_source_that_vanished_fails_alone(folder: Path, model: Model) -> None:
    """Its output is still there; the others are seen to be up to date."""
    listing = jobs_of(folder)
    list(run(listing.jobs, model, settings(existing="skip"), Manifest("k")))
    (folder / "b.png").unlink()
    rows = list(run(listing.jobs, model, settings(existing="skip"), Manifest("k")))
    assert statuses(rows) == "sffss"
    assert "No such file" in rows[1].error
    assert (folder.parent / "in_x2" / "b.png").exists()


class _Failing(_Plain):
    """An engine that raises what an engine's library raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def run(self, *_: object) -> NDArray[np.float32]:
        raise self.error


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("error", [RuntimeError("lost"), ValueError("lost"), OSError(5, "lost"), MemoryError()])
def test_a_failing_engine_is_not_called_a_failure_of_the_encoder(
    error: Exception, form: str, folder: Path, model: Model
) -> None:
    """Rows are made while the encoder asks for them; what goes wrong there is said of the engine."""
    [row] = run(jobs_of(folder).jobs[:1], replace(model, session=_Failing(error)), settings(format=form))
    assert row.status == "failed"
    assert "cannot be written" not in row.error
    assert ("Engine stub on cpu failed" in row.error and "lost" in row.error) or "Out of memory" in row.error


def test_where_few_threads_can_be_started_all_is_done(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of one thread beside the main one: images go one after the other, and are encoded as well."""
    real, others = threading.Thread.start, threading.active_count()  # libraries keep some of their own

    def start(thread: threading.Thread) -> None:
        if threading.active_count() > others:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert statuses(list(run(jobs_of(folder).jobs, model, settings()))) == "ddfdd"


def test_where_no_thread_can_be_started_each_file_says_so(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a traceback, and nothing about PNG."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    rows = list(run(jobs_of(folder).jobs, model, settings()))
    assert statuses(rows) == "fffff"
    assert all(row.error.startswith("No thread can be started here (can't start new thread)") for row in rows)


def test_a_source_that_changes_while_it_is_restored_fails(folder: Path, model: Model) -> None:
    """Nothing is put in place of a picture that nobody has read; the next run makes it."""
    source, output = folder / "a.png", folder.parent / "in_x2" / "a.png"

    class Replacing(_Plain):
        def run(self, x: NDArray[np.float32], _progress: object = None) -> NDArray[np.float32]:
            if self.runs == 0:
                Pillow.new("RGB", (7, 7)).save(source)
            return super().run(x)

    rows = list(
        run(jobs_of(folder).jobs[:1], replace(model, session=Replacing()), settings(existing="skip"), Manifest("k"))
    )
    assert "changed while it was restored" in rows[0].error
    assert not output.exists()
    assert statuses(list(run(jobs_of(folder).jobs[:1], model, settings(existing="skip"), Manifest("k")))) == "d"
    with Pillow.open(output) as picture:
        assert picture.size == (14, 14)


def test_an_output_that_appears_during_the_run_is_not_replaced(folder: Path, model: Model) -> None:
    """Without --overwrite a file that another program wrote meanwhile is safe."""
    late = folder.parent / "in_x2" / "e.png"

    class Meddling(_Plain):
        def run(self, x: NDArray[np.float32], _progress: object = None) -> NDArray[np.float32]:
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


def test_results_that_are_skipped_are_scored_and_get_the_side_by_side_that_they_lack(
    folder: Path, model: Model
) -> None:
    """The mean of a second run is that of the first, and no row is left without its picture."""
    (folder / "c.png").unlink()
    listing = jobs_of(folder)
    out = folder.parent / "in_x2"
    list(run(listing.jobs, model, settings(), Manifest("k")))
    truth = folder.parent / "truth"
    out.rename(truth)
    paths = {job: truth / job.output.name for job in listing.jobs if job.output}
    wish = {"existing": "skip", "truths": Truths(paths, convention_of("sr", 2))}
    first = list(run(listing.jobs, model, settings(**wish), Manifest("k")))
    again = list(run(listing.jobs, model, settings(**wish, compare=True), Manifest("k")))
    assert (statuses(first), statuses(again)) == ("dddd", "ssss")
    assert [row.scores for row in again] == [row.scores for row in first]
    pictures = sorted(out.glob("*_compare.png"))
    assert len(pictures) == 4
    before = [path.stat().st_mtime_ns for path in pictures]
    assert statuses(list(run(listing.jobs, model, settings(**wish, compare=True), Manifest("k")))) == "ssss"
    assert [path.stat().st_mtime_ns for path in pictures] == before


def test_lossy_results_that_are_skipped_say_how_they_are_scored(folder: Path, model: Model) -> None:
    """A new result is scored before it is compressed, one that is kept can only be scored as it was stored."""
    [job] = plan_jobs([str(folder / "a.png")], None, tag="_x2", suffix=None, extension=".jpg", recursive=False).jobs
    list(run([job], model, settings(format="JPEG"), Manifest("k")))
    assert job.output is not None
    truths = Truths({job: job.output}, convention_of("sr", 2))
    [row] = run([job], model, settings(format="JPEG", existing="skip", truths=truths), Manifest("k"))
    assert row.notes == ("scored as the JPEG file holds it",)
    assert row.scores is not None
    assert row.scores.psnr_y == float("inf")


def test_skip_existing_never_replaces_a_side_by_side_of_somebody_else(folder: Path, model: Model) -> None:
    """A file of that name which no manifest knows is left alone and named."""
    listing = jobs_of(folder)
    list(run(listing.jobs, model, settings(), Manifest("k")))
    foreign = folder.parent / "in_x2" / "a_compare.png"
    foreign.write_bytes(b"mine")
    rows = list(run(listing.jobs, model, settings(existing="skip", compare=True), Manifest("k")))
    assert statuses(rows) == "fsfss"
    assert "a_compare.png" in rows[0].error
    assert foreign.read_bytes() == b"mine"


def test_the_key_of_the_manifest_changes_with_whatever_shapes_an_output() -> None:
    """Pixels, encoding and format; not the tile, whose result is the same."""
    base = options_key(settings())
    assert base == options_key(settings(options=Options(tile=7)))
    others = [
        options_key(settings(options=Options(self_ensemble=True))),
        options_key(settings(options=Options(chroma="keep"))),
        options_key(settings(options=Options(strength=0.5))),
        options_key(settings(encoding=EncodeOptions(quality=3))),
        options_key(settings(format="WebP")),
    ]
    assert len({base, *others}) == 6
