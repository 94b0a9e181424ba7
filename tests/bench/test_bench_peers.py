"""What `bbcu bench --peers` compares with computes the same networks."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from small import SMALL_SPECS, small_model

from bbcu_cli.bench.peers import FoldedUnit, PeerSession, PublishedUnit, network_of, peer_sessions
from bbcu_cli.engines.reference import ReferenceEngine


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
