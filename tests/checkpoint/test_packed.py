"""The packed format: what was written comes back, and every way of lying in a file is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from small import SMALL_SPECS, small_model

from bbcu_cli.checkpoint.pack import pack_signs, unpack, unpack_signs
from bbcu_cli.checkpoint.packed import PackedModel, load_packed, to_bytes
from bbcu_cli.errors import CheckpointError

SPEC = SMALL_SPECS["m-x2"]


@given(st.integers(1, 3), st.integers(1, 130), st.integers(0, 2**31))
def test_signs_survive_packing(c_out: int, c_in: int, seed: int) -> None:
    """Bit j of word i is channel 64 i + j, 1 means -1, zero counts as +1, unused bits are 0."""
    weight = np.random.default_rng(seed).standard_normal((c_out, c_in, 3, 3)).astype(np.float32)
    weight[0, 0, 0, 0] = 0
    signs = pack_signs(weight)
    assert (unpack_signs(signs, c_in) == np.where(weight >= 0, 1, -1)).all()
    o, i, y, x = c_out - 1, c_in - 1, 2, 1
    assert (int(signs[o, y, x, i // 64]) >> (i % 64)) & 1 == int(weight[o, i, y, x] < 0)
    assert not (signs[..., -1] >> np.uint64((c_in - 1) % 64) >> np.uint64(1)).any()


def _write(tmp_path: Path, model: PackedModel) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(model))
    return path


@pytest.mark.parametrize("name", SMALL_SPECS)
def test_a_model_comes_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    """Spec, provenance and every tensor, to the bit."""
    model = small_model(SMALL_SPECS[name])
    again = load_packed(_write(tmp_path, model))
    assert (again.spec, dict(again.provenance)) == (model.spec, dict(model.provenance))
    before, after = unpack(model), unpack(again)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_writing_is_deterministic() -> None:
    """The same model is the same bytes, so that a hash can pin it."""
    assert to_bytes(small_model(SPEC)) == to_bytes(small_model(SPEC))


def _forge(
    tmp_path: Path, tensors: Callable[[dict[str, Any]], None] | None = None, header: dict[str, str] | None = None
) -> Path:
    """A file of the small model with tensors or metadata changed behind the writer's back."""
    content = to_bytes(small_model(SPEC))
    values = load(content)
    metadata = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]
    if tensors:
        tensors(values)
    path = tmp_path / "forged.safetensors"
    path.write_bytes(save(values, {k: v for k, v in (metadata | (header or {})).items() if v != ""}))
    return path


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing tensor": (lambda t: t.pop("body.alpha"), "'body.alpha' is missing"),
    "surplus tensor": (lambda t: t.update(extra=np.zeros(3, np.float32)), "unexpected tensor 'extra'"),
    "wrong shape": (
        lambda t: t.update({"tail.bias": np.zeros(4, np.float32)}),
        r"'tail.bias' is float32 \(4,\), expected",
    ),
    "wrong dtype": (lambda t: t.update({"tail.bias": np.zeros(3, np.float64)}), "'tail.bias' is float64"),
    "nan": (lambda t: t["body.b0"].__setitem__((0, 0), np.nan), "'body.b0' holds a value that is not finite"),
    "infinity": (
        lambda t: t["head.weight"].__setitem__((0, 0, 0, 0), np.inf),
        "'head.weight' holds a value that is not",
    ),
    "negative alpha": (lambda t: t["hr.alpha"].__setitem__(0, -1), "'hr.alpha' holds a negative value"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_tensor_is_named(lie: str, tmp_path: Path) -> None:
    """The reader says which tensor is wrong and how."""
    change, message = LIES[lie]

    def forge(tensors: dict[str, Any]) -> None:
        tensors.update({name: tensor.copy() for name, tensor in tensors.items()})
        change(tensors)

    with pytest.raises(CheckpointError, match=message):
        load_packed(_forge(tmp_path, forge))


def test_bits_beyond_the_channels_are_refused() -> None:
    """Unused bits are 0, so that a model has one packed form only."""
    spec = type(SPEC)("bbcu-dncnn", "denoise", 1, 3, features=60, blocks=1)
    model = small_model(spec)
    model.body[0].signs[0, 0, 0, 0] |= np.uint64(1 << 63)
    with pytest.raises(CheckpointError, match="bits set beyond its 60 channels"):
        to_bytes(model)


HEADERS = {
    "another format": ({"format": "gguf"}, "not a packed bbcu model"),
    "no format": ({"format": ""}, "not a packed bbcu model"),
    "newer version": ({"version": "2"}, "this bbcu reads version 1; update"),
    "spec is no JSON": ({"spec": "{"}, "'spec' is not a JSON object"),
    "spec is a list": ({"spec": "[]"}, "'spec' is not a JSON object"),
    "spec of an impossible network": ({"spec": json.dumps(SPEC.to_dict() | {"scale": 7})}, "scale 7 is impossible"),
    "spec of a larger network": ({"spec": json.dumps(SPEC.to_dict() | {"blocks": 200})}, "cannot hold"),
    "spec of a smaller network": ({"spec": json.dumps(SPEC.to_dict() | {"blocks": 2})}, "'body.[a-z0-9]+' is "),
    "provenance is no JSON": ({"provenance": "x"}, "'provenance' is not a JSON object"),
}


@pytest.mark.parametrize("lie", HEADERS)
def test_a_lying_header_is_named(lie: str, tmp_path: Path) -> None:
    """Format, version, spec and provenance are checked before a tensor is believed."""
    header, message = HEADERS[lie]
    with pytest.raises(CheckpointError, match=message):
        load_packed(_forge(tmp_path, header=header))


@pytest.mark.parametrize("size", [0, 7, 8, 100, 5000, -1])
def test_a_truncated_file_is_refused(size: int, tmp_path: Path) -> None:
    """Cut anywhere, the file is not a model."""
    path = tmp_path / "cut.safetensors"
    path.write_bytes(to_bytes(small_model(SPEC))[:size])
    with pytest.raises(CheckpointError):
        load_packed(path)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is written anew for every example."""
    return tmp_path_factory.mktemp("damage") / "damaged.safetensors"


@given(data=st.data())
def test_a_damaged_file_gives_a_model_or_a_sentence(damaged: Path, data: st.DataObject) -> None:
    """Whatever bytes are flipped, nothing but a CheckpointError of one line comes out."""
    content = bytearray(to_bytes(small_model(SPEC)))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    damaged.write_bytes(content)
    try:
        load_packed(damaged)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    """The path and the reason, no traceback of another library."""
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=path.name):
            load_packed(path)
