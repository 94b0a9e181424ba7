"""How fast the CUDA engine's kernels run on the GPU at hand, against the bandwidth of its memory.

For `bbcu bench --device cuda`. Times are medians of recorded CUDA graphs, without copies to and from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
import triton
from triton.testing import do_bench_cudagraph

from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.engines import triton_kernels as kernels
from bbcu_cli.engines.cuda import Network, Residual, traffic
from bbcu_cli.spec import FEATURES

# What the defaults are to be compared with. (block, warps, programs, registers, stages)
TUNINGS: Final = tuple(
    kernels.Tuning(*row)
    for row in ((64, 4, 3, 168, 2), (64, 4, 4, 128, 2), (64, 4, 2, 255, 2), (64, 4, 3, 168, 1), (128, 8, 2, 128, 2),
                (128, 8, 2, 128, 1), (128, 4, 2, 255, 2), (128, 8, 1, 255, 2))
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """One measurement.

    Attributes:
        what: the network, or the kernel with its tuning.
        milliseconds: median.
        floor: milliseconds that its memory traffic takes at the measured bandwidth of a copy.
    """

    what: str
    milliseconds: float
    floor: float


def _median(run: Callable[[], object]) -> float:
    return float(do_bench_cudagraph(run, rep=100, return_mode="median"))


def bandwidth(device: torch.device, size: int = 1 << 30) -> float:
    """Bytes per millisecond of a copy on the device, read and written both counted."""
    source = torch.zeros(size, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _median(lambda: target.copy_(source))


def time_network(
    packed: PackedModel, size: tuple[int, int], device: torch.device, residual: Residual = "float32"
) -> Timing:
    """The whole network on one image of (H, W)."""
    network = Network(packed, device, residual)
    x = torch.rand((1, packed.spec.channels, *size), device=device)
    floor = traffic(packed.spec, residual) * size[0] * size[1] / bandwidth(device)
    with torch.inference_mode():
        return Timing(
            f"{packed.spec.arch} x{packed.spec.scale}, {residual} residual", _median(lambda: network(x)), floor
        )


def time_tunings(
    packed: PackedModel, size: tuple[int, int], device: torch.device, residual: Residual = "float32"
) -> Iterator[Timing]:
    """The first layer of the body on (H, W) pixels in every tuning that the device can run."""
    network = Network(packed, device, residual)
    layer = network.first
    dtype = torch.float32 if residual == "float32" else torch.float16
    stream = torch.zeros((1, *size, FEATURES), dtype=dtype, device=device)
    words = torch.randint(-(2**31), 2**31 - 1, (1, *size, 2), dtype=torch.int32, device=device)
    floor = 2 * size[0] * size[1] * (64 * dtype.itemsize + 8) / bandwidth(device)
    for tuning in TUNINGS:

        def run(tuning: kernels.Tuning = tuning) -> object:
            return kernels.binary_unit(stream, words, layer, layer.threshold, tuning=tuning)

        try:
            milliseconds = _median(run)
        except triton.runtime.errors.OutOfResources:  # more shared memory than a program may have on this GPU
            continue
        yield Timing(f"binary layer, {residual} residual, {tuning}", milliseconds, floor)
