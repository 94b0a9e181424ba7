"""Engines side by side on one input, in one run, against what the hardware allows. Never imports torch by itself."""

from __future__ import annotations

import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.checkpoint.packed import BinaryConv, Conv, FloatConv, PackedModel
from bbcu_cli.cores import checked_threads, usable_cpus
from bbcu_cli.engines.base import EngineInfo, Session
from bbcu_cli.engines.cpu import CpuEngine, measure_layer
from bbcu_cli.errors import WITHOUT_TORCH, UsageError, require_torch
from bbcu_cli.spec import ModelSpec

LAYERS: Final = 33  # rows in flight in a network with 32 body units: what the caches must hold
LAYER_RUNS: Final = 15
# Seconds before a timed run: idle threads of OpenMP and TBB spin on for a while and would take a CPU from it.
PAUSE: Final = 0.1

# A sign flips where float rounding moves a value across its threshold; each flip moves pixels by far less than this
# share of the output's range, and engines that compute different things differ by more.
AGREEMENT: Final = 0.05
# Rounding to 8 bits of mantissa flips many more; it is shown beside the time.
AGREEMENT_BFLOAT16: Final = 0.25


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One fused 64 -> 64 binary layer on one thread, nanoseconds per pixel (medians).

    Attributes:
        roofline: the bare +-1 product, measured in turn with `fused`.
        fused: with affine part, activation, residual and packing.
    """

    kernels: str
    width: int
    roofline: float
    fused: float

    @property
    def share(self) -> float:
        """What the fused layer reaches of the roofline, 0..1."""
        return self.roofline / self.fused


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine on the whole network.

    Attributes:
        engine: name, device and kernel set or library.
        threads: CPU threads.
        seconds: median; `fastest` and `slowest` of the same runs.
        layer_ns: thread-nanoseconds per input pixel and binary layer; None when float layers dominate the network,
            and for another network.
        roofline_share: roofline over layer_ns; None with layer_ns, or for an engine without a roofline.
        difference: largest absolute difference from the first row's output; None for another network.
        peak_bytes: memory that the process took at its peak beyond what it held before; None when unknown.
    """

    engine: str
    threads: int
    seconds: float
    fastest: float
    slowest: float
    layer_ns: float | None
    roofline_share: float | None
    difference: float | None
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What `run_bench` measured. `machine` is the processor's name; sizes are (height, width)."""

    machine: str
    model: str
    size: tuple[int, int]
    runs: int
    layer: LayerRow | None
    engines: tuple[EngineRow, ...]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the ratios that a reader would compute."""
        slowest = max(row.seconds for row in self.engines)
        height, width = self.size
        fields = {"schema": 2, **asdict(self), "size": {"width": width, "height": height}}
        for row, source in zip(fields["engines"], self.engines, strict=True):
            row["speedup"] = slowest / source.seconds
        if self.layer is not None:
            fields["layer"]["roofline_share"] = self.layer.share
        return fields


def binary_layers(spec: ModelSpec) -> float | None:
    """Work per input pixel in units of one 64 -> 64 binary layer; None where float convolutions dominate (bbcu-l)."""
    if spec.arch == "bbcu-l":
        return None
    layers, size = float(spec.blocks), 1
    for step in spec.up_steps:
        layers += size * size * step * step
        size *= step
    return layers + (size * size if spec.task == "sr" else 0)


def random_model(spec: ModelSpec, seed: int = 0) -> PackedModel:
    """A network of that spec with weights drawn at random: time does not depend on them."""
    rng = np.random.default_rng(seed)
    n = spec.features

    def floats(*shape: int, scale: float = 1.0, offset: float = 0.0) -> NDArray[np.float32]:
        return (offset + scale * rng.standard_normal(shape)).astype(np.float32)

    def float_conv(c_out: int, c_in: int, *, bias: bool) -> FloatConv:
        return FloatConv(
            floats(c_out, c_in, 3, 3, scale=(2 / (9 * c_in)) ** 0.5), floats(c_out, scale=0.5) if bias else None
        )

    def binary_conv(c_out: int) -> BinaryConv:
        unused = np.uint64(spec.words * 64 - n)
        signs = rng.integers(0, 2**64, (c_out, 3, 3, spec.words), np.uint64)
        signs[..., -1] >>= unused
        return BinaryConv(
            signs=signs,
            alpha=np.abs(floats(c_out, scale=0.01, offset=0.05)),
            shift=floats(n, scale=5),
            bias=floats(c_out, scale=0.5) if spec.bias else None,
            b0=floats(c_out, scale=5),
            slope=floats(c_out, scale=0.05, offset=0.25),
            b1=floats(c_out, scale=5),
        )

    def up(c_out: int) -> Conv:
        return float_conv(c_out, n, bias=True) if spec.arch == "bbcu-l" else binary_conv(c_out)

    sr = spec.task == "sr"
    return PackedModel(
        spec=spec,
        head=float_conv(n, spec.channels, bias=sr or spec.bias),
        body=tuple(binary_conv(n) for _ in range(spec.blocks)),
        up=tuple(up(n * step * step) for step in spec.up_steps),
        hr=up(n) if sr else None,
        tail=float_conv(spec.channels, n, bias=sr or spec.bias),
        provenance={"source": "random"},
    )


def _status_bytes(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), None)


def _peak_of(work: Callable[[], NDArray[np.float32]]) -> tuple[NDArray[np.float32], int | None]:
    """The result of `work`, and how far it raised the memory of this process; None where Linux does not tell."""
    before = _status_bytes("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    except OSError:
        before = None
    result = work()
    peak = _status_bytes("VmHWM")
    return result, None if before is None or peak is None else max(0, peak - before)


def _layer(kernels: str, width: int) -> LayerRow:
    pairs = [measure_layer(kernels, width, LAYERS) for _ in range(LAYER_RUNS)]
    # The median of the share, not the share of medians: each pair was measured under the same clock.
    share = statistics.median(bare / fused for bare, fused in pairs)
    roofline = statistics.median(bare for bare, _ in pairs)
    return LayerRow(kernels, width, roofline, roofline / share)


def _sessions(
    packed: PackedModel, size: tuple[int, int], threads: int, *, reference: bool, peers: bool
) -> Iterator[tuple[Session | str, int]]:
    """Engines to compare, or why one is missing, each with its threads. torch is imported last."""
    for count in (1, threads) if threads > 1 else (1,):
        info = CpuEngine(count).info
        yield (f"{info.name}: {info.unavailable}" if info.unavailable else CpuEngine(count).open(packed)), count
    if reference and importlib.util.find_spec("torch") is None:
        yield f"reference: {WITHOUT_TORCH}", threads
    elif reference:
        from bbcu_cli.engines.reference import ReferenceEngine

        yield ReferenceEngine("cpu", threads).open(packed), threads
    if peers:
        require_torch("--peers")
        from bbcu_cli.bench.ncnn import other_sessions
        from bbcu_cli.bench.peers import peer_sessions

        yield from ((session, threads) for session in peer_sessions(packed, size, threads))
        yield from ((session, usable_cpus()) for session in other_sessions(packed.spec))


def _difference(session: Session, output: NDArray[np.float32], first: NDArray[np.float32]) -> float:
    """The largest difference of two outputs of one network, which has to be small."""
    difference = float(np.abs(output - first).max())
    agreement = AGREEMENT_BFLOAT16 if "bf16" in session.info.detail else AGREEMENT
    if difference > agreement * float(np.ptp(first)):
        raise UsageError(f"{_label(session.info)} differs from the first engine by {difference:.3g}; nothing timed.")
    return difference


def _label(info: EngineInfo) -> str:
    return f"{info.name} ({info.detail})"


def machine_name() -> str:
    """The processor as the system calls it, and how many CPUs this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{model}, {usable_cpus()} CPUs"


def run_bench(
    name: str,
    spec: ModelSpec,
    size: tuple[int, int],
    *,
    runs: int = 5,
    threads: int | None = None,
    reference: bool = True,
    peers: bool = False,
) -> BenchReport:
    """Run every engine once to warm up and to compare outputs, then `runs` rounds in turn; medians.

    Args:
        name: of the model, for the report.
        spec: the network; its weights are random.
        size: (height, width) of the input.
        runs: rounds, at least 1.
        threads: CPU threads; None: `default_threads()`. The packed engine also runs on one.
        reference: whether to run the float simulation in torch, too.
        peers: whether to run the published code's way and other runtimes, too; see `bench_peers`.

    Raises:
        UsageError: no engine could run, a size or count is out of range, or outputs disagree.
    """
    threads = checked_threads(threads)
    if min(*size, runs) < 1:
        raise UsageError(f"Size {size} and {runs} runs must all be at least 1.")
    packed = random_model(spec)
    height, width = size
    x = np.random.default_rng(1).random((1, spec.channels, height, width), dtype=np.float32)

    kernels = CpuEngine(1).kernel
    layer = _layer(kernels, width) if kernels else None
    opened: list[tuple[Session, int]] = []
    missing: list[str] = []
    outputs: list[tuple[float | None, int | None]] = []
    first: NDArray[np.float32] | None = None
    for session, count in _sessions(packed, size, threads, reference=reference, peers=peers):
        if isinstance(session, str):
            missing.append(session)
            continue
        output, peak = _peak_of(lambda session=session: session.run(x))  # type: ignore[misc]
        first = output if first is None else first
        difference = _difference(session, output, first) if getattr(session, "same_network", True) else None
        opened.append((session, count))
        outputs.append((difference, peak))
    if not opened:
        raise UsageError("No engine can run here: " + "; ".join(missing) + ".")

    seconds: list[list[float]] = [[] for _ in opened]
    for _ in range(runs):
        for taken, (session, _) in zip(seconds, opened, strict=True):
            time.sleep(PAUSE)
            start = time.perf_counter()
            session.run(x)
            taken.append(time.perf_counter() - start)

    rows = []
    layers = binary_layers(spec)
    for (session, count), taken, (difference, peak) in zip(opened, seconds, outputs, strict=True):
        median = statistics.median(taken)
        ns = None if layers is None or difference is None else median * count * 1e9 / (height * width * layers)
        share = layer.roofline / ns if layer and ns and session.info.name == "packed" else None
        rows.append(EngineRow(_label(session.info), count, median, min(taken), max(taken), ns, share, difference, peak))
    return BenchReport(machine_name(), name, size, runs, layer, tuple(rows), tuple(missing))
