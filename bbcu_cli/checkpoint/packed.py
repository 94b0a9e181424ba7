"""PackedModel, the one form of a model that engines run, and its safetensors file.

The file format is described on one page of the README ("The packed format"). Reading trusts nothing:
whatever is wrong with a file is named, and a model that was read is valid.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bbcu_cli.errors import CheckpointError
from bbcu_cli.spec import ModelSpec

FORMAT: Final = "bbcu-packed"
VERSION: Final = "1"
MAX_FILE_BYTES: Final = 64 << 20  # BBCU-L x4, the largest, has 1.6 MB

Floats = NDArray[np.float32]
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class FloatConv:
    """A full-precision 3x3 convolution: weight float32 (C_out, C_in, 3, 3), bias float32 (C_out,) or None."""

    weight: Floats
    bias: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class BinaryConv:
    """A binary unit without its residual: PReLU(alpha * conv(sign(x + shift), signs) + bias + b0) + b1.

    Attributes:
        signs: uint64 (C_out, 3, 3, words); bit j of word i is input channel 64*i + j, 1 means -1.
            Unused bits are 0.
        alpha: float32 (C_out,), at least 0.
        shift: float32 (C_in,), the learnable bias in front of the sign.
        bias: float32 (C_out,) or None.
        b0, slope, b1: float32 (C_out,), the RPReLU.
    """

    signs: Words
    alpha: Floats
    shift: Floats
    bias: Floats | None
    b0: Floats
    slope: Floats
    b1: Floats


Conv = FloatConv | BinaryConv


@dataclass(frozen=True, slots=True, eq=False)
class PackedModel:
    """A whole network: what every engine opens.

    Attributes:
        spec: the architecture; which LeakyReLU, skip and PixelShuffle stand between the layers follows from it.
        head, body, up, hr, tail: the layers in order; `up` has one entry per up-sampling step, `hr` is conv_hr
            of the super-resolution networks and None in bbcu-dncnn. In bbcu-l, `up` and `hr` are FloatConv.
        provenance: where the weights come from, free text by key (source, data, recipe, steps, ...).
    """

    spec: ModelSpec
    head: FloatConv
    body: tuple[BinaryConv, ...]
    up: tuple[Conv, ...]
    hr: Conv | None
    tail: FloatConv
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Slot:
    """What one tensor of the file must be."""

    dtype: type
    shape: tuple[int, ...]


def _float_slots(name: str, c_in: int, c_out: int, *, bias: bool) -> Iterator[tuple[str, _Slot]]:
    yield f"{name}.weight", _Slot(np.float32, (c_out, c_in, 3, 3))
    if bias:
        yield f"{name}.bias", _Slot(np.float32, (c_out,))


def _binary_slots(name: str, spec: ModelSpec, c_out: int, lead: tuple[int, ...] = ()) -> Iterator[tuple[str, _Slot]]:
    yield f"{name}.signs", _Slot(np.uint64, (*lead, c_out, 3, 3, spec.words))
    yield f"{name}.shift", _Slot(np.float32, (*lead, spec.features))
    for part in ("alpha", *(("bias",) if spec.bias else ()), "b0", "slope", "b1"):
        yield f"{name}.{part}", _Slot(np.float32, (*lead, c_out))


def _layout(spec: ModelSpec) -> dict[str, _Slot]:
    """Name -> dtype and shape of every tensor that a file of that spec holds, no more and no less."""
    n, sr = spec.features, spec.task == "sr"
    biased = sr or spec.bias
    slots = dict(_float_slots("head", spec.channels, n, bias=biased))
    slots |= dict(_binary_slots("body", spec, n, (spec.blocks,)))
    float_up = spec.arch == "bbcu-l"
    layers = [(f"up.{i}", n * s * s) for i, s in enumerate(spec.up_steps)] + ([("hr", n)] if sr else [])
    for name, c_out in layers:
        slots |= dict(_float_slots(name, n, c_out, bias=True) if float_up else _binary_slots(name, spec, c_out))
    return slots | dict(_float_slots("tail", n, spec.channels, bias=biased))


def _binary_at(tensors: Mapping[str, NDArray[Any]], name: str, index: int | tuple[()] = ()) -> BinaryConv:
    def get(part: str) -> NDArray[Any]:
        return tensors[f"{name}.{part}"][index]

    return BinaryConv(
        signs=get("signs"),
        alpha=get("alpha"),
        shift=get("shift"),
        bias=get("bias") if f"{name}.bias" in tensors else None,
        b0=get("b0"),
        slope=get("slope"),
        b1=get("b1"),
    )


def _model(spec: ModelSpec, tensors: Mapping[str, NDArray[Any]], provenance: Mapping[str, str]) -> PackedModel:
    def float_at(name: str) -> FloatConv:
        return FloatConv(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    def any_at(name: str) -> Conv:
        return float_at(name) if f"{name}.weight" in tensors else _binary_at(tensors, name)

    return PackedModel(
        spec=spec,
        head=float_at("head"),
        body=tuple(_binary_at(tensors, "body", i) for i in range(spec.blocks)),
        up=tuple(any_at(f"up.{i}") for i in range(len(spec.up_steps))),
        hr=any_at("hr") if spec.task == "sr" else None,
        tail=float_at("tail"),
        provenance=provenance,
    )


def _parts(name: str, conv: Conv) -> Iterator[tuple[str, NDArray[Any]]]:
    for part in type(conv).__slots__:
        value = getattr(conv, part)
        if value is not None:
            yield f"{name}.{part}", value


def _tensors(model: PackedModel) -> dict[str, NDArray[Any]]:
    """Inverse of `_model`: body layers stacked along a new first axis, everything else by its name."""
    rows = [dict(_parts("body", conv)) for conv in model.body]
    tensors: dict[str, NDArray[Any]] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    singles = [("head", model.head), ("tail", model.tail), *((f"up.{i}", c) for i, c in enumerate(model.up))]
    if model.hr is not None:
        singles.append(("hr", model.hr))
    for name, conv in singles:
        tensors |= dict(_parts(name, conv))
    return tensors


def _validate(spec: ModelSpec, tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    layout = _layout(spec)
    if missing := sorted(layout.keys() - tensors.keys()):
        raise CheckpointError(f"{where}: tensor {missing[0]!r} is missing ({len(missing)} missing in all).")
    if surplus := sorted(tensors.keys() - layout.keys()):
        raise CheckpointError(f"{where}: unexpected tensor {surplus[0]!r} ({len(surplus)} in all).")
    unused = spec.words * 64 - spec.features
    for name, slot in layout.items():
        tensor = tensors[name]
        if tensor.dtype != slot.dtype or tensor.shape != slot.shape:
            raise CheckpointError(
                f"{where}: tensor {name!r} is {tensor.dtype} {tensor.shape}, "
                f"expected {np.dtype(slot.dtype)} {slot.shape}."
            )
        if slot.dtype is np.float32 and not np.isfinite(tensor).all():
            raise CheckpointError(f"{where}: tensor {name!r} holds a value that is not finite.")
        if name.endswith(".alpha") and (tensor < 0).any():
            raise CheckpointError(f"{where}: tensor {name!r} holds a negative value; alpha is a mean of magnitudes.")
        if name.endswith(".signs") and unused and (tensor[..., -1] >> np.uint64(64 - unused)).any():
            raise CheckpointError(f"{where}: tensor {name!r} has bits set beyond its {spec.features} channels.")


def from_tensors(
    spec: ModelSpec, tensors: Mapping[str, NDArray[Any]], provenance: Mapping[str, str], where: str
) -> PackedModel:
    """A validated PackedModel from named tensors (the names of the file format).

    Raises:
        CheckpointError: a tensor is missing, surplus, of another shape or type, not finite or out of range.
    """
    _validate(spec, tensors, where)
    return _model(spec, tensors, dict(provenance))


def to_bytes(model: PackedModel) -> bytes:
    """The model as the bytes of its file.

    Raises:
        CheckpointError: the model does not fit its own spec.
    """
    tensors = _tensors(model)
    _validate(model.spec, tensors, "Cannot write the model")
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "spec": json.dumps(model.spec.to_dict(), sort_keys=True),
        "provenance": json.dumps(dict(model.provenance), sort_keys=True),
    }
    return _canonical(save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}, metadata))


def _canonical(content: bytes) -> bytes:
    """The same file with a sorted header: safetensors writes metadata in random order, and a hash pins files."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def _text_map(text: str, key: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: metadata {key!r} is not a JSON object.")
    return value


@dataclass(frozen=True, slots=True, eq=False)
class PackedFile:
    """A packed model as it was read, once: what the hash is of is what the model was made of.

    Attributes:
        path: of the file.
        content: its bytes.
        model: what is in it, valid.
    """

    path: Path
    content: bytes
    model: PackedModel

    @property
    def sha256(self) -> str:
        """Of the content, 64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()


def read_packed(path: str | os.PathLike[str], *, sha256: str | None = None) -> PackedFile:
    """Read and validate a file of a packed model.

    Args:
        path: of the file.
        sha256: that its content must have, 64 hex digits; None takes any.

    Raises:
        CheckpointError: the file is unreadable or another one, no packed model, of a newer version, or invalid.
    """
    path = Path(path)
    where = f"Packed weights {path}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
            size = max(len(content), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read ({error.strerror or error}).") from error
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{where}: {size} bytes is more than any packed model has ({MAX_FILE_BYTES}).")
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise CheckpointError(f"{where}: the SHA-256 is {found}, expected {sha256}.")
    return PackedFile(path, content, from_bytes(content, where))


def load_packed(path: str | os.PathLike[str]) -> PackedModel:
    """The model in a packed file; errors as of `read_packed`."""
    return read_packed(path).model


def from_bytes(content: bytes, where: str) -> PackedModel:
    """Inverse of `to_bytes`.

    Args:
        content: of a file.
        where: how to call it in errors.

    Raises:
        CheckpointError: no packed model, of a newer version, or invalid.
    """
    try:
        tensors = load(content)  # checks that the header describes these bytes exactly
    except SafetensorError as error:
        raise CheckpointError(f"{where}: not a valid safetensors file ({error}).") from error
    except KeyError as error:
        raise CheckpointError(f"{where}: not a packed bbcu model (it holds values of type {error}).") from error
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    metadata = json.loads(header).get("__metadata__") or {}
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{where}: not a packed bbcu model (metadata format is {metadata.get('format')!r}); "
            "a published .pth is converted by `bbcu models convert`."
        )
    if metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{where}: format version {metadata.get('version')!r}, this bbcu reads version {VERSION}; update bbcu."
        )
    spec = ModelSpec.from_dict(_text_map(metadata.get("spec", ""), "spec", where))
    expected = sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in _layout(spec).values())
    if expected > len(content):
        raise CheckpointError(f"{where}: {len(content)} bytes cannot hold the {expected} that its spec asks for.")
    provenance = {str(k): str(v) for k, v in _text_map(metadata.get("provenance", "{}"), "provenance", where).items()}
    return from_tensors(spec, tensors, provenance, where)
