"""The one way from a name, a file or a reference to an opened model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from small import SMALL_SPECS, small_model

import bbcu_cli
from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.errors import UsageError, WeightsUnavailableError
from bbcu_cli.hub import Catalogue, Entry
from bbcu_cli.hub.__main__ import main as refresh
from bbcu_cli.restoration.model import load_model


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights with its catalogue: "m" is there, "l" is not."""
    monkeypatch.delenv("BBCU_HUB_REPO", raising=False)
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / "m.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    Catalogue({name: Entry(name, SMALL_SPECS[f"{name}-x2"], "") for name in "ml"}).save(tmp_path)
    assert refresh([]) == 0
    return tmp_path


@pytest.mark.parametrize("by", ["name", "file"])
def test_weights_are_read_once(by: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was verified is what runs: nobody can put another file in its place between the two."""
    file, opened, real = weights / "m.safetensors", [], Path.open
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def watched(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    with load_model("m" if by == "name" else file, engine="reference") as model:
        assert (model.spec, model.sha256) == (SMALL_SPECS["m-x2"], digest)
        assert model.provenance["source"] == "random, seed 0"
    assert [path for path in opened if path.suffix == ".safetensors"] == [file]


@pytest.mark.usefixtures("weights")
def test_weights_for_another_purpose_are_rejected() -> None:
    """The sentence says what they are for."""
    for wish, words in (
        ({"task": "sr", "scale": 4}, "are for sr x2, not for sr x4"),
        ({"task": "denoise"}, "are for sr x2, not for denoise"),
    ):
        with pytest.raises(UsageError, match=words):
            load_model("m", **wish)  # type: ignore[arg-type]


@pytest.mark.usefixtures("weights")
def test_weights_that_are_nowhere_say_what_to_do() -> None:
    """The same sentence for the command and the library."""
    with pytest.raises(WeightsUnavailableError, match="bbcu train"):
        load_model("l", offline=True)


def test_public_names_are_importable() -> None:
    """`from bbcu_cli import ...` gives what the documentation shows, and says what it does not have."""
    for name in bbcu_cli.__all__:
        assert getattr(bbcu_cli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bbcu_cli.nothing  # noqa: B018
