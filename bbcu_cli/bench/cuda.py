"""The CUDA engine on the GPU at hand, beside the float simulation in torch and the floor of its memory bandwidth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from triton.testing import do_bench

from bbcu_cli.bench.cuda_timing import Timing, time_network, time_tunings
from bbcu_cli.bench.engines import random_model
from bbcu_cli.checkpoint.pack import unpack
from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.models.build import build_model
from bbcu_cli.spec import ModelSpec


def run_cuda_bench(spec: ModelSpec, size: tuple[int, int], device: str) -> Iterator[Timing]:
    """Time one image of `size` (H, W) on a CUDA device: medians, without copies to and from the host.

    Yields:
        The packed network with either residual, float simulation in eager float32 and in compiled half (their floor is
        0: unknown), then the first binary layer in every tuning.
    """
    packed = random_model(spec)
    place = torch.device(device)
    yield time_network(packed, size, place, "float32")
    yield time_network(packed, size, place, "float16")
    yield from _simulations(packed, size, place)
    yield from time_tunings(packed, size, place)


def _simulations(packed: PackedModel, size: tuple[int, int], device: torch.device) -> Iterator[Timing]:
    module = build_model(packed.spec).eval().to(device)
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in unpack(packed).items()})
    x = torch.rand((1, packed.spec.channels, *size), device=device)
    exact, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield Timing("float simulation, eager float32", _median(module, x), 0)
    finally:
        torch.backends.cudnn.allow_tf32 = exact
    half: nn.Module = module.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(half)
    x = x.half().to(memory_format=torch.channels_last)
    yield Timing("float simulation, torch.compile, float16, channels_last", _median(compiled, x), 0)


@torch.inference_mode()
def _median(network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    return float(do_bench(lambda: network(x), rep=500, return_mode="median"))
