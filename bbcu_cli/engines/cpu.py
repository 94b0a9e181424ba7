"""The packed CPU engine: a thin wrapper of the compiled module `bbcu_cli._native`. No torch."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.checkpoint.packed import BinaryConv, Conv, FloatConv, PackedModel
from bbcu_cli.cores import checked_threads
from bbcu_cli.engines.base import EngineInfo, Progress, SessionContext
from bbcu_cli.errors import EngineError, EngineUnavailableError
from bbcu_cli.native import compiled, missing
from bbcu_cli.spec import FEATURES, LEAK

KERNEL_VARIABLE: Final = "BBCU_KERNEL"
NO_LEAK: Final = 1.0


def kernel_sets() -> list[dict[str, Any]]:
    """Kernel sets of this build, best first: name, description, required_features, supported. Empty: not compiled."""
    return list(compiled.kernel_sets()) if compiled is not None else []


def measure_layer(kernel: str, width: int, layers: int) -> tuple[float, float]:
    """Nanoseconds per pixel of one 64 -> 64 layer on one thread: the bare product, and the whole fused layer.

    Args:
        kernel: name of a kernel set that this CPU supports.
        width: of the rows.
        layers: how many layers, each with its own weights and rows, are gone through in turn.

    Raises:
        EngineUnavailableError: the module was not compiled.
    """
    if compiled is None:
        raise EngineUnavailableError("Engine packed on cpu: the compiled module is missing.")
    bare, fused = compiled.measure_layer(kernel, width, layers)
    return float(bare), float(fused)


def _zeros(bias: NDArray[np.float32] | None, count: int) -> NDArray[np.float32]:
    return np.zeros(count, np.float32) if bias is None else np.ascontiguousarray(bias)


def _build(native: ModuleType, kernel: str, packed: PackedModel) -> Any:
    """The network in the compiled module; which activation stands where follows from the architecture."""
    spec = packed.spec
    sr = spec.task == "sr"
    network = native.Network(kernel, spec.channels, spec.k, not sr)

    def add(conv: Conv, step: int, leak: float) -> None:
        if isinstance(conv, FloatConv):
            outputs = conv.weight.shape[0]
            network.add_conv(np.ascontiguousarray(conv.weight), _zeros(conv.bias, outputs), step, leak)
        else:
            add_binary(conv, step, leak)

    def add_binary(conv: BinaryConv, step: int, leak: float) -> None:
        bias = conv.b0 if conv.bias is None else conv.bias + conv.b0
        parts = (conv.signs, conv.alpha, bias, conv.slope, conv.b1, conv.shift)
        network.add_binary(*map(np.ascontiguousarray, parts), step, leak)

    network.add_head(
        np.ascontiguousarray(packed.head.weight), _zeros(packed.head.bias, spec.features), LEAK if sr else 0.0
    )
    for unit in packed.body:
        add_binary(unit, 1, NO_LEAK)
    for conv, step in zip(packed.up, spec.up_steps, strict=True):
        add(conv, step, LEAK if isinstance(conv, FloatConv) else NO_LEAK)
    if packed.hr is not None:
        add(packed.hr, 1, LEAK)
    network.add_tail(np.ascontiguousarray(packed.tail.weight), _zeros(packed.tail.bias, spec.channels))
    return network


class CpuSession(SessionContext):
    """A model in the kernel set's own layout; safe to use from several threads."""

    def __init__(self, network: Any, info: EngineInfo, threads: int) -> None:
        self.info = info
        self._network = network
        self._threads = threads

    def run(self, x: NDArray[np.float32], progress: Progress | None = None) -> NDArray[np.float32]:
        n, channels, height, width = x.shape
        scale: int = self._network.scale
        try:
            output = np.empty((n, channels, scale * height, scale * width), np.float32)
            for index, (image, restored) in enumerate(zip(x, output, strict=True)):

                def told(share: float, before: int = index) -> None:
                    if progress:
                        progress((before + share) / n)

                self._network.run(np.ascontiguousarray(image, np.float32), restored, self._threads, told)
        except MemoryError as error:
            raise EngineError(f"Out of memory on a {height}x{width} tile; use a smaller --tile.") from error
        except ValueError as error:
            raise EngineError(f"The packed engine rejected a {x.shape} tile: {error}.") from error
        except RuntimeError as error:  # std::system_error: a thread did not start
            raise EngineError(f"The packed engine failed: {error}; if threads are short, give --threads 1.") from error
        return output


class CpuEngine:
    """The compiled kernels on `threads` threads (None: `default_threads()`).

    The environment variable BBCU_KERNEL forces a kernel set: avx512, avx2, neon or scalar.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = checked_threads(threads)
        self.kernel, reason = "", None
        if compiled is None:
            reason = f"the compiled module is missing ({missing}); reinstall where a C++17 compiler is found"
        else:
            try:
                self.kernel = compiled.choose_kernel_set(os.environ.get(KERNEL_VARIABLE, ""))
            except ValueError as error:
                reason = f"{KERNEL_VARIABLE}: {error}"
        detail = f"{self.kernel or 'no kernels'}, float32 residual"
        self.info = EngineInfo("packed", "cpu", detail, reason, bands=self.threads)

    def open(self, packed: PackedModel) -> CpuSession:
        if self.info.unavailable or compiled is None:
            raise EngineUnavailableError(f"Engine packed on cpu: {self.info.unavailable}.")
        if packed.spec.features != FEATURES:
            raise EngineUnavailableError(
                f"Engine packed on cpu: the model has {packed.spec.features} features, the kernels are for {FEATURES}; "
                "use --engine reference."
            )
        return CpuSession(_build(compiled, self.kernel, packed), self.info, self.threads)
