"""What --skip-existing may trust."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bbcu_cli.batch.manifest import NAME, Manifest


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A source and an output that was made of it, recorded under the key "k"."""
    source, output = tmp_path / "a.jpg", tmp_path / "out" / "a.png"
    output.parent.mkdir()
    source.write_bytes(b"source")
    manifest = Manifest("k")
    manifest.begun(output)
    output.write_bytes(b"output")
    manifest.done(source, output)
    return source, output


def test_an_output_that_was_recorded_is_current(files: tuple[Path, Path]) -> None:
    """Same source, same options, untouched output."""
    assert Manifest("k").verdict(*files) == "current"


def test_other_options_make_it_outdated(files: tuple[Path, Path]) -> None:
    """The name alone says nothing."""
    assert Manifest("other").verdict(*files) == "outdated"


@pytest.mark.parametrize("which", [0, 1])
def test_a_changed_source_or_output_makes_it_outdated(which: int, files: tuple[Path, Path]) -> None:
    """A source that was edited, or a result that was tampered with, is made again."""
    files[which].write_bytes(b"changed")
    os.utime(files[which], ns=(1, 1))
    assert Manifest("k").verdict(*files) == "outdated"


def test_a_run_killed_before_the_end_knows_its_file(files: tuple[Path, Path]) -> None:
    """Begun and not done is ours to make again, not a stranger's."""
    Manifest("k").begun(files[1])
    assert Manifest("k").verdict(*files) == "outdated"


def test_a_file_that_nobody_recorded_is_foreign(files: tuple[Path, Path]) -> None:
    """It is never replaced silently."""
    stranger = files[1].with_name("b.png")
    stranger.touch()
    assert Manifest("k").verdict(files[0], stranger) == "foreign"
    assert Manifest("k").verdict(files[0], files[1].with_name("c.png")) == "absent"


@pytest.mark.parametrize("junk", [b'\n{"output": "a.p', b"\n[1, 2]\n", b"\n\xff\xfe\n", b"\n" + b"[" * 100_000])
def test_torn_and_foreign_lines_spoil_only_themselves(junk: bytes, files: tuple[Path, Path]) -> None:
    """A kill in the middle of a line loses that line, and the next one is whole again."""
    with (files[1].parent / NAME).open("ab") as file:
        file.write(junk)
    assert Manifest("k").verdict(*files) == "current"
    Manifest("k2").done(*files)
    assert Manifest("k2").verdict(*files) == "current"
