"""Imports point down only, and what must start fast imports nothing slow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bbcu_cli"

# The rooms, the lowest first: each may import those before it.
ROOMS = (
    "errors", "spec", "files", "cores", "native", "", "image", "models", "checkpoint", "hub", "engines",
    "score", "restoration", "train", "batch", "fleet", "bench", "cli",
)  # fmt: skip
TORCH_AT_MODULE_LEVEL = (
    "models",
    "checkpoint/pth.py",
    "checkpoint/onnx.py",
    "engines/reference.py",
    "engines/cuda.py",
    "engines/triton_kernels.py",
    "train",
    "bench/cuda",
    "bench/peers.py",
)


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return [f"{module}.{alias.name}" if module == "bbcu_cli" else module for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _room(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "bbcu_cli":
        return None
    return (
        parts[1]
        if (len(parts) > 1 and (PACKAGE / parts[1]).is_dir())
        or (len(parts) > 1 and (PACKAGE / f"{parts[1]}.py").exists())
        else ""
    )


SOURCES = sorted(
    p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem[0] != "_"
)


@pytest.mark.parametrize("source", SOURCES)
def test_imports_point_down_only(source: str) -> None:
    """A room imports rooms below it only, also inside functions."""
    own = source.split("/", maxsplit=1)[0].removesuffix(".py")
    below = ROOMS[: ROOMS.index(own)]
    for node in ast.walk(ast.parse((PACKAGE / source).read_text(encoding="utf-8"))):
        for module in _imports(node):
            room = _room(module)
            if module == "bbcu_cli._native":
                assert own == "native", f"{source} imports the compiled module by itself"
            elif room not in (None, own):
                assert room in below, f"{source} imports {module}, which is above it"
                assert (own, room) != ("train", "engines"), f"{source}: training never imports engines"


@pytest.mark.parametrize("source", [s for s in SOURCES if not s.startswith(TORCH_AT_MODULE_LEVEL)])
def test_torch_is_not_imported_at_module_level(source: str) -> None:
    """Only the rooms that are about torch import it when they are imported."""
    for node in ast.parse((PACKAGE / source).read_text(encoding="utf-8")).body:
        for module in _imports(node):
            assert module.split(".")[0] not in {"torch", "triton"}, f"{source} imports {module}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sr", "--help"], ["eval", "--help"]])
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    """Help and version answer at once: no torch, no numpy, no hub client, no Pillow."""
    code = (
        "import sys\nfrom bbcu_cli.cli.app import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "slow = {'torch', 'numpy', 'PIL', 'huggingface_hub', 'triton'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
