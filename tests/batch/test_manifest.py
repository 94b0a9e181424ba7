"""What --skip-existing may trust."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bbcu_cli.batch.manifest import NAME, Manifest, Verdict, stamp_of


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A source and an output that was made of it, recorded under the key "k"."""
    source, output = tmp_path / "a.jpg", tmp_path / "out" / "a.png"
    output.parent.mkdir()
    source.write_bytes(b"source")
    manifest = Manifest("k")
    manifest.begun(output)
    output.write_bytes(b"output")
    manifest.done(output, stamp_of(source))
    return source, output


def verdict(key: str, source: Path, output: Path) -> Verdict:
    """What a run with that key knows of the output."""
    return Manifest(key).verdict(output, stamp_of(source))


def test_an_output_that_was_recorded_is_current(files: tuple[Path, Path]) -> None:
    """Same source, same options, untouched output."""
    assert verdict("k", *files) == "current"


def test_other_options_make_it_outdated(files: tuple[Path, Path]) -> None:
    """The name alone says nothing."""
    assert verdict("other", *files) == "outdated"


@pytest.mark.parametrize("which", [0, 1])
def test_a_changed_source_or_output_makes_it_outdated(which: int, files: tuple[Path, Path]) -> None:
    """A source that was edited, or a result that was tampered with, is made again."""
    files[which].write_bytes(b"changed")
    os.utime(files[which], ns=(1, 1))
    assert verdict("k", *files) == "outdated"


def test_a_run_killed_before_the_end_knows_its_file(files: tuple[Path, Path]) -> None:
    """Begun and not done is ours to make again, not a stranger's."""
    Manifest("k").begun(files[1])
    assert verdict("k", *files) == "outdated"


def test_a_file_that_nobody_recorded_is_foreign(files: tuple[Path, Path]) -> None:
    """It is never replaced silently."""
    stranger = files[1].with_name("b.png")
    stranger.touch()
    assert verdict("k", files[0], stranger) == "foreign"
    assert verdict("k", files[0], files[1].with_name("c.png")) == "absent"


def test_a_file_that_another_run_makes_meanwhile_is_known(files: tuple[Path, Path]) -> None:
    """Two runs may share a folder: each has read the record before the other wrote to it."""
    mine = Manifest("k")
    assert mine.verdict(files[1], stamp_of(files[0])) == "current"
    others = files[1].with_name("b.png")
    other = Manifest("k")
    other.begun(others)
    others.write_bytes(b"output of the other run")
    assert mine.verdict(others, stamp_of(files[0])) == "outdated"
    other.done(others, stamp_of(files[0]))
    assert Manifest("k").verdict(others, stamp_of(files[0])) == "current"


@pytest.mark.parametrize("junk", [b'\n{"output": "a.p', b"\n[1, 2]\n", b"\n\xff\xfe\n", b"\n" + b"[" * 100_000])
def test_torn_and_foreign_lines_spoil_only_themselves(junk: bytes, files: tuple[Path, Path]) -> None:
    """A kill in the middle of a line loses that line, and the next one is whole again."""
    with (files[1].parent / NAME).open("ab") as file:
        file.write(junk)
    assert verdict("k", *files) == "current"
    Manifest("k2").done(files[1], stamp_of(files[0]))
    assert verdict("k2", *files) == "current"


def test_an_output_without_its_source_is_not_current(files: tuple[Path, Path]) -> None:
    """Nobody can say that it is what would be made; trying to will say that the source is gone."""
    files[0].unlink()
    assert stamp_of(files[0]) is None
    assert verdict("k", *files) == "outdated"
    Manifest("k").done(files[1], None)
    assert verdict("k", *files) == "outdated"


@pytest.mark.parametrize("source", ["..", "\0", "\ud800", "a" * 5000, 7, ["a"], None])
def test_a_record_may_name_anything_as_the_source(source: object, files: tuple[Path, Path]) -> None:
    """It is compared with the inputs and never opened."""
    output = files[1]
    entry = {"output": output.name, "state": "done", "made": list(stamp_of(output) or ()), "from": source}
    (output.parent / NAME).write_text(json.dumps(entry))
    made = Manifest("k").known(output)
    assert made is not None
    assert not made.comparison


def test_a_result_knows_its_source_and_both_may_move(tmp_path: Path) -> None:
    """Across folders; a file that nobody recorded, and one that is not as it was, are unknown."""
    old, new = tmp_path / "old", tmp_path / "new"
    for name in ("in/a.jpg", "out/a.png"):
        (old / name).parent.mkdir(parents=True)
        (old / name).touch()
    Manifest("k").done(old / "out/a.png", stamp_of(old / "in/a.jpg"), source=old / "in/a.jpg")
    old.rename(new)
    made = Manifest("k").known(new / "out/a.png")
    assert made is not None
    assert made.source == os.path.realpath(new / "in/a.jpg")
    assert Manifest("k").known(new / "in/a.jpg") is None
    (new / "out/a.png").write_bytes(b"something else")
    assert Manifest("k").known(new / "out/a.png") is None


def test_remarks_are_kept_and_change_no_verdict(files: tuple[Path, Path]) -> None:
    """How an output was made is told later; a record without, or with something else there, tells nothing."""
    source, output = files
    assert Manifest("k").remarks(output) == {}
    Manifest("k").done(output, stamp_of(source), remarks={"model": "m"})
    assert Manifest("k").remarks(output) == {"model": "m"}
    assert verdict("k", *files) == "current"
    with (output.parent / NAME).open("a") as record:
        record.write('\n{"output": "a.png", "remarks": 7}')
    assert Manifest("k").remarks(output) == {}
