"""Compile the Triton kernels without a GPU; prints, as JSON, what became of each. Run by test_triton_kernels.py."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

try:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
except ImportError as error:
    sys.stderr.write(f"no Triton with its CUDA compiler: {error}")
    sys.exit(77)

from bbcu_cli.engines import triton_kernels as kernels

TYPES = {
    "x": "*fp32", "out": "*fp32", "stream": "*fp32", "stream_out": "*fp32", "words": "*i32", "words_out": "*i32",
    "alpha": "*fp32", "beta": "*fp32", "slope": "*fp32", "b1": "*fp32", "bias": "*fp32", "threshold": "*fp32",
    "height": "i32", "width": "i32", "k": "fp32", "leak": "fp32", "gain": "fp32",
}  # fmt: skip
CASES: list[tuple[str, int, dict[str, str], dict[str, Any]]] = [
    ("head", 90, {"taps": "*fp32"}, {"channels": 3}),
    ("binary_unit", 90, {"taps": "*i8"}, {"step": 1, "last": False}),
    ("binary_unit", 80, {"taps": "*i8"}, {"step": 2, "last": False}),
    ("float_unit", 90, {"taps": "*fp16", "stream": "*fp16", "stream_out": "*fp16"}, {"step": 2}),
    ("tail", 90, {"taps": "*fp16", "stream": "*fp16"}, {"scale": 4, "channels": 3}),
]

report = {}
for name, architecture, types, constants in CASES:
    kernel = getattr(kernels, f"_{name}")
    tuning = kernels.BINARY if name in ("head", "binary_unit") else kernels.FLOAT
    values = constants | {"block": tuning.block}
    signature = {arg: "constexpr" if arg in values else (TYPES | types)[arg] for arg in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, arg in enumerate(kernel.arg_names) if signature[arg][0] == "*"}
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(n),): v for n, v in values.items()}, aligned)
    done = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=tuning.options)
    report[f"{name} sm_{architecture}"] = {
        "instructions": sorted(set(re.findall(r"\b(?:wgmma\.mma_async|mma\.sync|fma)\.[\w.]+", done.asm["ptx"]))),
        "machine_code": len(done.asm["cubin"]),
        "shared": done.metadata.shared,
    }
sys.stdout.write(json.dumps(report))
