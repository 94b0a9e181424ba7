"""`bbcu models` from the command line: in this process where nothing is needed, else as a user types it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback_hub import LoopbackHub
from PIL import Image
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner, Result

from bbcu_cli.checkpoint.pack import unpack
from bbcu_cli.checkpoint.packed import load_packed, to_bytes
from bbcu_cli.checkpoint.pth import load_pth
from bbcu_cli.cli.models import models
from bbcu_cli.engines.reference import ReferenceEngine
from bbcu_cli.hub import Catalogue, Entry, HubRef
from bbcu_cli.hub.__main__ import main as refresh
from bbcu_cli.hub.reference import parse

SPEC = SMALL_SPECS["m-x2"]
MODEL = small_model(SPEC)
GOOD = to_bytes(MODEL)
KEY = "hf_writer"


def bbcu(*arguments: str, environment: dict[str, str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "bbcu_cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def run(*arguments: str) -> Result:
    """Run a command of `bbcu models` in this process."""
    return CliRunner().invoke(models, list(arguments))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights: "denoise" ships with a figure, "sr-m-x2" is not trained."""
    for name in ("BBCU_HUB_REPO", "BBCU_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BBCU_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / "denoise.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["denoise"])))
    entries = [Entry("denoise", SMALL_SPECS["denoise"], "blind"), Entry("sr-m-x2", SPEC, "super-resolution x2")]
    Catalogue({entry.name: entry for entry in entries}).save(tmp_path)
    assert refresh(["--measured", "denoise", "Kodak24 sigma 25", "31.28"]) == 0
    return tmp_path


@pytest.fixture
def hub(shop: Path) -> Iterator[tuple[LoopbackHub, dict[str, str]]]:
    """A hub that has "sr-m-x2" at me/m, and the environment of a process that knows it and that catalogue."""
    with LoopbackHub() as running:
        running.repo("me/m").commit({"model.safetensors": GOOD})
        yield running, running.environment(shop)


def test_list_shows_task_scale_size_place_and_figure(shop: Path) -> None:
    """Every model has its line; one that is not trained comes with what to do."""
    size = (shop / "denoise.safetensors").stat().st_size
    lines = run("list").stdout.splitlines()
    assert lines[1].split() == [
        "denoise",
        "denoise",
        f"{size / 1e6:.2f}",
        "MB",
        "embedded",
        "Kodak24",
        "sigma",
        "25",
        "31.28",
        "dB",
    ]
    assert lines[2].split() == ["sr-m-x2", "sr", "x2", "not", "trained"]
    assert "bbcu train --task sr --scale 2 --model m" in lines[-1]
    assert "bbcu models convert" in lines[-2]


def test_list_as_json_is_one_object(shop: Path) -> None:
    """Scripts get the same facts by name."""
    listed = json.loads(run("list", "--json").stdout)
    assert listed["schema"] == 1
    first, second = listed["models"]
    assert (first["name"], first["where"], first["path"]) == ("denoise", "embedded", str(shop / "denoise.safetensors"))
    assert (first["metric"], first["measured"]) == ("PSNR (RGB)", {"Kodak24 sigma 25": 31.28})
    assert (second["where"], second["path"], second["sha256"]) == ("not trained", None, None)


def test_info_prints_no_control_character_of_a_file(tmp_path: Path) -> None:
    """What a stranger wrote into the provenance of a file cannot drive the terminal."""
    path = tmp_path / "m.safetensors"
    tricky = {"source": "\x1b[2Jcleared\nname  good"}
    path.write_bytes(to_bytes(type(MODEL)(SPEC, MODEL.head, MODEL.body, MODEL.up, MODEL.hr, MODEL.tail, tricky)))
    shown = run("info", str(path)).stdout
    assert "\\x1b[2Jcleared\\nname  good" in shown
    assert shown.replace("\n", "").isprintable()
    assert json.loads(run("info", str(path), "--json").stdout)["provenance"] == tricky


@pytest.mark.usefixtures("shop")
def test_info_of_a_missing_model_says_what_to_do() -> None:
    """What is known is shown, with the next step."""
    known = json.loads(run("info", "sr-m-x2", "--json").stdout)
    assert known["spec"] == SPEC.to_dict()
    assert "bbcu train" in known["next_step"]


def test_verify_names_the_bad_file_and_ends_with_1(shop: Path) -> None:
    """A good file is ok with its hash; one changed bit is found."""
    path = shop / "denoise.safetensors"
    assert run("verify").stdout.startswith("ok   denoise  ")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = run("verify")
    assert (done.exit_code, done.stdout.split(":")[0]) == (1, "BAD  denoise")


def test_path_and_remove_leave_embedded_models_alone(shop: Path) -> None:
    """The path is the whole of stdout; a model that ships is not removed."""
    done = run("path", "denoise")
    assert done.stdout == f"{shop / 'denoise.safetensors'}\n"
    done = run("remove", "denoise")
    assert (done.exit_code, "ships with bbcu" in done.stderr) == (2, True)
    assert (shop / "denoise.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["path", "sr-m-x2"], 3, "does not ship with this bbcu"),
        (["pull", "denoize"], 2, "did you mean denoise?"),
        (["pull", "hf://me/m:../x.safetensors"], 2, "not allowed"),
        (["pull", "sr-m-x2", "--hub-repo", "me/m", "--offline"], 3, "switched off (--offline)"),
        (["info", "missing.safetensors"], 2, "cannot be read"),
        (["remove", "some/file.safetensors"], 2, "a file of yours"),
        (["convert", "missing.pth"], 2, "cannot be read"),
        (["convert", "x.pth", "-o", "y", "--hub-layout", "z"], 2, "exclude each other"),
        (["push", "denoise", "--to", "me/m", "--measured", "Set5"], 2, "is not SET=DB"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("shop")
def test_wrong_request_is_one_sentence_and_a_code(
    arguments: list[str], code: int, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 for a request that makes no sense, 3 for weights that are not to be had; nothing on stdout."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("bbcu: error: ")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_convert_packs_a_published_checkpoint(tmp_path: Path) -> None:
    """The packed file is what the checkpoint is, its path the result; an existing file stays unless told otherwise."""
    source = tmp_path / "BBCUMx2.pth"
    torch.save({"params": {name: torch.from_numpy(value) for name, value in unpack(MODEL).items()}}, source)
    done = run("convert", str(source))
    target = tmp_path / "BBCUMx2.safetensors"
    assert done.stdout == f"{target}\n"
    assert "bbcu-m for super-resolution x2, 64 features, 3 binary units" in done.stderr
    assert target.read_bytes() == to_bytes(load_pth(source))
    assert run("convert", str(source)).exit_code == 2
    assert run("convert", str(source), "--overwrite").exit_code == 0


def test_convert_packs_the_averaged_weights_of_a_training_checkpoint(tmp_path: Path) -> None:
    """What `bbcu train` saves to go on from is converted like a published checkpoint."""
    weights = {name: torch.from_numpy(value) for name, value in unpack(MODEL).items()}
    checkpoint = {"spec": SPEC.to_dict(), "step": 7, "model": {n: -w for n, w in weights.items()}, "ema": weights}
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    done = run("convert", str(tmp_path / "checkpoint.pt"), "-o", str(tmp_path / "out.safetensors"))
    assert done.exit_code == 0, done.stderr
    np.testing.assert_array_equal(load_packed(tmp_path / "out.safetensors").tail.weight, MODEL.tail.weight)


@pytest.mark.parametrize("kind", sorted(SMALL_SPECS))
def test_export_writes_a_network_of_any_size_for_other_runtimes(kind: str, tmp_path: Path) -> None:
    """ONNX Runtime gives what the float simulation gives, for sizes and counts that the export never saw."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    packed = small_model(SMALL_SPECS[kind])
    source, target = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    source.write_bytes(to_bytes(packed))
    done = run("export", str(source), "--onnx", str(target))
    assert done.exit_code == 0, done.stderr
    assert "differs from bbcu's engine by" in done.stderr
    session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
    with ReferenceEngine("cpu", 1).open(packed) as reference:
        for shape in ((1, 5, 9), (2, 31, 17)):
            x = np.random.default_rng(1).random((shape[0], packed.spec.channels, *shape[1:]), dtype=np.float32)
            [y] = session.run(None, {"x": x})
            difference = np.abs(y - reference.run(x))  # rounding turns a sign that is on its threshold, here and there
            assert np.quantile(difference, 0.9) < 2e-5
            assert difference.mean() < 1e-3
    again = run("export", str(source), "--onnx", str(target))
    assert again.exit_code == 2
    assert "exists" in again.stderr


def test_hub_layout_holds_model_config_and_card(tmp_path: Path) -> None:
    """The folder is what a repository of the hub needs, and the config tells what the file is."""
    source = tmp_path / "m.safetensors"
    source.write_bytes(GOOD)
    folder = tmp_path / "to-upload"
    done = run("convert", str(source), "--hub-layout", str(folder), "--measured", "Set5=31.5", "--license", "mit")
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert load_packed(folder / "model.safetensors").spec == SPEC
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["scale"], config["k"]) == (["bbcu-m"], 2, 130.0)
    card = (folder / "README.md").read_text()
    assert config["sha256"] in card
    assert "- Set5: 31.50" in card
    assert "license: mit" in card


def photo(folder: Path) -> Path:
    """A small picture."""
    path = folder / "photo.png"
    Image.fromarray(np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)).save(path)
    return path


def test_model_that_does_not_ship_is_pulled_and_restores(hub: tuple[LoopbackHub, dict[str, str]], shop: Path) -> None:
    """Pull once, then `bbcu sr` works with it: also when the hub is down, and without a single request."""
    running, environment = hub
    environment["BBCU_HUB_REPO"] = "me/m"
    pulled = bbcu("models", "pull", "sr-m-x2", environment=environment)
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip()).read_bytes() == GOOD
    assert "SHA-256" in pulled.stderr
    assert "%|" not in pulled.stderr  # no progress bar where there is no terminal
    running.requests.clear()
    running.status = 503
    del environment["HF_HUB_DISABLE_TELEMETRY"]
    source = photo(shop)
    restored = bbcu("sr", str(source), "--scale", "2", "-o", str(shop / "out.png"), environment=environment)
    assert restored.returncode == 0, restored.stderr
    with Image.open(shop / "out.png") as image:
        assert image.size == (12, 16)
    assert running.requests == []


def test_restoration_downloads_a_pinned_model_when_it_is_first_used(
    hub: tuple[LoopbackHub, dict[str, str]], shop: Path
) -> None:
    """A catalogue that pins a hub model is all that a restoration needs; --offline then changes nothing."""
    running, environment = hub
    ref = HubRef("me/m", running.repo("me/m").refs["main"])
    entry = Entry("sr-m-x2", SPEC, "", hashlib.sha256(GOOD).hexdigest(), len(GOOD), ref)
    Catalogue({**Catalogue.load().entries, "sr-m-x2": entry}).save(shop)
    source = photo(shop)
    for name, options in (("first.png", ()), ("second.png", ("--offline",))):
        done = bbcu("sr", str(source), "--scale", "2", "-o", str(shop / name), *options, environment=environment)
        assert done.returncode == 0, done.stderr
    assert (shop / "first.png").read_bytes() == (shop / "second.png").read_bytes()
    assert running.methods().count("GET hub") == 1


def test_two_processes_that_want_the_same_model_get_it(hub: tuple[LoopbackHub, dict[str, str]], shop: Path) -> None:
    """Pulled at the same time by several processes, it is downloaded once and whole for all."""
    running, environment = hub
    command = [sys.executable, "-m", "bbcu_cli", "models", "pull", "hf://me/m"]
    together = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    done = [process.communicate(timeout=60) for process in together]
    assert [process.returncode for process in together] == [0, 0], done
    assert len({out for out, _ in done}) == 1
    assert Path(done[0][0].strip()).read_bytes() == GOOD
    assert running.methods().count("GET hub") == 1
    assert not list((shop / "hf").rglob("*.incomplete"))


def test_pushed_model_restores_is_verified_and_removed(hub: tuple[LoopbackHub, dict[str, str]], shop: Path) -> None:
    """The whole life of a model on a hub from the command line."""
    running, environment = hub
    running.write_token = environment["HF_TOKEN"] = KEY
    pushed = bbcu("models", "push", "denoise", "--to", "me/den", "--license", "mit", environment=environment)
    assert pushed.returncode == 0, pushed.stderr
    assert "%|" not in pushed.stderr
    reference = pushed.stdout.strip()
    assert parse(reference).pinned
    card = running.repo("me/den").commits[parse(reference).revision]["README.md"].decode()
    assert "- Kodak24 sigma 25: 31.28" in card
    source = photo(shop)
    restored = bbcu("denoise", str(source), "--weights", reference, "-o", str(shop / "o.png"), environment=environment)
    assert restored.returncode == 0, restored.stderr
    digest = hashlib.sha256((shop / "denoise.safetensors").read_bytes()).hexdigest()
    assert f"weights {reference}, SHA-256 {digest}" in restored.stderr
    verified = bbcu("models", "verify", reference, environment=environment)
    assert (verified.returncode, verified.stdout.startswith("ok   hf://me/den@")) == (0, True)
    removed = bbcu("models", "remove", reference, environment=environment)
    assert (removed.returncode, removed.stdout) == (0, "")
    assert not list((shop / "hf" / "hub").glob("models--*/blobs/*"))


def test_unreachable_hub_ends_a_command_within_five_seconds(
    hub: tuple[LoopbackHub, dict[str, str]],
) -> None:
    """Nobody listens: exit code 3 and the way out, start of the interpreter included."""
    _, environment = hub
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    begin = time.monotonic()
    done = bbcu("models", "pull", "hf://me/m", environment=environment)
    assert time.monotonic() - begin < 5
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be reached at http://127.0.0.1:9" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_is_drawn_on_a_terminal_unless_quiet(hub: tuple[LoopbackHub, dict[str, str]]) -> None:
    """The bar is for people who watch."""
    import fcntl
    import pty
    import struct
    import termios

    running, environment = hub
    running.repo("me/other").commit({"model.safetensors": GOOD})
    for wanted, options, expected in (("hf://me/m", [], True), ("hf://me/other", ["--quiet"], False)):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "bbcu_cli", "models", "pull", wanted, *options]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # Linux ends a closed terminal with EIO
            while part := os.read(ours, 4096):
                seen += part
        os.close(ours)
        assert process.wait() == 0, seen
        assert (b"%|" in seen) == expected
