"""The four layer kinds of the networks as fused Triton kernels, each with its launcher and grid.

Between the layers live two things only: the residual stream, (N, H, W, 64) in float32 or float16 (behind the last
binary layer always float16), and the signs
that the next binary layer reads, int32 (N, H, W, 2): bit j of word i is channel 32*i + j, 1 means -1. A kernel
walks over blocks of `Tuning.block` consecutive pixels of one image, a program taking every n-th block, so that the
weights go to shared memory once per program.

Why +-1 in int8 on tensor cores, and not xor + popcount. One binary layer at one pixel is 36,864 multiply-adds; in
clocks of one H100 multiprocessor (132 of them, 1.755 GHz, 3.35 TB/s):

    memory   float32 stream read and written, 8 bytes of signs in and out: 528 bytes        36
             float16 stream: 272 bytes                                                      19
    popcount 1,152 32-bit popcounts at 16 per clock, before any xor and add                 72
    int8     73,728 operations at 8,192 per clock                                            9
             unpacking 576 signs to bytes, two to three instructions per four signs          4
             all instructions of the compiled loop, at four per clock                       24

So memory decides with int8, and popcount would take longer than memory. fp8 has the rate of int8 but a
shortened accumulator, float16 half the rate and twice the bytes in shared memory; int8 is exact. The b1 form of the
tensor cores is not reachable from Triton and gone from Hopper in its xor form. These are figures on paper and from the
compiled code; `Tuning` is there to be measured.

Zero padding is exact: outside of the image a sign unpacks to 0.
"""

# Triton ships no types.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from bbcu_cli.spec import FEATURES

SIZES: Final = ("height", "width")  # one compiled kernel serves every image size


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a kernel is laid out on the device; changes its speed, never its result.

    Attributes:
        block: pixels that a program handles at a time, a power of two.
        warps: warps per program.
        programs: programs per multiprocessor, so many that registers and shared memory hold them at once.
        registers: most registers a thread may take.
        stages: 2 fetches the words of the next block while this one is computed; 1 does not.
    """

    block: int
    warps: int
    programs: int
    registers: int
    stages: int

    @property
    def options(self) -> dict[str, Any]:
        """For the compiler."""
        return {
            "num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers, "enable_fp_fusion": True,
        }  # fmt: skip


# Chosen from the code compiled for Hopper: as many programs as its registers (65,536) and shared memory (227 KB) hold.
BINARY: Final = Tuning(block=64, warps=4, programs=3, registers=168, stages=2)
FLOAT: Final = Tuning(block=128, warps=8, programs=2, registers=128, stages=1)  # 74 KB of weights in shared memory


@dataclass(frozen=True, slots=True)
class BinaryLayer:
    """A binary unit prepared for `binary_unit`; `step` is 1, or the factor of its PixelShuffle.

    Attributes:
        taps: int8 (step*step, 9, 64, 64), +-1; output channel, then input channel in the order of `sign_order`.
        alpha, beta, slope, b1: float32 (step*step, 64); beta is the bias of the convolution plus b0.
        threshold: float32 (64,), minus the learnable bias in front of the sign: a smaller input is negative.
    """

    taps: Tensor
    alpha: Tensor
    beta: Tensor
    slope: Tensor
    b1: Tensor
    threshold: Tensor
    step: int


@dataclass(frozen=True, slots=True)
class FloatLayer:
    """A full-precision convolution prepared for `head`, `float_unit` or `tail`.

    Attributes:
        taps: for `head` float32 (32, 64), row tap * C + input channel, zeros at the end; for `float_unit` float16
            (step*step, 9, 64, 64) and for `tail` float16 (9, 64, 16), input before output channel, zeros at the end.
        bias: float32 (step*step, 64), for `tail` (16,); zeros where the network has none.
        step: 1, or the factor of the PixelShuffle.
    """

    taps: Tensor
    bias: Tensor
    step: int


def sign_order() -> list[int]:
    """Channel at each position along the inner axis of the product, as `_unpack` lays the signs out."""
    # A channel is 32 * word + 8 * byte + 2 * pair + odd; the order is odd, word, pair, byte.
    return [int(c) for c in np.arange(64).reshape(2, 4, 4, 2).transpose(3, 0, 2, 1).reshape(-1)]


@cache
def _multiprocessors(device: torch.device) -> int:
    """Of the device; under Triton's interpreter so few that every program meets several blocks."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _grid(like: Tensor, images: int, area: int, step: int, tuning: Tuning) -> tuple[int, int, int]:
    """(step*step, programs, images): the sub-pixels of one block run side by side and share what they read."""
    wanted = triton.cdiv(_multiprocessors(like.device) * tuning.programs, step * step * images)
    return step * step, min(triton.cdiv(area, tuning.block), wanted), images


@triton.jit
def _unpack(words: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """int32 (M, 2) and bool (M,) -> int8 (M, 64): +1, -1 for a set bit, 0 outside of the image; see `sign_order`.

    Four bytes at a time: of bit b of every byte of a word, (word >> b & 0x01010101) * 0xFE + 0x01010101 makes four
    signs without a carry. Two neighbouring bits share one shift.
    """
    pixels: tl.constexpr = words.shape[0]
    odd = tl.arange(0, 2)[None, :, None, None]
    pair = tl.arange(0, 4)[None, None, None, :]
    ones = (inside.to(tl.int32) * 0x01010101)[:, None, None, None]
    bits = words[:, None, :, None] >> (2 * pair)
    signs = (bits & (0x01010101 << odd)) * (0xFE >> odd) + ones
    even_bytes = tl.join(signs.to(tl.int8), (signs >> 16).to(tl.int8))
    odd_bytes = tl.join((signs >> 8).to(tl.int8), (signs >> 24).to(tl.int8))
    return tl.reshape(tl.join(even_bytes, odd_bytes), (pixels, 64))


@triton.jit
def _nine(taps: tl.tensor, size: tl.constexpr) -> tl.tuple:
    """The weights of nine taps that lie `size` apart, from pointers to the first; loaded once, for all blocks."""
    weights = ()
    for tap in tl.static_range(9):
        weights = weights + (tl.load(taps + tap * size),)  # type: ignore[assignment]  # noqa: RUF005
    return weights


@triton.jit
def _store_signs(words: tl.tensor, pixel: tl.tensor, here: tl.tensor, v: tl.tensor, threshold: tl.tensor) -> None:
    """Pack v < threshold, (M, 64) against (64,), into two words per pixel."""
    c = tl.arange(0, 64)
    bits = (v < tl.load(threshold + c)[None, :]).to(tl.int32) << (c % 32)[None, :]
    packed = tl.sum(tl.reshape(bits, (v.shape[0], 2, 32)), 2)
    tl.store(words + pixel[:, None] * 2 + tl.arange(0, 2)[None, :], packed, here[:, None])


@triton.jit(do_not_specialize=SIZES)
def _head(
    x: tl.tensor,
    taps: tl.tensor,
    bias: tl.tensor,
    threshold: tl.tensor,
    stream: tl.tensor,
    words: tl.tensor,
    height: int,
    width: int,
    k: float,
    leak: float,
    channels: tl.constexpr,
    block: tl.constexpr,
) -> None:
    image = tl.program_id(2).to(tl.int64)
    area = height * width
    c = tl.arange(0, 64)
    # One row per tap and channel, padded to 32 rows: the image is gathered into a (block, 32) matrix.
    entry = tl.arange(0, 32)[None, :]
    dy, dx, channel = entry // channels // 3 - 1, entry // channels % 3 - 1, entry % channels
    plane = x + (image * channels + channel) * area
    weights = tl.load(taps + tl.arange(0, 32)[:, None] * 64 + c[None, :])
    for index in tl.range(tl.program_id(1), tl.cdiv(area, block), tl.num_programs(1)):
        pixel = index * block + tl.arange(0, block)
        here = pixel < area
        y, z = (pixel // width)[:, None] + dy, (pixel % width)[:, None] + dx
        inside = here[:, None] & (entry < 9 * channels) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        near = tl.load(plane + (y * width + z), inside, 0.0) * k
        # In full float32, without tensor cores: a coarser head would turn signs over.
        acc = tl.dot(near, weights, input_precision="ieee") + tl.load(bias + c)[None, :]
        v = tl.where(acc >= 0, acc, acc * leak)
        target = image * area + pixel
        tl.store(stream + target[:, None] * 64 + c[None, :], v.to(stream.dtype.element_ty), here[:, None])
        _store_signs(words, target, here, v, threshold)


def head(
    x: Tensor,
    layer: FloatLayer,
    threshold: Tensor,
    *,
    k: float,
    leak: float,
    dtype: torch.dtype,
    tuning: Tuning = BINARY,
) -> tuple[Tensor, Tensor]:
    """LeakyReLU(conv(x * k)) in the precision of float32.

    Args:
        x: float32 (N, C, H, W), contiguous.
        layer: the first convolution.
        threshold: of the first binary layer.
        k: residual alignment.
        leak: negative slope; 0 is ReLU.
        dtype: of the residual stream, torch.float32 or torch.float16.
        tuning: layout on the device.

    Returns:
        The stream (N, H, W, 64) and its signs (N, H, W, 2).
    """
    n, channels, h, w = x.shape
    stream = torch.empty((n, h, w, FEATURES), dtype=dtype, device=x.device)
    words = torch.empty((n, h, w, 2), dtype=torch.int32, device=x.device)
    _head[_grid(x, n, h * w, 1, tuning)](
        x, layer.taps, layer.bias, threshold, stream, words, h, w, k, leak,
        channels=channels, block=tuning.block, **tuning.options,
    )  # fmt: skip
    return stream, words


@triton.jit(do_not_specialize=SIZES)
def _binary_unit(
    stream: tl.tensor,
    words: tl.tensor,
    taps: tl.tensor,
    alpha: tl.tensor,
    beta: tl.tensor,
    slope: tl.tensor,
    b1: tl.tensor,
    threshold: tl.tensor,
    stream_out: tl.tensor,
    words_out: tl.tensor,
    height: int,
    width: int,
    leak: float,
    step: tl.constexpr,
    last: tl.constexpr,
    block: tl.constexpr,
) -> None:
    image = tl.program_id(2).to(tl.int64)
    sub = tl.program_id(0)
    area = height * width
    c = tl.arange(0, 64)
    channel = sub * 64 + c
    words += image * area * 2
    # Loaded as (in, out) from (out, in): the tensor cores want both factors contiguous along the inner axis.
    weights = _nine(taps + sub * (9 * 4096) + c[None, :] * 64 + c[:, None], 4096)
    for index in tl.range(tl.program_id(1), tl.cdiv(area, block), tl.num_programs(1)):
        pixel = index * block + tl.arange(0, block)
        row, column = pixel // width, pixel % width
        here = pixel < area
        x = tl.load(stream + (image * area + pixel)[:, None] * 64 + c[None, :], here[:, None], 0.0)
        acc = tl.zeros((block, 64), tl.int32)
        for tap in tl.static_range(9):
            y, z = row + (tap // 3 - 1), column + (tap % 3 - 1)
            inside = here & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            packed = tl.load(words + (y * width + z)[:, None] * 2 + tl.arange(0, 2)[None, :], inside[:, None], 0)
            acc = tl.dot(_unpack(packed, inside), weights[tap], acc, out_dtype=tl.int32)
        v = acc.to(tl.float32) * tl.load(alpha + channel)[None, :] + tl.load(beta + channel)[None, :]
        v = tl.where(v >= 0, v, v * tl.load(slope + channel)[None, :]) + tl.load(b1 + channel)[None, :]
        v += x.to(tl.float32)
        if last:
            v = tl.where(v >= 0, v, v * leak)
        target = image * area * (step * step) + (row * step + sub // step) * (width * step) + column * step + sub % step
        tl.store(stream_out + target[:, None] * 64 + c[None, :], v.to(stream_out.dtype.element_ty), here[:, None])
        if not last:
            _store_signs(words_out, target, here, v, threshold)


def binary_unit(
    stream: Tensor,
    words: Tensor,
    layer: BinaryLayer,
    threshold: Tensor | None,
    *,
    leak: float = 1.0,
    tuning: Tuning = BINARY,
) -> tuple[Tensor, Tensor]:
    """RPReLU(BinConv) plus the skip: BBCU-B with step 1, BBCU-U (PixelShuffle, nearest skip) with a larger one.

    Args:
        stream: (N, H, W, 64); overwritten by a layer of step 1 that is not the last one.
        words: its signs, int32 (N, H, W, 2).
        layer: the weights.
        threshold: of the next binary layer; None when no binary layer follows.
        leak: negative slope of a LeakyReLU behind the last binary layer, 1 for none; used without `threshold` only.
        tuning: layout on the device.

    Returns:
        The stream (N, step*H, step*W, 64) and its signs. After the last binary layer a float16 stream, which is what
        the float convolutions multiply, and the old words, of no use.
    """
    n, h, w, _ = stream.shape
    s = layer.step
    last = threshold is None
    dtype = torch.float16 if last else stream.dtype
    out = stream if s == 1 and not last else stream.new_empty((n, s * h, s * w, FEATURES), dtype=dtype)
    words_out = words if last else words.new_empty((n, s * h, s * w, 2))
    _binary_unit[_grid(stream, n, h * w, s, tuning)](
        stream, words, layer.taps, layer.alpha, layer.beta, layer.slope, layer.b1,
        layer.threshold if last else threshold, out, words_out, h, w, leak,
        step=s, last=last, block=tuning.block, **tuning.options,
    )  # fmt: skip
    return out, words_out


@triton.jit(do_not_specialize=SIZES)
def _float_unit(
    stream: tl.tensor,
    taps: tl.tensor,
    bias: tl.tensor,
    stream_out: tl.tensor,
    height: int,
    width: int,
    leak: float,
    step: tl.constexpr,
    block: tl.constexpr,
) -> None:
    image = tl.program_id(2).to(tl.int64)
    sub = tl.program_id(0)
    area = height * width
    c = tl.arange(0, 64)
    weights = _nine(taps + sub * (9 * 4096) + c[:, None] * 64 + c[None, :], 4096)
    for index in tl.range(tl.program_id(1), tl.cdiv(area, block), tl.num_programs(1)):
        pixel = index * block + tl.arange(0, block)
        row, column = pixel // width, pixel % width
        here = pixel < area
        acc = tl.zeros((block, 64), tl.float32)
        for tap in tl.static_range(9):
            y, z = row + (tap // 3 - 1), column + (tap % 3 - 1)
            inside = here & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            source = image * area + y * width + z
            x = tl.load(stream + source[:, None] * 64 + c[None, :], inside[:, None], 0.0)
            acc = tl.dot(x, weights[tap], acc)
        v = acc + tl.load(bias + sub * 64 + c)[None, :]
        v = tl.where(v >= 0, v, v * leak)
        target = image * area * (step * step) + (row * step + sub // step) * (width * step) + column * step + sub % step
        tl.store(stream_out + target[:, None] * 64 + c[None, :], v.to(tl.float16), here[:, None])


def float_unit(stream: Tensor, layer: FloatLayer, *, leak: float, tuning: Tuning = FLOAT) -> Tensor:
    """LeakyReLU(PixelShuffle(conv)), multiplied in float16 and summed in float32.

    Args:
        stream: float16 (N, H, W, 64).
        layer: the convolution and the factor of its PixelShuffle.
        leak: negative slope.
        tuning: layout on the device.

    Returns:
        float16 (N, step*H, step*W, 64).
    """
    n, h, w, _ = stream.shape
    s = layer.step
    out = torch.empty((n, s * h, s * w, FEATURES), dtype=torch.float16, device=stream.device)
    _float_unit[_grid(stream, n, h * w, s, tuning)](
        stream, layer.taps, layer.bias, out, h, w, leak,
        step=s, block=tuning.block, **tuning.options,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=SIZES)
def _tail(
    stream: tl.tensor,
    taps: tl.tensor,
    bias: tl.tensor,
    x: tl.tensor,
    out: tl.tensor,
    height: int,
    width: int,
    gain: float,
    scale: tl.constexpr,
    channels: tl.constexpr,
    block: tl.constexpr,
) -> None:
    image = tl.program_id(2).to(tl.int64)
    area = height * width
    low_height, low_width = height // scale, width // scale
    low_area = low_height * low_width
    c = tl.arange(0, 64)
    channel = tl.arange(0, 16)
    weights = _nine(taps + c[:, None] * 16 + channel[None, :], 1024)
    for index in tl.range(tl.program_id(1), tl.cdiv(area, block), tl.num_programs(1)):
        pixel = index * block + tl.arange(0, block)
        row, column = pixel // width, pixel % width
        here = pixel < area
        acc = tl.zeros((block, 16), tl.float32)
        for tap in tl.static_range(9):
            y, z = row + (tap // 3 - 1), column + (tap % 3 - 1)
            inside = here & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            source = image * area + y * width + z
            features = tl.load(stream + source[:, None] * 64 + c[None, :], inside[:, None], 0.0)
            acc = tl.dot(features, weights[tap], acc)
        # Bilinear, corners not aligned: sample at (row + 0.5) / scale - 0.5, clamped to the image.
        sample_y = tl.maximum((row + 0.5) / scale - 0.5, 0.0)
        sample_x = tl.maximum((column + 0.5) / scale - 0.5, 0.0)
        y0, x0 = sample_y.to(tl.int32), sample_x.to(tl.int32)
        y1, x1 = tl.minimum(y0 + 1, low_height - 1), tl.minimum(x0 + 1, low_width - 1)
        fy, fx = (sample_y - y0)[:, None], (sample_x - x0)[:, None]
        valid = here[:, None] & (channel < channels)[None, :]
        plane = x + ((image * channels + channel) * low_area)[None, :]
        top_left = tl.load(plane + (y0 * low_width + x0)[:, None], valid, 0.0)
        top_right = tl.load(plane + (y0 * low_width + x1)[:, None], valid, 0.0)
        bottom_left = tl.load(plane + (y1 * low_width + x0)[:, None], valid, 0.0)
        bottom_right = tl.load(plane + (y1 * low_width + x1)[:, None], valid, 0.0)
        top = top_left * (1 - fx) + top_right * fx
        bottom = bottom_left * (1 - fx) + bottom_right * fx
        v = top * (1 - fy) + bottom * fy + (acc + tl.load(bias + channel)[None, :]) * gain
        target = (image * channels + channel)[None, :] * area + pixel[:, None]
        tl.store(out + target, v, valid)


def tail(stream: Tensor, layer: FloatLayer, x: Tensor, *, gain: float, tuning: Tuning = FLOAT) -> Tensor:
    """bilinear(x) + gain * conv(stream); the convolution multiplies in float16 and sums in float32.

    Args:
        stream: float16 (N, S*H, S*W, 64).
        layer: the last convolution.
        x: the input of the network, float32 (N, C, H, W); at S = 1 the bilinear skip is x itself.
        gain: 1 / k, or -1 / k where the network predicts what to subtract.
        tuning: layout on the device.

    Returns:
        float32 (N, C, S*H, S*W).
    """
    n, h, w, _ = stream.shape
    channels = x.shape[1]
    out = torch.empty((n, channels, h, w), dtype=torch.float32, device=x.device)
    _tail[_grid(x, n, h * w, 1, tuning)](
        stream, layer.taps, layer.bias, x, out, h, w, gain,
        scale=h // x.shape[2], channels=channels, block=tuning.block, **tuning.options,
    )  # fmt: skip
    return out
