"""What works where torch is not installed, and what those commands say that need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bbcu_cli.engines.cpu import kernel_sets

CHELSEA = Path(__file__).parents[1] / "data" / "chelsea.png"
HIDE_TORCH = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in ("torch", "triton") else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
from bbcu_cli.__main__ import main
main()
"""


def bbcu(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a Python that has no torch."""
    command = [sys.executable, "-c", HIDE_TORCH, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
@pytest.mark.parametrize(
    "arguments",
    [
        ("sr", str(CHELSEA), "--scale", "2", "-o", "out.png"),
        ("denoise", str(CHELSEA), "--sigma", "25", "-o", "out.png"),
        ("deblock", str(CHELSEA), "-o", "out.png"),
        ("eval", "--gt", str(CHELSEA), "--task", "deblock", "--quality", "40"),
        ("eval", "--gt", str(CHELSEA), "--pred", str(CHELSEA)),
        ("doctor",),
        ("models", "list"),
        ("models", "info", "sr-m-x2"),
        ("bench", "sr-m-x2", "--size", "32x32"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]) if arguments[0] == "models" else arguments[0],
)
def test_what_needs_no_torch_works_without_it(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Restoring, scoring, looking: numpy, Pillow, safetensors and the compiled module do."""
    done = bbcu(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-o" not in arguments or (tmp_path / "out.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        (("train", "--data", ".", "--out", "run"), "Training"),
        (("sr", str(CHELSEA), "-o", "out.png", "--engine", "reference"), "Engine reference"),
        (("sr", str(CHELSEA), "-o", "out.png", "--device", "cuda"), "Device cuda"),
        (("models", "convert", "x.pth"), "Reading a .pth file"),
        (("bench", "sr-m-x2", "--size", "32x32", "--peers"), "--peers"),
        (("bench", "sr-m-x2", "--size", "32x32", "--device", "cuda"), "Device cuda"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_needs_torch_says_so(arguments: tuple[str, ...], subject: str, tmp_path: Path) -> None:
    """One sentence with the command that helps, and nothing written."""
    (tmp_path / "x.pth").touch()
    done = bbcu(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"{subject} needs PyTorch, which is not installed; run: pip install 'bbcu-cli[torch]'." in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_a_bench_without_torch_says_what_is_missing(tmp_path: Path) -> None:
    """The rest is timed."""
    done = bbcu("bench", "sr-m-x2", "--size", "32x32", folder=tmp_path)
    assert "pip install 'bbcu-cli[torch]'" in done.stdout + done.stderr


@pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
@pytest.mark.parametrize("system", ["posix", "nt"])
def test_the_choice_of_an_engine_does_not_import_torch(system: str, tmp_path: Path) -> None:
    """Where torch is installed but no driver of a GPU, which a look at the disk tells."""
    code = (
        "import pathlib, sys, types\n"
        "from bbcu_cli.checkpoint.packed import read_packed\n"
        "from bbcu_cli.engines import select\n"
        "from bbcu_cli.hub import Catalogue\n"
        "packed = read_packed(Catalogue.load()['sr-m-x2'].file).model\n"
        "asked = []\n"
        "pathlib.Path.exists = lambda path: asked.append(str(path))\n"
        f"select.os = types.SimpleNamespace(name={system!r}, environ={{}})\n"
        "session, reasons = select.open_session(packed, engine='auto', device='auto')\n"
        "assert 'torch' not in sys.modules\n"
        "print(type(session).__module__, *asked)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    module, *asked = done.stdout.split()
    assert module == "bbcu_cli.engines.cpu"
    assert any(path.endswith("nvcuda.dll") for path in asked) == (system == "nt")


HIDE_HUB = HIDE_TORCH.replace('("torch", "triton")', '("huggingface_hub", "hf_xet", "httpx2", "filelock")')


@pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        (("sr", str(CHELSEA), "-o", "out.png"), ""),
        (("models", "list"), ""),
        (("models", "verify"), ""),
        (("doctor",), ""),
        (("models", "path", "sr-m-x2"), ""),
        (("models", "pull", "sr-m-x2"), ""),
        (("sr", str(CHELSEA), "-o", "out.png", "--weights", "hf://user/repo"), "hf://user/repo"),
        (("models", "pull", "hf://user/repo"), "hf://user/repo"),
        (("models", "push", "sr-m-x2", "--to", "user/repo"), "A model card"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]) if value[0] == "models" else value[0],
)
def test_what_needs_the_hub_says_so(arguments: tuple[str, ...], subject: str, tmp_path: Path) -> None:
    """The models that ship need no client of the hub; what does is one sentence with the command that helps."""
    command = [sys.executable, "-c", HIDE_HUB, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (3 if subject else 0), done.stderr
    if subject:
        assert done.stderr.splitlines()[-1] == (
            f"bbcu: error: {subject} needs the client of the Hugging Face hub, which is not installed; "
            "run: pip install 'bbcu-cli[hub]'."
        )
        assert list(tmp_path.iterdir()) == []
