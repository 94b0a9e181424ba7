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
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(f"{where}: larger than 1 GiB, no published BBCU checkpoint is.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickle protocols: what matters is said by the error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read ({error.strerror or error}).") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{where}: refused, it is damaged or holds more than plain tensors (loading that could run code)."
        ) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise CheckpointError(f"{where}: not a torch checkpoint.") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{where}: holds no state dict (looked for {', '.join(_WRAPPERS)} or a bare one).")
    state: dict[str, NDArray[np.float32]] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise CheckpointError(f"{where}: entry {name!r} is not a float tensor.")
        state[name.removeprefix("module.")] = value.detach().to(torch.float32).contiguous().numpy()
    return state


def _count(state: Mapping[str, Any], pattern: str) -> int:
    return sum(1 for name in state if re.fullmatch(pattern, name))


def infer_spec(state: Mapping[str, NDArray[np.float32]], where: str = "The checkpoint") -> ModelSpec:
    """Tell which network a state dict is of, from its names and shapes alone.

    The residual alignment k is not stored in a checkpoint; it is taken from the published law, 130 n / 64.

    Raises:
        CheckpointError: it is none of the published networks; names the first tensor that does not fit.
    """
    if "conv_first.weight" in state:
        features, channels = state["conv_first.weight"].shape[:2]
        arch = "bbcu-m" if "upconv1.binary_conv.weight" in state else "bbcu-l"
        key = "upconv1.binary_conv.weight" if arch == "bbcu-m" else "upconv1.weight"
        if key not in state:
            raise CheckpointError(f"{where}: a super-resolution network without {key}.")
        steps = round((state[key].shape[0] / features) ** 0.5)
        scale = steps * (2 if any(name.startswith("upconv2.") for name in state) else 1)
        blocks = _count(state, r"body\.\d+\.body\.[01]\.binary_conv\.weight")
        fields: dict[str, Any] = {"arch": arch, "task": "sr", "scale": scale, "bias": False}
    elif "model.0.weight" in state:
        features, channels = state["model.0.weight"].shape[:2]
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
