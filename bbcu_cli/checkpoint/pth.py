"""Published checkpoints (.pth): read without running code from them, unwrap, infer the network from the shapes."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bbcu_cli.checkpoint.pack import pack
from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.errors import CheckpointError
from bbcu_cli.models.build import build_model
from bbcu_cli.spec import PUBLISHED_K, ModelSpec

_WRAPPERS = (
    "params_ema",
    "params",
    "ema",
)  # the averaged weights first, as BasicSR tests them; "ema" is of our training
MAX_FILE_BYTES = 1 << 30


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Read a .pth with torch's restricted loader and take the weights out of their wrapper.

    Raises:
        CheckpointError: the file is unreadable, holds code or anything but tensors.
    """
    path = Path(path)
    where = f"Checkpoint {path}"
    try:
        size = path.stat().st_size
        content = _unpickled(path, size)
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read ({error.strerror or error}).") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{where}: refused, it is damaged or holds more than plain tensors (loading that could run code)."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise CheckpointError(f"{where}: not a torch checkpoint.") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{where}: holds no state dict (looked for {', '.join(_WRAPPERS)} or a bare one).")
    state: dict[str, NDArray[np.float32]] = {}
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{where}: an entry's name is not text.")
        if not _is_plain(value):
            raise CheckpointError(f"{where}: entry {name!r} is not a float tensor.")
        size -= value.numel() * value.element_size()
        if size < 0:  # views of one small storage can claim any size
            raise CheckpointError(f"{where}: entry {name!r} claims more values than the file holds.")
        state[name.removeprefix("module.")] = value.detach().to(torch.float32).contiguous().numpy()
    return state


def _unpickled(path: Path, size: int) -> Any:
    """What torch's restricted loader makes of a file of that size."""
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"Checkpoint {path}: larger than 1 GiB, no published BBCU checkpoint is.")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if sum(member.file_size for member in file.infolist()) > size:
                raise CheckpointError(f"Checkpoint {path}: a compressed archive; torch writes them uncompressed.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd pickle protocols: what matters is said by the errors
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_plain(value: object) -> bool:
    """Whether it is a tensor of floating-point values that are all in memory."""
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.layout is torch.strided
        and value.device.type == "cpu"
    )


def _count(state: Mapping[str, Any], pattern: str) -> int:
    return sum(1 for name in state if re.fullmatch(pattern, name))


def infer_spec(state: Mapping[str, NDArray[np.float32]], where: str = "The checkpoint") -> ModelSpec:
    """Tell which network a state dict is of, from its names and shapes alone.

    The residual alignment k is not stored in a checkpoint; it is taken from the published law, 130 n / 64.

    Raises:
        CheckpointError: it is none of the published networks; names the first tensor that does not fit.
    """

    def of_conv(key: str) -> tuple[int, int]:
        shape = state[key].shape
        if len(shape) != 4 or 0 in shape:
            raise CheckpointError(f"{where}: tensor {key!r} is {shape}, no convolution's weight.")
        return shape[0], shape[1]

    if "conv_first.weight" in state:
        features, channels = of_conv("conv_first.weight")
        arch = "bbcu-m" if "upconv1.binary_conv.weight" in state else "bbcu-l"
        key = "upconv1.binary_conv.weight" if arch == "bbcu-m" else "upconv1.weight"
        if key not in state:
            raise CheckpointError(f"{where}: a super-resolution network without {key}.")
        steps = round((of_conv(key)[0] / features) ** 0.5)
        scale = steps * (2 if any(name.startswith("upconv2.") for name in state) else 1)
        blocks = _count(state, r"body\.\d+\.body\.[01]\.binary_conv\.weight")
        fields: dict[str, Any] = {"arch": arch, "task": "sr", "scale": scale, "bias": False}
    elif "model.0.weight" in state:
        features, channels = of_conv("model.0.weight")
        blocks = _count(state, r"model\.\d+\.binary_conv\.weight")
        task = "deblock" if channels == 1 else "denoise"
        fields = {"arch": "bbcu-dncnn", "task": task, "scale": 1, "bias": "model.0.bias" in state}
    else:
        raise CheckpointError(f"{where}: not a BBCU network (neither conv_first.weight nor model.0.weight is in it).")
    spec = ModelSpec(channels=channels, features=features, blocks=blocks, k=PUBLISHED_K * features / 64, **fields)
    _require_shapes(spec, state, where)
    return spec


def _require_shapes(spec: ModelSpec, state: Mapping[str, NDArray[np.float32]], where: str) -> None:
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in build_model(spec).state_dict().items()}
    for name in [*expected, *state]:
        found, wanted = state[name].shape if name in state else None, expected.get(name)
        if found != wanted:
            raise CheckpointError(
                f"{where}: looks like {spec.arch} {spec.task} x{spec.scale}, but tensor {name!r} is "
                f"{found or 'missing'}, expected {wanted or 'absent'}."
            )


def load_pth(path: str | os.PathLike[str]) -> PackedModel:
    """Published checkpoint -> PackedModel.

    Raises:
        CheckpointError: see `load_state_dict` and `infer_spec`.
    """
    state = load_state_dict(path)
    spec = infer_spec(state, f"Checkpoint {Path(path)}")
    return pack(spec, state, {"source": f"converted from {Path(path).name}"})
