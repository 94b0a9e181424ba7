"""Every Triton kernel against plain torch, in the interpreter or on a GPU; and compiled for two architectures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gpu import on_both  # first: decides how Triton runs

from bbcu_cli.checkpoint.pack import pack_signs
from bbcu_cli.checkpoint.packed import BinaryConv, FloatConv
from bbcu_cli.engines import triton_kernels as kernels
from bbcu_cli.engines.cuda import _binary_layer, _float_layer, _head_layer, _tail_layer

# One pixel, one row, one column, a block cut short, and several blocks with a program that takes more than one.
SIZES = [(1, 1), (1, 9), (7, 1), (5, 7), (9, 23)]


def words_of(negative: torch.Tensor) -> torch.Tensor:
    """What numpy packs of bool (N, 64, H, W): int32 (N, H, W, 2)."""
    bits = negative.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return torch.from_numpy(np.packbits(bits, axis=-1, bitorder="little").view(np.int32))


def nhwc(x: torch.Tensor, device: str) -> torch.Tensor:
    """A copy as the kernels take it, which they may overwrite."""
    return x.permute(0, 2, 3, 1).contiguous().to(device, copy=True)


def nchw(x: torch.Tensor) -> torch.Tensor:
    """As torch takes it, on the CPU."""
    return x.permute(0, 3, 1, 2).cpu()


def floats(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Standard normal float32."""
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def binary_conv(rng: np.random.Generator, step: int, *, exact: bool = False) -> tuple[BinaryConv, torch.Tensor]:
    """A layer and its weight as +-1; an exact one passes the integer counts through."""
    c_out = 64 * step * step
    weight = rng.standard_normal((c_out, 64, 3, 3)).astype(np.float32)

    def vector(scale: float, offset: float) -> np.ndarray:
        value = rng.standard_normal(c_out) * scale + offset
        return (np.full(c_out, offset) if exact else value).astype(np.float32)

    conv = BinaryConv(
        signs=pack_signs(weight),
        alpha=np.abs(vector(0.02, 1.0 if exact else 0.05)),
        shift=(3 * rng.standard_normal(64)).astype(np.float32),
        bias=None if exact else vector(0.5, 0.0),
        b0=vector(0.5, 0.0),
        slope=vector(0.1, 1.0 if exact else 0.25),
        b1=vector(0.5, 0.0),
    )
    return conv, torch.from_numpy(np.where(weight < 0, -1.0, 1.0).astype(np.float32))


@on_both
@pytest.mark.parametrize("size", SIZES)
def test_binary_product_is_exact_with_zero_padding(
    device: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """With neutral parameters a layer returns the integer counts, borders included; a count of 0 is a +1."""
    conv, signs = binary_conv(rng, 1, exact=True)
    layer = _binary_layer(conv, 1, torch.device(device))
    x = floats(rng, 2, 64, *size)
    nothing = torch.zeros(2, *size, 64, device=device)
    out, words = kernels.binary_unit(nothing, words_of(x < 0).to(device), layer, torch.zeros(64, device=device))
    expected = F.conv2d(torch.where(x < 0, -1.0, 1.0), signs, padding=1)
    assert torch.equal(nchw(out), expected)
    assert torch.equal(words.cpu(), words_of(expected < 0))


@on_both
@pytest.mark.parametrize(("step", "size"), [(1, (9, 23)), (2, (1, 1)), (2, (3, 7)), (3, (2, 5))])
def test_binary_unit_equals_float_simulation(
    device: str, step: int, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """Affine, RPReLU, PixelShuffle, skip: float32 to rounding; and the signs are those of the stream it wrote."""
    conv, signs = binary_conv(rng, step)
    shift = 3 * floats(rng, 64)
    x = 5 * floats(rng, 2, 64, *size)
    out, words = kernels.binary_unit(
        nhwc(x, device), words_of(x < 0).to(device), _binary_layer(conv, step, torch.device(device)), -shift.to(device)
    )

    def channels(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).double()[:, None, None]

    y = F.conv2d(torch.where(x < 0, -1.0, 1.0), signs, padding=1).double() * channels(conv.alpha)
    y = F.prelu(y + channels(conv.bias + conv.b0), torch.from_numpy(conv.slope).double()) + channels(conv.b1)
    skip = x.double().repeat_interleave(step, 2).repeat_interleave(step, 3)
    expected = F.pixel_shuffle(y, step) + skip
    torch.testing.assert_close(nchw(out).double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(words.cpu(), words_of(nchw(out) + shift[:, None, None] < 0))


@on_both
@pytest.mark.parametrize("leak", [1.0, 0.1])
def test_last_binary_unit_applies_the_leak_and_rounds(device: str, leak: float, rng: np.random.Generator) -> None:
    """Behind the last layer there are no signs, and what the float convolutions read is float16."""
    conv, _ = binary_conv(rng, 1)
    layer = _binary_layer(conv, 1, torch.device(device))
    x = floats(rng, 1, 64, 4, 5)
    words = words_of(x < 0).to(device)
    plain, _ = kernels.binary_unit(nhwc(x, device), words, layer, layer.threshold)
    last, _ = kernels.binary_unit(nhwc(x, device), words, layer, None, leak=leak)
    assert (plain < 0).any()
    assert torch.equal(last, F.leaky_relu(plain, leak).half())


@on_both
def test_float16_stream_is_the_rounded_float32_stream(device: str, rng: np.random.Generator) -> None:
    """float16 rounds what is stored; the signs are taken before the rounding."""
    conv, _ = binary_conv(rng, 2)
    layer = _binary_layer(conv, 2, torch.device(device))
    x = floats(rng, 1, 64, 3, 5).half()
    words = words_of(x < 0).to(device)
    wide, wide_signs = kernels.binary_unit(nhwc(x.float(), device), words, layer, layer.threshold)
    half, half_signs = kernels.binary_unit(nhwc(x, device), words, layer, layer.threshold)
    assert half.dtype == torch.float16
    assert torch.equal(half, wide.half())
    assert torch.equal(half_signs, wide_signs)


@on_both
@pytest.mark.parametrize("tuning", [kernels.Tuning(32, 4, 1, 255, 1), kernels.Tuning(128, 8, 2, 128, 3)], ids=str)
def test_tuning_changes_no_result(device: str, tuning: kernels.Tuning, rng: np.random.Generator) -> None:
    """Blocks and warps are a matter of speed."""
    conv, _ = binary_conv(rng, 1)
    layer = _binary_layer(conv, 1, torch.device(device))
    x = floats(rng, 1, 64, 5, 31)
    words = words_of(x < 0).to(device)
    expected = kernels.binary_unit(nhwc(x, device), words, layer, layer.threshold)
    result = kernels.binary_unit(nhwc(x, device), words, layer, layer.threshold, tuning=tuning)
    assert torch.equal(result[0], expected[0])
    assert torch.equal(result[1], expected[1])


@on_both
@pytest.mark.parametrize(("channels", "leak", "size"), [(1, 0.0, (1, 1)), (1, 0.0, (5, 7)), (3, 0.1, (9, 23))])
def test_head_equals_float_convolution(
    device: str, channels: int, leak: float, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """Convolution of x * k and its activation in float32, and the signs of the result."""
    conv = FloatConv(floats(rng, 64, channels, 3, 3).numpy(), floats(rng, 64).numpy())
    x, shift = torch.from_numpy(rng.random((2, channels, *size), dtype=np.float32)), 30 * floats(rng, 64)
    stream, words = kernels.head(
        x.to(device),
        _head_layer(conv, torch.device(device)),
        -shift.to(device),
        k=130.0,
        leak=leak,
        dtype=torch.float32,
    )
    y = F.conv2d(
        130 * x.double(), torch.from_numpy(conv.weight).double(), torch.from_numpy(conv.bias).double(), padding=1
    )
    torch.testing.assert_close(nchw(stream).double(), F.leaky_relu(y, leak), rtol=1e-6, atol=2e-4)
    assert torch.equal(words.cpu(), words_of(nchw(stream) + shift[:, None, None] < 0))


@on_both
@pytest.mark.parametrize(("step", "size"), [(1, (9, 23)), (2, (1, 1)), (2, (3, 7)), (3, (2, 5))])
def test_float_unit_equals_float_convolution(
    device: str, step: int, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """Both factors rounded to float16, summed in float32, and rounded once more: half a unit of float16."""
    conv = FloatConv(floats(rng, 64 * step * step, 64, 3, 3).numpy() / 24, floats(rng, 64 * step * step).numpy())
    x = 50 * floats(rng, 2, 64, *size)
    out = kernels.float_unit(nhwc(x.half(), device), _float_layer(conv, step, torch.device(device)), leak=0.1)
    weight = torch.from_numpy(conv.weight).half().double()
    y = F.conv2d(x.half().double(), weight, torch.from_numpy(conv.bias).double(), padding=1)
    expected = F.leaky_relu(F.pixel_shuffle(y, step), 0.1)
    assert out.dtype == torch.float16
    torch.testing.assert_close(nchw(out).double(), expected, rtol=2**-11 * 1.01, atol=1e-4)


@on_both
@pytest.mark.parametrize(("scale", "size"), [(1, (1, 1)), (1, (9, 23)), (2, (3, 7)), (3, (1, 5)), (4, (3, 4))])
def test_tail_equals_convolution_plus_bilinear_skip(
    device: str, scale: int, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """The last convolution in float16 products and float32 sums, the skip as torch interpolates it."""
    channels = 1 if scale == 1 else 3
    conv = FloatConv(
        floats(rng, channels, 64, 3, 3).numpy() / 24, None if scale == 1 else floats(rng, channels).numpy()
    )
    x = torch.from_numpy(rng.random((2, channels, *size), dtype=np.float32))
    stream = 50 * floats(rng, 2, 64, scale * size[0], scale * size[1])
    gain = -1 / 130
    out = kernels.tail(nhwc(stream.half(), device), _tail_layer(conv, torch.device(device)), x.to(device), gain=gain)
    bias = None if conv.bias is None else torch.from_numpy(conv.bias).double()
    y = F.conv2d(stream.half().double(), torch.from_numpy(conv.weight).half().double(), bias, padding=1)
    skip = F.interpolate(x.double(), scale_factor=scale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(out.cpu().double(), skip + gain * y, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, object]]:
    """Every kernel compiled to machine code in a process of its own: no GPU is needed for that."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parents[1] / "compile_kernels.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("kernel", "instruction"),
    [
        ("binary_unit sm_90", "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8"),
        ("binary_unit sm_80", "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32"),
        ("float_unit sm_90", "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16"),
        ("tail sm_90", "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16"),
        ("head sm_90", "fma.rn.f32"),
    ],
)
def test_kernel_compiles_to_the_intended_instructions(
    compiled: dict[str, dict[str, object]], kernel: str, instruction: str
) -> None:
    """int8 and float16 tensor cores where meant, and every program fits into shared memory."""
    assert instruction in compiled[kernel]["instructions"]
    assert compiled[kernel]["shared"] <= 100 << 10
