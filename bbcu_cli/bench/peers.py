"""What else runs these networks, for `bbcu bench --peers`: the published code's way, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bbcu_cli.checkpoint.onnx import INPUT, OUTPUT, FoldedUnit, add_residual, network_of, to_onnx
from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.engines.base import EngineInfo, Progress, Session, SessionContext
from bbcu_cli.engines.select import open_session
from bbcu_cli.models.binary import BinaryUnit

_Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class PeerSession(SessionContext):
    """A peer as a session, so that it is timed like an engine.

    Attributes:
        same_network: whether its output has to be that of the engines.
    """

    def __init__(self, name: str, detail: str, run: _Run, *, same_network: bool = True) -> None:
        self.info = EngineInfo(name, "cpu", detail)
        self.same_network = same_network
        self._run = run

    def run(self, x: NDArray[np.float32], progress: Progress | None = None) -> NDArray[np.float32]:  # noqa: ARG002 - none knows
        return self._run(x)


class PublishedUnit(nn.Module):
    """A binary unit computed the way the published code computes it, in inference as in training.

    Straight-through estimators are written there as arithmetic on values: v = exact - surrogate + surrogate. The
    surrogate of the sign is a polynomial in pieces, each made with its own mask and whole tensors; weights are scaled,
    signed and clipped anew for every image. The numbers are those of `BinaryUnit` up to rounding; the time is not.

    Source: Zj-BinXia/BBCU, quant_convs_bbcu.py.
    """

    def __init__(self, unit: BinaryUnit) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, S*H, S*W)."""
        unit, conv = self.unit, self.unit.binary_conv
        weight = self._weight(conv.weight)
        y = unit.relu(F.conv2d(self._signs(x + unit.move0.bias.expand_as(x)), weight, conv.bias, padding=1))
        return add_residual(x, y, unit.step)

    @staticmethod
    def _signs(x: Tensor) -> Tensor:
        exact = torch.where(x >= 0, 1.0, -1.0)
        low, middle, high = ((x < edge).type(torch.float32) for edge in (-1, 0, 1))
        surrogate = (x * x + 2 * x) * (1 - low) - low
        surrogate = surrogate * middle + (2 * x - x * x) * (1 - middle)
        surrogate = surrogate * high + (1 - high)
        return exact - surrogate + surrogate

    @staticmethod
    def _weight(weight: Tensor) -> Tensor:
        alpha = weight.abs().mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)
        clipped = weight.clamp(-1, 1)
        return alpha * torch.where(weight >= 0, 1.0, -1.0) - clipped + clipped


def _published(packed: PackedModel, threads: int) -> PeerSession:
    module = network_of(packed, PublishedUnit)

    @torch.no_grad()
    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        torch.set_num_threads(threads)
        output: NDArray[np.float32] = module(torch.from_numpy(x)).numpy()
        return output

    return PeerSession("published code's way", f"torch {torch.__version__}, float32", run)


def _onnxruntime(packed: PackedModel, size: tuple[int, int], threads: int) -> PeerSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(to_onnx(packed, size), options, providers=["CPUExecutionProvider"])

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        [output] = session.run([OUTPUT], {INPUT: x})
        return np.asarray(output)

    return PeerSession("ONNX Runtime", f"{onnxruntime.__version__}, float32", run)


def _openvino(packed: PackedModel, size: tuple[int, int], threads: int, precision: str) -> PeerSession:
    import openvino

    example = torch.zeros(1, packed.spec.channels, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about constants
        converted = openvino.convert_model(network_of(packed, FoldedUnit), example_input=example, input=[example.shape])
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled: Any = openvino.compile_model(converted, "CPU", settings)
    version = openvino.__version__.partition("-")[0]
    return PeerSession("OpenVINO", f"{version}, {precision}", lambda x: np.array(compiled(x)[0]))


def peer_sessions(packed: PackedModel, size: tuple[int, int], threads: int) -> Iterator[Session | str]:
    """Peers that can run here, or one sentence for each that cannot.

    Args:
        packed: the network.
        size: (height, width) of the input; exported networks are compiled for it.
        threads: CPU threads of each.
    """
    yield _published(packed, threads)
    if absent := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        yield f"ONNX Runtime: {' and '.join(absent)} not installed"
    else:
        yield _onnxruntime(packed, size, threads)
    if importlib.util.find_spec("openvino") is None:
        yield "OpenVINO: openvino not installed"
    else:
        yield from (_openvino(packed, size, threads, precision) for precision in ("f32", "bf16"))


def onnx_difference(content: bytes, packed: PackedModel) -> float | None:
    """The mean difference between an ONNX file in ONNX Runtime and bbcu's own engine on the CPU.

    Both restore noise of an odd size, other than that of the export's example. Where a number is all but on the
    threshold of a sign, rounding decides, and single samples may differ by more than the mean tells.

    Returns:
        In units of the picture's range, 0..1; None where onnxruntime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    x = np.random.default_rng(0).random((1, packed.spec.channels, 47, 61), dtype=np.float32)
    [theirs] = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run([OUTPUT], {INPUT: x})
    session, _ = open_session(packed, device="cpu")
    try:
        return float(np.abs(np.asarray(theirs) - session.run(x)).mean())
    finally:
        session.close()
