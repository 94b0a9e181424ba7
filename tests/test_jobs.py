"""Which file becomes which, and what is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bbcu_cli.batch.jobs import JobList, plan_jobs, refuse_existing
from bbcu_cli.errors import UsageError


def plan(
    *inputs: object,
    output: object = None,
    suffix: str | None = None,
    extension: str | None = None,
    recursive: bool = False,
) -> JobList:
    """`plan_jobs` with the tag of x4."""
    target = None if output is None else str(output)
    return plan_jobs(
        [str(i) for i in inputs], target, tag="_x4", suffix=suffix, extension=extension, recursive=recursive
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
    assert [path.name for path in listing.passed_over] == ["notes.txt"]
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
        (["dangling.png"], None, "symbolic link"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    inputs: list[str], output: str | None, message: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that names the file."""
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
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


def test_a_link_to_itself_is_left_to_fail_when_it_is_read(photos: Path) -> None:
    """When a pattern finds it, planning takes it like any other name."""
    (photos / "loop.png").symlink_to("loop.png")
    assert [job.source for job in plan(photos / "loo*.png").jobs] == [photos / "loop.png"]
