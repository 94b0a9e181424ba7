"""Which file becomes which, and what is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bbcu_cli.batch.jobs import SAME, JobList, plan_jobs, refuse_existing
from bbcu_cli.batch.manifest import NAME, Manifest
from bbcu_cli.errors import UsageError


def plan(
    *inputs: object,
    output: object = None,
    suffix: str | None = None,
    extension: str | None = None,
    recursive: bool = False,
    exclude: tuple[str, ...] = (),
) -> JobList:
    """`plan_jobs` with the tag of x4."""
    target = None if output is None else str(output)
    return plan_jobs(
        [str(i) for i in inputs],
        target,
        tag="_x4",
        suffix=suffix,
        extension=extension,
        recursive=recursive,
        exclude=exclude,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder as people have them: images, a text, a hidden file, a sub-folder, odd names."""
    root = tmp_path / "photos"
    for name in ("a.jpg", "b.PNG", "notes.txt", ".hidden.png", "sub/a.jpg", "sub/größe 1.webp", "sub/.git/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(listing: JobList, base: Path) -> dict[str, str]:
    """Source -> output, both relative to `base`."""
    return {
        os.path.relpath(job.source, base): os.path.relpath(job.output, base)
        for job in listing.jobs
        if job.source and job.output
    }


def test_a_file_without_output_is_written_beside_itself(photos: Path) -> None:
    """photo.jpg becomes photo_x4.png."""
    assert pairs(plan(photos / "a.jpg"), photos) == {"a.jpg": "a_x4.png"}


def test_suffix_and_format_shape_the_name(photos: Path) -> None:
    """--suffix replaces the tag, --format the extension."""
    assert pairs(plan(photos / "a.jpg", suffix="-big", extension=".webp"), photos) == {"a.jpg": "a-big.webp"}


def test_a_folder_without_output_gets_a_folder_beside_itself(photos: Path, tmp_path: Path) -> None:
    """Only its images, only its own level; the rest is counted."""
    listing = plan(photos)
    assert pairs(listing, tmp_path) == {"photos/a.jpg": "photos_x4/a.png", "photos/b.PNG": "photos_x4/b.png"}
    assert [path.name for path in listing.skipped] == ["notes.txt"]
    assert listing.batch


def test_recursive_mirrors_the_tree_without_hidden_folders(photos: Path, tmp_path: Path) -> None:
    """Sub-folders stay sub-folders; Unicode and spaces stay."""
    listing = plan(photos, output=tmp_path / "out", recursive=True)
    assert pairs(listing, tmp_path)["photos/sub/größe 1.webp"] == "out/sub/größe 1.png"
    assert len(listing.jobs) == 4


def test_the_current_folder_gets_a_sibling(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bbcu sr .` writes to ../photos_x4."""
    monkeypatch.chdir(photos)
    assert plan(".").jobs[0].output == photos.parent / "photos_x4" / "a.png"


def test_an_output_folder_inside_the_input_is_not_searched(photos: Path) -> None:
    """A second run does not feed on the results of the first."""
    (photos / "out").mkdir()
    (photos / "out" / "a.png").touch()
    sources = [job.source for job in plan(photos, output=photos / "out", recursive=True).jobs]
    assert photos / "out" / "a.png" not in sources
    assert len(sources) == 4


def test_patterns_that_the_shell_left_alone_are_expanded(photos: Path) -> None:
    """'photos/*.jpg' in quotes works, and one that matches nothing is an error."""
    assert len(plan(photos / "*.jpg").jobs) == 1
    with pytest.raises(UsageError, match="No file matches"):
        plan(photos / "*.heic")


def test_a_name_with_brackets_is_a_file_first(tmp_path: Path) -> None:
    """photo[1].jpg is taken literally when it exists."""
    (tmp_path / "photo[1].jpg").touch()
    assert plan(tmp_path / "photo[1].jpg").jobs[0].source == tmp_path / "photo[1].jpg"


def test_stdin_goes_to_stdout_or_to_a_file(tmp_path: Path) -> None:
    """`-` alone is a filter; with -o it is written to that file."""
    assert plan("-").jobs[0].output is None
    assert plan("-", output=tmp_path / "a.png").jobs[0].output == tmp_path / "a.png"


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["missing.png"], None, "does not exist"),
        (["photos/a.jpg", "photos/b.PNG"], "one.png", "several inputs"),
        (["photos"], "one.png", "several inputs"),
        (["photos"], "photos", "same folder"),
        (["photos/b.PNG"], "photos/b.PNG", "would overwrite the input"),
        (["photos/a.jpg", "photos/sub/a.jpg"], "out", "both be written"),
        (["empty"], None, "No image in empty"),
        (["-", "photos/a.jpg"], None, "cannot be combined"),
        (["-"], "out", "must be a file"),
        (["-"], "out.png/", "must be a file"),
        (["dangling.png"], None, "symbolic link"),
        (["photos/a.jpg"], "out.xyz", r"not written under '\.xyz', but under \.png, .*'out\.xyz/'"),
        (["photos/a.jpg"], "new/out.jpgg", r"not written under '\.jpgg'"),
        (["photos"], "file", "'file' is a file; choose another"),
        (["photos/a.jpg"], "file", "'file' is a file; choose another"),
        (["photos", "photos/sub"], "file/deeper", "'file' is a file; choose another"),
        (["photos/a.jpg", "out.jpg"], None, "'out.jpg' does not exist. If it is the output, give it with -o"),
        (["photos", "photos_x4"], None, "If it is the output"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    inputs: list[str], output: str | None, message: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that names the file."""
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    Path("file").touch()
    Path("dangling.png").symlink_to("nowhere.png")
    with pytest.raises(UsageError, match=message):
        plan(*inputs, output=output)


def test_a_link_to_the_input_is_still_the_input(photos: Path) -> None:
    """Overwriting through a symbolic link is seen."""
    link = photos / "link.png"
    link.symlink_to(photos / "b.PNG")
    with pytest.raises(UsageError, match="would overwrite"):
        plan(photos / "b.PNG", output=link)


def test_link_cycles_end(photos: Path) -> None:
    """A folder that links to its own parent is walked once."""
    (photos / "sub" / "up").symlink_to(photos)
    assert len(plan(photos, recursive=True).jobs) == 4


def test_existing_outputs_are_refused_by_name(photos: Path) -> None:
    """The first is named, the others are counted."""
    outputs = [photos / "a_x4.png", photos / "b_x4.png"]
    refuse_existing(outputs)
    for output in outputs:
        output.touch()
    with pytest.raises(UsageError, match=r"a_x4\.png exists \(and 1 more\)"):
        refuse_existing(outputs)


def test_a_link_to_itself_leads_nowhere(photos: Path) -> None:
    """It fails as any broken link does."""
    (photos / "loop.png").symlink_to("loop.png")
    with pytest.raises(UsageError, match="leads nowhere"):
        plan(photos / "loo*.png")


@pytest.mark.parametrize("output", ["out.xyz/", "made.xyz", "out.png/"])
def test_a_folder_may_have_a_dot_in_its_name(output: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it exists, or where a slash says that a folder is meant."""
    monkeypatch.chdir(photos)
    Path("made.xyz").mkdir()
    assert plan("a.jpg", output=output).jobs[0].output == Path(output, "a.png")


def test_inputs_with_one_name_keep_their_endings(photos: Path) -> None:
    """In a folder and side by side; what does not clash keeps its short name, and a new clash is seen, too."""
    for name in ("a.png", "a.jpg.webp", "c.tif"):
        (photos / name).touch()
    named = {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "a.jpg.webp": "a.jpg.webp.png"}
    listing = plan(photos, output=photos / "out")
    assert pairs(listing, photos) == {
        **{source: f"out/{output}" for source, output in named.items()},
        "b.PNG": "out/b.png",
        "c.tif": "out/c.png",
    }
    assert {job.source.name for job in listing.jobs if job.notes and job.source} == set(named)
    assert pairs(plan(photos / "a.jpg", photos / "a.png"), photos) == {
        "a.jpg": "a.jpg_x4.png",
        "a.png": "a.png_x4.png",
    }
    assert pairs(plan(photos / "a.jpg", photos / "a.png", suffix="-big", extension=".tif"), photos) == {
        "a.jpg": "a.jpg-big.tif",
        "a.png": "a.png-big.tif",
    }


def test_a_clash_that_remains_fails_that_pair_alone(photos: Path) -> None:
    """Two folders with a picture of the same name, into one."""
    listing = plan(photos, photos / "sub", output=photos / "out")
    assert [job.source.name for job in listing.possible if job.source] == ["b.PNG", "größe 1.webp"]
    failed = [job for job in listing.jobs if job.error]
    assert [job.source for job in failed] == [photos / "a.jpg", photos / "sub" / "a.jpg"]
    assert all("would both be written to" in job.error for job in failed)


def test_an_output_that_is_another_input_fails_alone(photos: Path) -> None:
    """The rest is done."""
    (photos / "a_x4.png").touch()
    listing = plan(photos / "a.jpg", photos / "a_x4.png", photos / "b.PNG")
    assert ["would overwrite the input" in job.error for job in listing.jobs] == [True, False, False]


def test_an_input_that_is_given_twice_is_done_once(photos: Path) -> None:
    """As by a pattern and by its name."""
    assert len(plan(photos / "*.jpg", photos / "a.jpg").jobs) == 1
    assert len(plan(photos, photos / "a.jpg", output=photos / "out").jobs) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_fails_alone(photos: Path) -> None:
    """A pipe and a link that leads nowhere, which in a tree may have been a folder; neither is opened."""
    os.mkfifo(photos / "pipe.png")
    os.mkfifo(photos / "pipe")
    (photos / "lost.png").symlink_to("nowhere")
    (photos / "album").symlink_to("nowhere")
    assert [job.error for job in plan(photos).jobs if job.error] == [
        f"{photos}/lost.png is a symbolic link that leads nowhere.",
        f"{photos}/pipe.png is not a regular file.",
    ]
    assert sum("leads nowhere" in job.error for job in plan(photos, recursive=True).jobs) == 2
    typed = plan(photos / "a.jpg", photos / "lost.png", photos / "pipe.png")
    assert [bool(job.error) for job in typed.jobs] == [False, True, True]


def test_an_unreadable_folder_below_fails_alone(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the tree is done; the folder that was named must be readable."""
    (photos / "last.png").touch()
    for name in ("locked", "sub/locked"):
        (photos / name).mkdir()
    real = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listing = plan(photos, recursive=True)
    errors = [job.error for job in listing.jobs if job.error]
    assert errors == [
        f"Folder '{photos}/{name}' cannot be read (Permission denied)." for name in ("locked", "sub/locked")
    ]
    assert len(listing.possible) == 5
    with pytest.raises(UsageError, match="cannot be read"):
        plan(photos / "locked")


def recorded(output: Path, source: Path, *, comparison: bool = False) -> None:
    """A result that bbcu knows as its own."""
    output.write_bytes(b"a result")
    Manifest("k").done(output, None, source=source, comparison=comparison)


def test_results_of_the_inputs_are_no_inputs(photos: Path, tmp_path: Path) -> None:
    """Known by the record, even where the source has changed since; what was replaced is a picture like any other."""
    recorded(photos / "a_x4.png", photos / "a.jpg")
    recorded(photos / "b_x4.png", photos / "b.PNG")
    recorded(photos / "c_compare.png", tmp_path / "elsewhere.png", comparison=True)
    (photos / "a.jpg").write_bytes(b"another picture")
    for listing in (plan(photos), plan(photos / "*.[jpP]*")):
        assert [job.source.name for job in listing.jobs if job.source] == ["a.jpg", "b.PNG"]
        assert [path.name for path in listing.results] == ["a_x4.png", "b_x4.png", "c_compare.png"]
        assert "a_x4.png and 2 more" in listing.left_out
    (photos / "b_x4.png").write_bytes(b"a picture of my own")
    assert len(plan(photos).jobs) == 3


def test_results_are_inputs_without_their_sources(photos: Path, tmp_path: Path) -> None:
    """A folder of results, and results that are named."""
    out = tmp_path / "out"
    out.mkdir()
    recorded(out / "a.png", photos / "a.jpg")
    recorded(out / "b.png", photos / "b.PNG")
    recorded(photos / "a_x4.png", photos / "a.jpg")
    assert len(plan(out).jobs) == 2
    assert len(plan(photos / "a_x4.png").jobs) == 1
    assert len(plan(photos / "a_x4.png", photos / "b.PNG").jobs) == 2


def test_a_record_that_cannot_be_read_leaves_nothing_out(photos: Path) -> None:
    """All are inputs then."""
    (photos / NAME).mkdir()
    assert len(plan(photos).jobs) == 2


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ((), {"a.jpg", "b.PNG", "sub/a.jpg", "sub/größe 1.webp", "sub/deep/d.tif"}),
        (("*.webp",), {"a.jpg", "b.PNG", "sub/a.jpg", "sub/deep/d.tif"}),
        (("sub",), {"a.jpg", "b.PNG"}),
        (("sub/a.*", "deep"), {"a.jpg", "b.PNG", "sub/größe 1.webp"}),
        (("a.jpg", "?.PNG"), {"sub/größe 1.webp", "sub/deep/d.tif"}),
    ],
)
def test_patterns_leave_files_and_folders_out(photos: Path, exclude: tuple[str, ...], left: set[str]) -> None:
    """By name anywhere, or by the path below the folder; thumbnails of file servers and hidden ones always."""
    for name in ("sub/deep/d.tif", "@eaDir/a.jpg", "sub/@eaDir/a.jpg", "#recycle/a.jpg", ".thumbnails/a.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).touch()
    assert set(pairs(plan(photos, recursive=True, exclude=exclude), photos)) == left


def test_a_file_that_is_named_is_not_left_out(photos: Path) -> None:
    """Patterns are for what a search finds."""
    assert len(plan(photos / "a.jpg", exclude=("a.jpg",)).jobs) == 1


def test_outputs_can_keep_the_endings_of_their_sources(photos: Path, tmp_path: Path) -> None:
    """As they are spelled; PNG for a format that is only read."""
    (photos / "c.mpo").touch()
    (photos / "d.gif").touch()
    listing = plan(photos, output=tmp_path / "out", extension=SAME, recursive=True)
    made = {
        source: os.path.relpath(photos / output, tmp_path / "out") for source, output in pairs(listing, photos).items()
    }
    assert made == {
        "a.jpg": "a.jpg",
        "b.PNG": "b.PNG",
        "c.mpo": "c.png",
        "d.gif": "d.png",
        "sub/a.jpg": "sub/a.jpg",
        "sub/größe 1.webp": "sub/größe 1.webp",
    }


def test_names_that_windows_takes_for_something_else_fail_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that came from another system: the others are restored, and it is known before any work."""
    for name in ("aux.jpg", "10:30.jpg", "fine.jpg"):
        (tmp_path / name).touch()
    monkeypatch.setattr("bbcu_cli.files._WINDOWS", True)
    errors = {job.name: job.error for job in plan(tmp_path, output=tmp_path / "out").jobs}
    assert errors.pop(str(tmp_path / "fine.jpg")) == ""
    assert errors[str(tmp_path / "aux.jpg")].endswith("no file can be called 'aux.png', which is a device.")
    assert errors[str(tmp_path / "10:30.jpg")].endswith("no file can be called '10:30.png', which has ':'.")
    with pytest.raises(UsageError, match="which is a device"):
        plan("-", output="nul.png")
