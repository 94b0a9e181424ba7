"""Where the Triton kernels are tested: on an NVIDIA GPU where there is one, else in Triton's interpreter.

Imported before Triton, which chooses between the two when a kernel is defined.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

triton = pytest.importorskip("triton", reason="Triton exists for Linux only")
if (
    INTERPRETED
    and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
    and np.lib.NumpyVersion(np.__version__) >= "2.4.0"
):
    pytest.skip("Triton's interpreter before 3.7 breaks with numpy 2.4", allow_module_level=True)

DEVICES = [
    pytest.param(
        "cpu", marks=pytest.mark.skipif(not INTERPRETED, reason="the kernels run on the GPU"), id="interpreter"
    ),
    pytest.param(
        "cuda:0",
        marks=[pytest.mark.cuda, pytest.mark.skipif(INTERPRETED, reason="needs an NVIDIA GPU")],
        id="cuda",
    ),
]
on_both = pytest.mark.parametrize("device", DEVICES)
