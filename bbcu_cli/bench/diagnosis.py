"""What `bbcu doctor` finds: engines, threads, weights, versions. Looks, and changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from bbcu_cli import __version__
from bbcu_cli.cores import default_threads, usable_cpus
from bbcu_cli.engines.base import EngineInfo
from bbcu_cli.engines.cpu import kernel_sets
from bbcu_cli.engines.select import available
from bbcu_cli.hub import Catalogue, weights_dir

LIBRARIES = (
    "torch",
    "triton",
    "numpy",
    "pillow",
    "pillow-heif",
    "pillow-jxl-plugin",
    "rawpy",
    "safetensors",
    "huggingface-hub",
    "typer",
    "rich",
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A machine as bbcu sees it.

    Attributes:
        engines: every engine, the fastest first, with why it cannot run here if it cannot.
        chosen: (name, device, detail) of the engine that `auto` takes.
        kernel_sets: of the compiled module: name -> why it cannot run here, or None.
        models: (embedded, not embedded) model counts.
        environment: BBCU_* and related variables that are set.
    """

    version: str
    python: str
    machine: str
    threads: int
    engines: tuple[EngineInfo, ...]
    chosen: EngineInfo | None
    kernel_sets: dict[str, str | None]
    weights: str
    models: tuple[int, int]
    libraries: dict[str, str]
    environment: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"schema": 1, **asdict(self)}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def diagnose() -> Diagnosis:
    """Look around."""
    engines = tuple(available())
    # packed on CUDA, packed on the CPU, simulation on CUDA, simulation on the CPU: the order of `auto`.
    usable = [info for info in engines if info.unavailable is None]
    entries = list(Catalogue.load())
    embedded = sum(entry.embedded for entry in entries)
    names = [name for name in sorted(os.environ) if name.startswith(("BBCU_", "HF_")) and "TOKEN" not in name]
    return Diagnosis(
        version=__version__,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {usable_cpus()} usable",
        threads=default_threads(),
        engines=engines,
        chosen=usable[0] if usable else None,
        kernel_sets={k["name"]: None if k["supported"] else f"needs {k['required_features']}" for k in kernel_sets()},
        weights=str(weights_dir()),
        models=(embedded, len(entries) - embedded),
        libraries={library: _version(library) for library in LIBRARIES},
        environment={
            name: os.environ[name]
            for name in [*names, *(["OMP_NUM_THREADS"] if "OMP_NUM_THREADS" in os.environ else [])]
        },
    )
