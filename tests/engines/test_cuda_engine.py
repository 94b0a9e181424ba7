"""The packed CUDA engine: whole networks against the reference engine, and what it does when it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from gpu import INTERPRETED, on_both  # first: decides how Triton runs
from small import SMALL_SPECS, small_model

from bbcu_cli.bench import cuda_timing
from bbcu_cli.engines import cuda
from bbcu_cli.engines.cuda import CudaEngine, CudaSession, traffic
from bbcu_cli.engines.reference import ReferenceEngine
from bbcu_cli.errors import EngineUnavailableError, OutOfMemoryError
from bbcu_cli.spec import DENOISE_SPEC, ModelSpec, sr_spec

needs_gpu = [pytest.mark.cuda, pytest.mark.skipif(INTERPRETED, reason="needs an NVIDIA GPU")]


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of the difference, full scale 1."""
    return float(-10 * np.log10(((a - b).astype(np.float64) ** 2).mean()))


def image(rng: np.random.Generator, spec: ModelSpec, *size: int) -> np.ndarray:
    """Noise, (1, C, H, W) or (N, C, H, W)."""
    n, h, w = size if len(size) == 3 else (1, *size)
    return rng.random((n, spec.channels, h, w), dtype=np.float32)


@on_both
@pytest.mark.parametrize("name", SMALL_SPECS)
def test_network_agrees_with_the_reference(device: str, name: str, rng: np.random.Generator) -> None:
    """Over 60 dB for every architecture and scale: float16 products in the float convolutions are all that differs."""
    spec = SMALL_SPECS[name]
    model = small_model(spec)
    x = image(rng, spec, 2, 4)
    with CudaEngine(device).open(model) as session:
        y = session.run(x)
    assert y.dtype == np.float32
    assert y.shape == (1, spec.channels, 2 * spec.scale, 4 * spec.scale)
    assert decibels(y, ReferenceEngine("cpu").open(model).run(x)) > 60


@on_both
@pytest.mark.parametrize("name", ["m-x2", "l-x2", "denoise"])
def test_float16_residual_stays_close(device: str, name: str, rng: np.random.Generator) -> None:
    """The faster stream costs agreement, on a small network a few dB, and never more than turned signs explain."""
    spec = SMALL_SPECS[name]
    model = small_model(spec)
    x = image(rng, spec, 5, 7)
    engine = CudaEngine(device, residual="float16")
    assert "float16 residual" in engine.info.detail
    assert decibels(engine.open(model).run(x), ReferenceEngine("cpu").open(model).run(x)) > 55


@on_both
@pytest.mark.parametrize(("name", "size"), [("m-x2", (3, 19)), ("deblock", (17, 6))])
def test_tile_with_halo_equals_whole_image(
    device: str, name: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """A tile cut out with its halo gives the pixels of the whole image; on a GPU to the bit.

    In the interpreter numpy multiplies, and the order in which it sums a row depends on where the row stands.
    """
    spec = SMALL_SPECS[name]
    session = CudaEngine(device).open(small_model(spec))
    x = image(rng, spec, *size)
    axis = 2 + int(np.argmax(size))
    keep = size[axis - 2] - spec.halo - 2  # a core of the first pixels, halo behind it, cut at the front by the image
    tile = session.run(np.ascontiguousarray(np.take(x, range(keep + spec.halo), axis)))
    core = range(keep * spec.scale)
    whole = session.run(x)
    np.testing.assert_allclose(
        np.take(tile, core, axis), np.take(whole, core, axis), rtol=0, atol=2e-6 if INTERPRETED else 0
    )


@on_both
def test_batch_equals_single_images(device: str, rng: np.random.Generator) -> None:
    """Images of a batch do not see each other, not even at their borders."""
    spec = SMALL_SPECS["denoise"]
    session = CudaEngine(device).open(small_model(spec))
    x = image(rng, spec, 2, 4, 7)
    np.testing.assert_array_equal(session.run(x), np.concatenate([session.run(x[:1]), session.run(x[1:])]))


@on_both
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1)])
def test_images_smaller_than_the_halo(device: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    """One pixel, one row, one column."""
    spec = SMALL_SPECS["m-x2"]
    model = small_model(spec)
    x = image(rng, spec, *size)
    assert decibels(CudaEngine(device).open(model).run(x), ReferenceEngine("cpu").open(model).run(x)) > 60


def test_engine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, a GPU that is too old, no Triton, an old Triton: each has its sentence, and opening raises it."""
    gpu: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "get_device_capability": (7, 5),
        "get_device_name": "T4",
    }
    for name, value in gpu.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert CudaEngine("cuda:0").info.unavailable == "T4 has compute capability 7.5, 8.0 is needed"
    assert CudaEngine("cuda:1").info.unavailable == "there are only 1 CUDA devices"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert CudaEngine("cuda:0").info.unavailable == "torch sees no NVIDIA GPU"
    monkeypatch.setattr(cuda.triton, "__version__", "3.2.0")
    assert CudaEngine("cuda:0").info.unavailable == "Triton 3.2.0 is older than 3.4, which comes with torch 2.8"
    monkeypatch.setattr(cuda, "triton", None)
    assert CudaEngine("cuda:0").info.unavailable == "Triton is not installed"
    with pytest.raises(EngineUnavailableError, match="Triton is not installed"):
        CudaEngine("cuda:0").open(small_model(SMALL_SPECS["denoise"]))


def test_other_widths_are_left_to_the_reference() -> None:
    """A network of other than 64 features is refused when it is opened."""
    model = small_model(ModelSpec("bbcu-dncnn", "denoise", 1, 3, features=32, blocks=1))
    with pytest.raises(EngineUnavailableError, match="64 features, this network has 32"):
        CudaEngine("cpu" if INTERPRETED else "cuda:0").open(model)


def test_broken_toolchain_makes_the_engine_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton needs a C compiler on the machine; without it opening fails, not the restoration."""

    def fail(*_: object) -> np.ndarray:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    monkeypatch.setattr(CudaSession, "run", fail)
    with pytest.raises(EngineUnavailableError, match=r"first run failed: Failed to find C compiler\.$"):
        CudaEngine("cpu" if INTERPRETED else "cuda:0").open(small_model(SMALL_SPECS["denoise"]))


def test_traffic_counts_streams_and_signs() -> None:
    """By hand: a denoiser of 18 layers in float16, and BBCU-M x4 in float32."""
    assert traffic(DENOISE_SPEC, "float16") == 12 + 136 + 17 * 2 * 136 + (136 + 128) + (128 + 12) + 12
    body = 12 + 264 + 31 * 2 * 264
    up = 5 * 264 + 4 * 5 * 264
    assert traffic(sr_spec("m", 4)) == body + 2 * 264 + up + 16 * (264 + 128) + 16 * (128 + 12) + 12
    assert traffic(sr_spec("l", 2)) == body + (264 + 128) + 5 * 128 + 4 * 2 * 128 + 4 * (128 + 12) + 12


@on_both
def test_timings_come_with_their_floor(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench of a GPU: every tuning runs, and the floor is the traffic over the bandwidth."""
    if INTERPRETED:  # a clock there is none: what is timed takes a millisecond

        def tick(run: Callable[[], object]) -> float:
            run()
            return 1.0

        monkeypatch.setattr(cuda_timing, "_median", tick)
    monkeypatch.setattr(cuda_timing, "bandwidth", lambda _device: 1000.0)
    model = small_model(SMALL_SPECS["denoise"])
    timings = list(cuda_timing.time_tunings(model, (2, 3), torch.device(device)))
    assert [t.floor for t in timings] == [2 * 6 * 264 / 1000] * len(cuda_timing.TUNINGS)
    whole = cuda_timing.time_network(model, (2, 3), torch.device(device), "float16")
    assert whole.milliseconds > 0
    assert whole.floor == traffic(model.spec, "float16") * 6 / 1000


@pytest.mark.usefixtures("gpu_memory")
class TestOnHardware:
    """What only a GPU has: recorded graphs, streams, and an end to its memory."""

    pytestmark = needs_gpu

    @pytest.fixture
    def gpu_memory(self) -> Iterator[None]:
        """Whatever a test did to the limit is undone."""
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)

    @pytest.mark.parametrize(
        "spec", [sr_spec("m", 4), sr_spec("l", 4), DENOISE_SPEC], ids=lambda s: f"{s.arch}-{s.scale}"
    )
    def test_published_networks_agree_with_the_reference(self, spec: ModelSpec, rng: np.random.Generator) -> None:
        """Full depth, random weights, over 60 dB."""
        model = small_model(spec)
        x = image(rng, spec, 2, 61, 83)
        assert decibels(CudaEngine().open(model).run(x), ReferenceEngine("cpu").open(model).run(x)) > 60

    def test_recorded_graph_equals_the_first_run(self, rng: np.random.Generator) -> None:
        """The second image of a shape records, the third replays; shapes in turn do not disturb each other."""
        spec = SMALL_SPECS["m-x4"]
        model = small_model(spec)
        session = CudaEngine().open(model)
        images = [image(rng, spec, h, 40) for h in (20, 33, 20, 33, 20, 33, 20)]
        for x in images:
            np.testing.assert_array_equal(session.run(x), CudaEngine().open(model).run(x))

    def test_threads_share_a_session(self, rng: np.random.Generator) -> None:
        """Eight threads at once get their own images back."""
        spec = SMALL_SPECS["m-x2"]
        session = CudaEngine().open(small_model(spec))
        images = [image(rng, spec, 64, 64 + i % 3) for i in range(64)]
        expected = [session.run(x) for x in images]
        with ThreadPoolExecutor(8) as pool:
            for result, right in zip(pool.map(session.run, images), expected, strict=True):
                np.testing.assert_array_equal(result, right)

    def test_out_of_memory_is_named_and_leaves_the_session_usable(self, rng: np.random.Generator) -> None:
        """A tile that does not fit raises; a smaller one then runs."""
        spec = SMALL_SPECS["m-x4"]
        session = CudaEngine().open(small_model(spec))
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((1 << 30) / total)
        with pytest.raises(OutOfMemoryError, match="2000x2000"):
            session.run(image(rng, spec, 2000, 2000))
        assert session.run(image(rng, spec, 50, 50)).shape == (1, 3, 200, 200)
