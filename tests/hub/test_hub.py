"""The catalogue and the way from a name to a verified file, as far as no hub is needed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small import SMALL_SPECS, small_model

from bbcu_cli.checkpoint.packed import load_packed, to_bytes
from bbcu_cli.errors import CheckpointError, UsageError, WeightsUnavailableError
from bbcu_cli.hub import Catalogue, Entry, HubRef, denoise_model, locate, weights_dir
from bbcu_cli.hub.__main__ import main as refresh
from bbcu_cli.hub.locate import status
from bbcu_cli.hub.reference import for_model, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def path_of(wanted: str | Path, **options: Any) -> Path:
    """Where the verified file is."""
    return locate(wanted, **options).file.path


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights with its catalogue: "m" is there, "l" is known and not trained."""
    for name in ("BBCU_HUB_REPO", "BBCU_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / "m.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    entries = [Entry("m", SMALL_SPECS["m-x2"], "medium"), Entry("l", SMALL_SPECS["l-x2"], "large")]
    Catalogue({entry.name: entry for entry in entries}).save(tmp_path)
    assert refresh([]) == 0
    return tmp_path


def test_shipped_catalogue_agrees_with_the_shipped_weights() -> None:
    """After a file in weights/ changed, `python -m bbcu_cli.hub` has to be run; this says so."""
    folder = weights_dir()
    _, changes = Catalogue.load(folder).refreshed(folder)
    assert not changes, f"run `python -m bbcu_cli.hub`: {changes}"


def test_shipped_weights_are_found_and_valid() -> None:
    """Every embedded file passes its own check, and no file in weights/ is unknown to the catalogue."""
    catalogue = Catalogue.load()
    for entry in catalogue:
        if entry.embedded:
            assert locate(entry.name).file.sha256 == entry.sha256
    assert {path.stem for path in weights_dir().glob("*.safetensors")} <= set(catalogue.entries)


def test_embedded_model_is_found_by_its_name(shop: Path) -> None:
    """A name that ships is its file beside the catalogue, verified."""
    found = locate("m")
    assert (found.file.path, found.source) == (shop / "m.safetensors", "embedded")
    assert found.file.sha256 == hashlib.sha256(found.file.path.read_bytes()).hexdigest()
    assert found.file.model.spec == SMALL_SPECS["m-x2"]


@pytest.mark.usefixtures("shop")
def test_path_goes_before_everything(tmp_path: Path) -> None:
    """--weights FILE is taken as it is, whatever the catalogue holds, if it is a valid packed model."""
    other = tmp_path / "elsewhere" / "m.safetensors"
    other.parent.mkdir()
    other.write_bytes(to_bytes(small_model(SMALL_SPECS["denoise"])))
    assert path_of(other) == path_of(str(other)) == other


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"not weights at all", "not a valid safetensors"), (None, "No such file")]
)
def test_bad_file_is_refused_by_name(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    """A file that is no packed model, or not there, is named with what is wrong."""
    path = tmp_path / "bad.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        path_of(path)


def test_float_checkpoint_as_weights_says_how_to_convert_it(tmp_path: Path) -> None:
    """A .pth given as --weights names the command that packs it."""
    with pytest.raises(CheckpointError, match=r"run `bbcu models convert .*BBCULx4\.pth`"):
        path_of(tmp_path / "BBCULx4.pth")


def test_mistyped_name_gets_the_nearest_one() -> None:
    """The catalogue suggests the name that was probably meant."""
    with pytest.raises(UsageError, match="did you mean sr-m-x4"):
        path_of("sr-m-4x")


@pytest.mark.usefixtures("shop")
def test_model_that_is_nowhere_says_what_to_do() -> None:
    """A model that nobody has trained yet is exit code 3 and three ways out."""
    with pytest.raises(
        WeightsUnavailableError, match=r"bbcu train --task sr --scale 2 --model l.*convert.*--hub-repo"
    ) as caught:
        path_of("l")
    assert caught.value.exit_code == 3
    assert status(Catalogue.load()["l"]).where == "not trained"


@pytest.mark.parametrize("damage", ["one byte", "truncated", "another valid model"])
def test_embedded_file_that_is_not_the_catalogued_one_is_never_used(shop: Path, damage: str) -> None:
    """Whatever happened to an embedded file, its SHA-256 gives it away."""
    path = shop / "m.safetensors"
    content = path.read_bytes()
    if damage == "one byte":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncated":
        path.write_bytes(content[:-100])
    else:
        path.write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"], seed=1)))
    with pytest.raises(WeightsUnavailableError, match="SHA-256"):
        path_of("m")


def test_refresh_takes_a_replaced_file_over_and_drops_its_old_figures(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure belongs to the file it was measured on."""
    assert refresh(["--measured", "m", "Set5", "31.5"]) == 0
    assert Catalogue.load()["m"].measured == {"Set5": 31.5}
    assert refresh(["--check"]) == 0
    (shop / "m.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"], seed=1)))
    assert refresh(["--check"]) == 1
    with pytest.raises(WeightsUnavailableError):
        path_of("m")
    assert refresh([]) == 0
    assert "drops its measured figures (Set5)" in capsys.readouterr().out
    assert path_of("m") == shop / "m.safetensors"
    assert not Catalogue.load()["m"].measured


def test_refresh_refuses_a_file_of_another_network(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A x3 model saved under the name of the x2 one leaves the catalogue as it was."""
    before = (shop / "catalogue.json").read_bytes()
    (shop / "m.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x3"])))
    assert refresh([]) == 2
    assert "m is a bbcu-m for sr x2" in capsys.readouterr().err
    assert (shop / "catalogue.json").read_bytes() == before


def test_refresh_follows_files_that_come_and_go(shop: Path) -> None:
    """A file of a new name becomes an entry; an entry whose file went becomes one that is not trained."""
    (shop / "m.safetensors").rename(shop / "m2.safetensors")
    assert refresh([]) == 0
    catalogue = Catalogue.load()
    assert catalogue["m"].sha256 is None
    assert catalogue["m2"].summary == "super-resolution x2, bbcu-m"
    assert path_of("m2").exists()


def test_refresh_keeps_models_that_are_on_the_hub(shop: Path) -> None:
    """A pinned hub model without an embedded file is no change."""
    hub = Entry("h", SMALL_SPECS["l-x3"], "", "a" * 64, 5, HubRef("me/h", COMMIT))
    Catalogue({**Catalogue.load().entries, "h": hub}).save(shop)
    assert refresh(["--check"]) == 0
    assert Catalogue.load()["h"] == hub


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "short"},
        {"sha256": None},
        {"size": None},
        {"hub": {"repo": "me/m", "revision": "main", "filename": "model.safetensors"}},
        {"hub": {"repo": "me/m", "revision": COMMIT, "filename": "../../m.safetensors"}},
        {"hub": {"repo": "me/m"}, "sha256": None, "size": None},
        {"spec": {}},
        {"measured": {"Set5": "good"}},
        {"colour": "red"},
    ],
)
def test_malformed_catalogue_is_named(shop: Path, change: dict[str, object]) -> None:
    """An entry without a hash, with a moving revision or an odd field is refused, and its name said."""
    path = shop / "catalogue.json"
    content = json.loads(path.read_text())
    content["models"]["m"].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="'m'"):
        Catalogue.load()


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"schema": 9, "models": {}}', '{"schema": 1}'])
def test_catalogue_that_is_no_catalogue_is_refused(tmp_path: Path, text: str) -> None:
    """Damage and newer schemas are one sentence with the file's name."""
    (tmp_path / "catalogue.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"catalogue\.json"):
        Catalogue.load(tmp_path)


def test_hub_reference_is_read_and_written() -> None:
    """Revision and file have defaults; the text form reads back."""
    assert parse("hf://me/m") == HubRef("me/m", "main", "model.safetensors")
    full = parse(f"hf://me/m@{COMMIT}:x2/m.safetensors")
    assert (full.repo, full.revision, full.filename, full.pinned) == ("me/m", COMMIT, "x2/m.safetensors", True)
    assert parse(str(full)) == full
    assert parse("hf://me/m@refs/pr/1").revision == "refs/pr/1"
    assert for_model("me/bbcu-{name}", "sr-m-x2").repo == "me/bbcu-sr-m-x2"
    assert for_model("me/zoo:{name}.safetensors", "sr-m-x2").filename == "sr-m-x2.safetensors"


@pytest.mark.parametrize(
    "text",
    [
        "hf://m", "hf://", "hf://me/m/n", "hf://../m", "hf://me/..", "hf:///etc/passwd", "hf://me/m@:f.safetensors",
        "hf://me/m:", "hf://me/m:../f.safetensors", "hf://me/m:a/../f.safetensors", "hf://me/m:/etc/f.safetensors",
        "hf://me/m:..\\f.safetensors", "hf://me/m:C:f.safetensors", "hf://me/m@../../x:f.safetensors", "hf://me/m@a b",
        "hf://me/m:f.bin", "hf://me/m:.hidden.safetensors", "hf://me/\x1b[31mm", "hf://me/m:a//f.safetensors",
    ],
)  # fmt: skip
def test_hub_reference_that_could_escape_is_refused(text: str) -> None:
    """Nothing climbs out of the cache, is absolute or hidden, and no control character is printed raw."""
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).isprintable()


def test_denoising_model_fits_the_noise_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Specialised weights that are there serve their own level where they measured better; the blind model the rest."""
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(tmp_path))
    spec = SMALL_SPECS["denoise"]
    for level in (15, 25):
        (tmp_path / f"denoise-{level}.safetensors").touch()
    measured = {
        "denoise": {"Kodak24 sigma 15": 30.0, "Kodak24 sigma 25": 29.0, "Kodak24 sigma 50": 26.0},
        "denoise-15": {"Kodak24 sigma 15": 29.9, "Kodak24 sigma 25": 29.5},
        "denoise-25": {"Kodak24 sigma 15": 28.0, "Kodak24 sigma 25": 29.1, "Set9 sigma 25": 31.0},
        "denoise-50": {"Kodak24 sigma 50": 27.0},
    }
    catalogue = Catalogue({name: Entry(name, spec, "", measured=figures) for name, figures in measured.items()})
    names = {sigma: denoise_model(sigma, catalogue) for sigma in (None, 0.0, 15.0, 22.0, 24.0, 25.0, 27.5, 30.0, 50.0)}
    assert [sigma for sigma, name in names.items() if name == "denoise-25"] == [24.0, 25.0, 27.5]
    assert all(name in ("denoise", "denoise-25") for name in names.values())


def test_restoring_with_embedded_weights_opens_no_socket(shop: Path) -> None:
    """A whole `bbcu sr` makes no socket and imports no huggingface_hub, proved in a process that allows none."""
    program = """
import runpy, socket, sys
def refuse(*arguments, **options):
    raise AssertionError("a socket was opened")
socket.socket.__init__ = socket.create_connection = socket.getaddrinfo = refuse
try:
    runpy.run_module("bbcu_cli", run_name="__main__")
finally:
    assert not [name for name in sys.modules if name.startswith("huggingface_hub")]
"""
    Image.new("RGB", (6, 8), (90, 120, 30)).save(shop / "photo.png")
    arguments = ["sr", str(shop / "photo.png"), "--scale", "2", "--weights", "m", "-o", str(shop / "large.png")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(shop / "large.png") as image:
        assert image.size == (12, 16)


@pytest.mark.usefixtures("shop")
def test_offline_never_opens_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --offline or any of the variables, a model that is not cached is an error without a request."""
    monkeypatch.setattr("bbcu_cli.hub.client.download", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(WeightsUnavailableError, match=r"--offline.*bbcu models pull l"):
        path_of("l", hub_repo="me/{name}", offline=True)
    for name in ("BBCU_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            with pytest.raises(WeightsUnavailableError, match=name):
                path_of("hf://me/nowhere")


@pytest.mark.usefixtures("shop")
def test_catalogued_file_reads_back_as_its_spec() -> None:
    """What the catalogue says of a model is what its file says."""
    entry = Catalogue.load()["m"]
    assert load_packed(entry.file).spec == entry.spec
    assert entry.size == entry.file.stat().st_size
