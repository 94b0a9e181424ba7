"""State dict <-> PackedModel, and the only owner of the bit order. No torch: tensors come as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbcu_cli.checkpoint.packed import BinaryConv, Conv, FloatConv, PackedModel, from_tensors
from bbcu_cli.errors import CheckpointError
from bbcu_cli.spec import ModelSpec

Arrays = Mapping[str, NDArray[Any]]


def pack_signs(weight: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Pack the signs of a binary convolution's weights along the input channels.

    Args:
        weight: latent weights, float32 (C_out, C_in, 3, 3).

    Returns:
        uint64 (C_out, 3, 3, ceil(C_in / 64)); bit j of word i is input channel 64*i + j, 1 means -1.
        Unused bits are 0. A weight of exactly 0 counts as +1.

    Raises:
        CheckpointError: the weight is not 4-D or not finite.

    Source: BBCU (ICLR 2023), section 3; the published HardBinaryConv.
    """
    if weight.ndim != 4 or not np.isfinite(weight).all():
        raise CheckpointError(f"A binary weight of shape {weight.shape} is not 4-D or not finite.")
    c_out, c_in, kh, kw = weight.shape
    words = -(-c_in // 64)
    negative = np.zeros((c_out, kh, kw, words * 64), dtype=bool)
    negative[..., :c_in] = (weight < 0).transpose(0, 2, 3, 1)
    packed = np.packbits(negative, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64)


def unpack_signs(signs: NDArray[np.uint64], c_in: int) -> NDArray[np.float32]:
    """Inverse of `pack_signs`: +1.0 / -1.0 as float32 (C_out, C_in, 3, 3)."""
    bits = np.unpackbits(signs.astype("<u8").view(np.uint8), axis=-1, bitorder="little")[..., :c_in]
    return np.ascontiguousarray((1 - 2 * bits.astype(np.float32)).transpose(0, 3, 1, 2))


def _layer_keys(spec: ModelSpec) -> tuple[str, list[str], list[str], str | None, str]:
    """State dict prefixes of head, body units, up-sampling, conv_hr and tail."""
    if spec.task == "sr":
        body = [f"body.{i // 2}.body.{i % 2}" for i in range(spec.blocks)]
        up = [f"upconv{i + 1}" for i in range(len(spec.up_steps))]
        return "conv_first", body, up, "conv_hr", "conv_last"
    return "model.0", [f"model.{i + 2}" for i in range(spec.blocks)], [], None, f"model.{spec.blocks + 2}"


def _float_tensors(state: Arrays, key: str) -> dict[str, NDArray[Any]]:
    tensors = {"weight": state[f"{key}.weight"]}
    return tensors | ({"bias": state[f"{key}.bias"]} if f"{key}.bias" in state else {})


def _binary_tensors(state: Arrays, key: str) -> dict[str, NDArray[Any]]:
    weight = state[f"{key}.binary_conv.weight"]
    tensors = {
        "signs": pack_signs(weight),
        "alpha": np.abs(weight, dtype=np.float64).mean(axis=(1, 2, 3)).astype(np.float32),
        "shift": state[f"{key}.move0.bias"].reshape(-1),
        "b0": state[f"{key}.relu.pr_bias0.bias"].reshape(-1),
        "slope": state[f"{key}.relu.pr_prelu.weight"].reshape(-1),
        "b1": state[f"{key}.relu.pr_bias1.bias"].reshape(-1),
    }
    bias = f"{key}.binary_conv.bias"
    return tensors | ({"bias": state[bias]} if bias in state else {})


def pack(spec: ModelSpec, state: Arrays, provenance: Mapping[str, str]) -> PackedModel:
    """Pack a state dict with the names of the published code.

    Args:
        spec: the network that the state dict is of (see `checkpoint.pth.infer_spec`).
        state: name -> float32 array, exactly the tensors of that network.
        provenance: free text by key, kept in the file.

    Raises:
        CheckpointError: a tensor does not fit the spec or is not finite.
    """
    head, body, up, hr, tail = _layer_keys(spec)
    tensors: dict[str, NDArray[Any]] = {}

    def add(name: str, parts: Mapping[str, NDArray[Any]]) -> None:
        tensors.update({f"{name}.{part}": value for part, value in parts.items()})

    def any_tensors(key: str) -> dict[str, NDArray[Any]]:
        return _float_tensors(state, key) if f"{key}.weight" in state else _binary_tensors(state, key)

    try:
        add("head", _float_tensors(state, head))
        units = [_binary_tensors(state, key) for key in body]
        add("body", {part: np.stack([unit[part] for unit in units]) for part in units[0]})
        for i, key in enumerate(up):
            add(f"up.{i}", any_tensors(key))
        if hr is not None:
            add("hr", any_tensors(hr))
        add("tail", _float_tensors(state, tail))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"The state dict does not fit {spec.arch} {spec.task}: {error}.") from error
    tensors = {n: t if t.dtype == np.uint64 else t.astype(np.float32) for n, t in tensors.items()}
    return from_tensors(spec, tensors, provenance, "Cannot pack the state dict")


def unpack(model: PackedModel) -> dict[str, NDArray[np.float32]]:
    """The state dict whose binary weights are alpha * sign: loads into `models.build_model(model.spec)`."""
    spec = model.spec
    head, body, up, hr, tail = _layer_keys(spec)
    state: dict[str, NDArray[np.float32]] = {}

    def add(key: str, conv: Conv) -> None:
        if isinstance(conv, FloatConv):
            state[f"{key}.weight"] = conv.weight
            if conv.bias is not None:
                state[f"{key}.bias"] = conv.bias
            return
        add_binary(key, conv)

    def add_binary(key: str, conv: BinaryConv) -> None:
        weight = conv.alpha[:, None, None, None] * unpack_signs(conv.signs, spec.features)
        state[f"{key}.binary_conv.weight"] = weight
        if conv.bias is not None:
            state[f"{key}.binary_conv.bias"] = conv.bias
        state[f"{key}.move0.bias"] = conv.shift.reshape(1, -1, 1, 1)
        state[f"{key}.relu.pr_bias0.bias"] = conv.b0.reshape(1, -1, 1, 1)
        state[f"{key}.relu.pr_prelu.weight"] = conv.slope
        state[f"{key}.relu.pr_bias1.bias"] = conv.b1.reshape(1, -1, 1, 1)

    add(head, model.head)
    for key, unit in zip(body, model.body, strict=True):
        add(key, unit)
    for key, conv in zip(up, model.up, strict=True):
        add(key, conv)
    if hr is not None and model.hr is not None:
        add(hr, model.hr)
    add(tail, model.tail)
    return state
