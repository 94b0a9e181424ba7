"""Published checkpoints: read strictly, recognised by their shapes, and nothing in them is ever run."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import GOLDEN_NAMES, golden_input, golden_output, golden_spec, golden_state
from small import SMALL_SPECS, small_model

from bbcu_cli.checkpoint.pack import unpack
from bbcu_cli.checkpoint.packed import load_packed, to_bytes
from bbcu_cli.checkpoint.pth import load_pth
from bbcu_cli.engines.reference import ReferenceEngine
from bbcu_cli.errors import CheckpointError
from bbcu_cli.models.build import build_model


def _torch_state(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in golden_state(name).items()}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_networks_agree_with_the_published_code(name: str) -> None:
    """1e-5: the published code itself differs by 2.7e-6 between float32 and float64 on these inputs."""
    model = build_model(golden_spec(name))
    model.load_state_dict(_torch_state(name), strict=True)
    with torch.inference_mode():
        output = model(torch.from_numpy(golden_input(name))).numpy()
    assert np.abs(output - golden_output(name)).max() < 1e-5


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("wrapper", ["params", "params_ema", None])
def test_published_to_packed_to_reference_engine_keeps_the_golden_outputs(
    name: str, wrapper: str | None, tmp_path: Path
) -> None:
    """The network is told from the shapes alone. 1e-5 as above: packing keeps signs exactly and rounds alpha once."""
    path = tmp_path / "published.pth"
    state = _torch_state(name)
    torch.save({wrapper: state} if wrapper else state, path)
    packed = tmp_path / "packed.safetensors"
    packed.write_bytes(to_bytes(load_pth(path)))
    model = load_packed(packed)
    assert model.spec == golden_spec(name)
    assert packed.stat().st_size <= {"bbcu-m-x4": 500_000, "bbcu-denoise": 200_000}.get(name, 2_000_000)
    output = ReferenceEngine().open(model).run(golden_input(name))
    assert np.abs(output - golden_output(name)).max() < 1e-5


def _small_state(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value.copy()) for key, value in unpack(small_model(SMALL_SPECS[name])).items()}


@pytest.mark.parametrize("name", SMALL_SPECS)
def test_spec_is_inferred_for_any_depth(name: str, tmp_path: Path) -> None:
    """Not only the eight published networks: any number of blocks."""
    torch.save({"params": _small_state(name)}, tmp_path / "a.pth")
    assert load_pth(tmp_path / "a.pth").spec == SMALL_SPECS[name]


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(change: str, tmp_path: Path) -> None:
    """The first tensor that is wrong is named."""
    state = _small_state("m-x4")
    key = "body.0.body.1.relu.pr_prelu.weight"
    if change == "missing":
        del state[key]
    elif change == "shape":
        state[key] = torch.zeros(3)
    else:
        state[key := "body.9.extra"] = torch.zeros(3)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=key):
        load_pth(tmp_path / "a.pth")


class _Evil:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["torch", "pickle", "inside params"])
def test_a_malicious_checkpoint_runs_nothing(how: str, tmp_path: Path) -> None:
    """Code hidden in a pickle is refused, not run."""
    proof, path = tmp_path / "executed", tmp_path / "evil.pth"
    if how == "pickle":
        path.write_bytes(pickle.dumps(_Evil(proof)))
    else:
        torch.save(_Evil(proof) if how == "torch" else {"params": {"conv_first.weight": _Evil(proof)}}, path)
    with pytest.raises(CheckpointError, match="refused"):
        load_pth(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"PK\x03\x04 broken zip",
        pickle.dumps([1, 2]),
        b"\x80\x02X\x01",
        pickle.dumps({"params": {}}),
    ],
)
def test_files_that_are_no_checkpoint_are_one_sentence(content: bytes, tmp_path: Path) -> None:
    """No torch traceback reaches the user."""
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"odd\.pth") as caught:
        load_pth(path)
    assert "\n" not in str(caught.value)


def test_a_zip_that_inflates_is_refused_unread(tmp_path: Path) -> None:
    """Torch would unpack it; 100 MB in 100 KB is no checkpoint."""
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(100 << 20))
    with pytest.raises(CheckpointError, match="compressed archive"):
        load_pth(tmp_path / "a.pth")


@pytest.mark.parametrize("shape", [(1 << 40,), (64, 64, 1 << 20), (), (0, 3, 3, 3), (64,)])
def test_a_shape_that_no_convolution_has_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    """A view of a single number may claim to be a terabyte; other lies would divide by zero."""
    lie = torch.zeros(1).expand(shape) if math.prod(shape) > 1000 else torch.zeros(shape)
    state = {**_small_state("m-x2"), "conv_first.weight": lie}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"conv_first\.weight"):
        load_pth(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3, dtype=torch.int64),
        torch.eye(64).to_sparse(),
        torch.zeros(64, device="meta"),
        torch.zeros(64, dtype=torch.complex64),
        "text",
        float("nan"),
    ],
)
def test_entries_that_are_no_finite_floats_are_refused(value: object, tmp_path: Path) -> None:
    """Integers, text, NaN and tensors without plain values are no weights."""
    state: dict[str, object] = dict(_small_state("denoise"))
    key = "model.2.relu.pr_prelu.weight"
    state[key] = torch.full((64,), value) if isinstance(value, float) else value
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError):
        load_pth(tmp_path / "a.pth")
