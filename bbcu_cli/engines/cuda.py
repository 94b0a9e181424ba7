"""The packed CUDA engine: a PackedModel on an NVIDIA GPU, one fused Triton kernel per layer."""

from __future__ import annotations

import subprocess
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbcu_cli.checkpoint.pack import unpack_signs
from bbcu_cli.checkpoint.packed import BinaryConv, Conv, FloatConv, PackedModel
from bbcu_cli.engines.base import EngineInfo, Progress, SessionContext
from bbcu_cli.errors import EngineError, EngineUnavailableError, OutOfMemoryError
from bbcu_cli.spec import FEATURES, LEAK, ModelSpec

try:
    import triton

    from bbcu_cli.engines import triton_kernels as kernels
except ImportError:  # not on every platform; `_unavailable` says so
    triton = None

Residual = Literal["float32", "float16"]

TRITON: Final = (3, 4)
CAPABILITY: Final = (8, 0)  # int8 tensor cores as Triton uses them: Ampere and later
GRAPHS: Final = 8  # input shapes whose CUDA graph is kept: interior, edges and corners of a tiled image
GRAPH_PIXELS: Final = 1 << 18  # beyond, the kernels take longer than their launches, and a graph gains nothing


def traffic(spec: ModelSpec, residual: Residual = "float32") -> int:
    """Bytes that this engine must move through device memory per input pixel: the bandwidth floor.

    Every layer's stream and signs once in and once out, weights and halos not counted.
    """
    binary = FEATURES * np.dtype(residual).itemsize + 8
    half = FEATURES * 2
    image = 4 * spec.channels
    m, area = spec.arch == "bbcu-m", 1
    total = image + binary * (1 + 2 * spec.blocks)
    if not m:
        total += half - binary  # the last layer of the body writes float16, and no signs
    fine = binary if m else half
    for step in spec.up_steps:
        total += fine * area * (1 + step * step)
        area *= step * step
    if spec.task == "sr":
        total += area * (fine + half)  # conv_hr
    return total + area * (half + image) + image  # the last convolution and the skip


def _float_layer(conv: FloatConv, step: int, device: torch.device) -> kernels.FloatLayer:
    """For `float_unit`: output channel c * step**2 + i is channel c of sub-pixel i (PixelShuffle)."""
    sub = step * step
    taps = conv.weight.reshape(FEATURES, sub, FEATURES, 9).transpose(1, 3, 2, 0)
    bias = np.zeros(FEATURES * sub, np.float32) if conv.bias is None else conv.bias
    return kernels.FloatLayer(_on(device, taps.astype(np.float16)), _on(device, bias.reshape(FEATURES, sub).T), step)


def _head_layer(conv: FloatConv, device: torch.device) -> kernels.FloatLayer:
    channels = conv.weight.shape[1]
    taps = np.zeros((32, FEATURES), np.float32)
    taps[: 9 * channels] = conv.weight.reshape(FEATURES, channels, 9).transpose(2, 1, 0).reshape(-1, FEATURES)
    bias = np.zeros(FEATURES, np.float32) if conv.bias is None else conv.bias
    return kernels.FloatLayer(_on(device, taps), _on(device, bias), 1)


def _tail_layer(conv: FloatConv, device: torch.device) -> kernels.FloatLayer:
    channels = conv.weight.shape[0]
    taps = np.zeros((9, FEATURES, 16), np.float16)
    taps[..., :channels] = conv.weight.reshape(channels, FEATURES, 9).transpose(2, 1, 0)
    bias = np.zeros(16, np.float32)
    if conv.bias is not None:
        bias[:channels] = conv.bias
    return kernels.FloatLayer(_on(device, taps), _on(device, bias), 1)


def _binary_layer(conv: BinaryConv, step: int, device: torch.device) -> kernels.BinaryLayer:
    """Output channels by sub-pixel as in `_float_layer`; input channels in the order of the unpacked signs."""
    sub = step * step
    signs = unpack_signs(conv.signs, FEATURES).reshape(FEATURES, sub, FEATURES, 9).transpose(1, 3, 0, 2)
    taps = signs[..., kernels.sign_order()].astype(np.int8)

    def by_sub_pixel(values: NDArray[np.float32]) -> Tensor:
        return _on(device, values.reshape(FEATURES, sub).T)

    beta = conv.b0 if conv.bias is None else conv.bias + conv.b0
    return kernels.BinaryLayer(
        taps=_on(device, taps),
        alpha=by_sub_pixel(conv.alpha),
        beta=by_sub_pixel(beta),
        slope=by_sub_pixel(conv.slope),
        b1=by_sub_pixel(conv.b1),
        threshold=_on(device, -conv.shift),
        step=step,
    )


def _on(device: torch.device, array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.array(array, order="C")).to(device)


class Network:
    """The kernels of one network in order, with its weights on the device."""

    def __init__(self, packed: PackedModel, device: torch.device, residual: Residual) -> None:
        self.spec = packed.spec
        self._dtype = torch.float32 if residual == "float32" else torch.float16
        self._head = _head_layer(packed.head, device)
        self._tail = _tail_layer(packed.tail, device)
        self._binary = [_binary_layer(conv, 1, device) for conv in packed.body]
        self._float: list[kernels.FloatLayer] = []
        steps = self.spec.up_steps
        rest: list[tuple[Conv, int]] = list(zip(packed.up, steps, strict=True))
        if packed.hr is not None:
            rest.append((packed.hr, 1))
        for conv, step in rest:
            if isinstance(conv, BinaryConv):
                self._binary.append(_binary_layer(conv, step, device))
            else:
                self._float.append(_float_layer(conv, step, device))

    @property
    def first(self) -> kernels.BinaryLayer:
        """The first binary layer: what tunings are compared on."""
        return self._binary[0]

    def __call__(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W), contiguous, on the device -> (N, C, S*H, S*W). Launches only, never waits."""
        spec = self.spec
        sr = spec.task == "sr"
        first, *others = self._binary
        stream, words = kernels.head(
            x, self._head, first.threshold, k=spec.k, leak=LEAK if sr else 0.0, dtype=self._dtype
        )
        # In bbcu-m the last binary layer is conv_hr, and a LeakyReLU follows it.
        leak = LEAK if spec.arch == "bbcu-m" else 1.0
        for layer, follower in zip(self._binary, [*others, None], strict=True):
            threshold = None if follower is None else follower.threshold
            stream, words = kernels.binary_unit(stream, words, layer, threshold, leak=leak)
        for convolution in self._float:
            stream = kernels.float_unit(stream, convolution, leak=LEAK)
        return kernels.tail(stream, self._tail, x, gain=(1 if sr else -1) / spec.k)


@dataclass(frozen=True, slots=True)
class _Graph:
    """A recorded run over one input shape, with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    x: Tensor
    y: Tensor


class CudaSession(SessionContext):
    """A model on one GPU. Threads may share it: while one waits for its result, the next one's tile is computed."""

    def __init__(self, packed: PackedModel, info: EngineInfo, residual: Residual) -> None:
        self.info = info
        self._device = torch.device(info.device)
        self._network = Network(packed, self._device, residual)
        self._cuda = self._device.type == "cuda"
        if self._cuda:
            self._compute: torch.cuda.Stream = torch.cuda.Stream(self._device)
            self._copy: torch.cuda.Stream = torch.cuda.Stream(self._device)
            self._compute.wait_stream(torch.cuda.current_stream(self._device))  # for the weights
            self._pool = torch.cuda.graph_pool_handle()  # all graphs share their intermediate maps
        self._launching = threading.Lock()
        self._graphs: OrderedDict[tuple[int, ...], _Graph | None] = OrderedDict()

    def run(self, x: NDArray[np.float32], progress: Progress | None = None) -> NDArray[np.float32]:  # noqa: ARG002 - it does not know
        with torch.inference_mode():
            if not self._cuda:
                return self._network(torch.from_numpy(x)).numpy()
            try:
                return self._run(x)
            except torch.cuda.OutOfMemoryError as error:
                self._forget()
                raise OutOfMemoryError(
                    f"{self.info.device} ran out of memory on {x.shape[0]} tile(s) of {x.shape[-2]}x{x.shape[-1]}."
                ) from error

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pinned memory on both sides, so that copies run beside the kernels; the result is a view of it."""
        staged = torch.empty(x.shape, pin_memory=True).copy_(torch.from_numpy(x))
        with self._launching, torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            y = self._launch(staged)
            computed = self._compute.record_event()
        host = torch.empty(y.shape, pin_memory=True)
        with torch.cuda.device(self._device), torch.cuda.stream(self._copy):
            self._copy.wait_event(computed)
            host.copy_(y, non_blocking=True)
            copied = self._copy.record_event()
        copied.synchronize()
        return host.numpy()

    def _launch(self, staged: Tensor) -> Tensor:
        """A small tile of a shape seen before is one recorded graph, everything else runs kernel by kernel."""
        n, _, height, width = shape = tuple(staged.shape)
        if shape not in self._graphs or n * height * width > GRAPH_PIXELS:
            self._graphs[shape] = None
            if len(self._graphs) > GRAPHS:
                self._graphs.popitem(last=False)
            return self._network(staged.to(self._device, non_blocking=True))
        recorded = self._graphs.pop(shape) or self._record(shape)
        self._graphs[shape] = recorded
        recorded.x.copy_(staged, non_blocking=True)
        recorded.graph.replay()
        # A copy of its own, so that the next replay need not wait until this result has left the device.
        return recorded.y.clone()

    def _record(self, shape: tuple[int, ...]) -> _Graph:
        x = torch.empty(shape, device=self._device)
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread may be copying its result out meanwhile.
        with torch.cuda.graph(graph, self._pool, self._compute, capture_error_mode="thread_local"):
            y = self._network(x)
        return _Graph(graph, x, y)

    def _forget(self) -> None:
        """Give the memory of recorded graphs and of the allocator back."""
        with self._launching:
            self._graphs.clear()
            if self._cuda:
                torch.cuda.synchronize(self._device)
                torch.cuda.empty_cache()

    def close(self) -> None:
        self._forget()


def _unavailable(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device; None when they can."""
    if triton is None:
        return "Triton is not installed"
    if tuple(map(int, triton.__version__.split(".")[:2])) < TRITON:
        return f"Triton {triton.__version__} is older than 3.4, which comes with torch 2.8"
    if device.type != "cuda":
        return None if triton.knobs.runtime.interpret else "Triton kernels need a CUDA device"
    return _unusable_gpu(device.index or 0)


def _unusable_gpu(index: int) -> str | None:
    if torch.version.cuda is None or not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    if index >= torch.cuda.device_count():
        return f"there are only {torch.cuda.device_count()} CUDA devices"
    major, minor = torch.cuda.get_device_capability(index)
    if (major, minor) < CAPABILITY:
        return f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}, 8.0 is needed"
    return None


class CudaEngine:
    """Fused Triton kernels on `device` ("cuda", "cuda:N"; "cpu" under Triton's interpreter, for tests).

    Args:
        device: where to run.
        residual: type of the residual stream between the layers. float16 nearly halves the memory traffic, but its
            rounding turns signs over: the result is 59 to 66 dB from the float32 simulation on the embedded weights,
            against 93 to 106 dB with float32.
    """

    def __init__(self, device: str = "cuda:0", residual: Residual = "float32") -> None:
        self._residual: Residual = residual
        place = torch.device(device)
        detail = f"triton {triton.__version__ if triton else 'missing'}, int8 products, {residual} residual"
        # Two maps: the stream before and behind the last up-sampling step; signs and float16 maps fit beside.
        self.info = EngineInfo("packed", device, detail, _unavailable(place), feature_maps=2, concurrency=2)

    def open(self, packed: PackedModel) -> CudaSession:
        reason = self.info.unavailable
        if reason is None and packed.spec.features != FEATURES:
            reason = f"its kernels are made for {FEATURES} features, this network has {packed.spec.features}"
        if reason:
            raise EngineUnavailableError(f"Engine packed on {self.info.device}: {reason}.")
        session = CudaSession(packed, self.info, self._residual)
        try:  # the kernels are compiled here, so that a toolchain that does not work cannot fail a restoration
            session.run(np.zeros((1, packed.spec.channels, 1, 1), np.float32))
        except (triton.TritonError, RuntimeError, OSError, subprocess.SubprocessError, EngineError) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise EngineUnavailableError(f"Engine packed on {self.info.device}: a first run failed: {why}") from error
        return session
