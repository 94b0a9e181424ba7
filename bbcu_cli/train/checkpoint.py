"""Checkpoints of training runs, and the weights that a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bbcu_cli.checkpoint.pack import unpack
from bbcu_cli.checkpoint.packed import load_packed
from bbcu_cli.errors import TrainingError

# Files in the folder of a run.
CHECKPOINT: Final = "checkpoint.pt"
LOG: Final = "log.jsonl"
MODEL: Final = "model.safetensors"


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device, channels last: the layout that its convolutions are fastest in."""
    placed: nn.Module = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of `train`, on the CPU.

    Raises:
        TrainingError: the file is missing or no checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"spec", "recipe", "step", "model", "ema", "optimiser", "psnr"} - set(state)
    except Exception as error:  # torch.load raises a dozen types on a damaged file
        raise TrainingError(f"Cannot read the training checkpoint {path}: {error}.") from error
    if missing:
        raise TrainingError(f"{path} is no training checkpoint: {', '.join(sorted(missing))} missing.")
    return state


def load_initial(model: nn.Module, path: Path, *, twin: bool = False) -> int:
    """Copy what fits by name and shape from a packed model or a checkpoint, of any scale, task or size.

    Args:
        model: changed in place.
        path: of the packed model or the checkpoint.
        twin: the network is a full-precision twin, which starts from another one's checkpoint only; and a binary
            network never does, for in a twin signs carry nothing.

    Returns:
        How many tensors were taken.

    Raises:
        TrainingError: the file fits nowhere, or one of both networks is a twin.
        CheckpointError: the packed model cannot be read.
    """
    if path.suffix == ".safetensors":
        source, of_twin = {name: torch.from_numpy(a.copy()) for name, a in unpack(load_packed(path)).items()}, False
    else:
        state = read_checkpoint(path)
        source, of_twin = state["model"], state["recipe"].get("twin", False)
    if twin != of_twin:
        this, other = ("twin", "binary network") if twin else ("binary network", "twin")
        raise TrainingError(f"Cannot start a {this} from {path}, which is of a {other}.")
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in source.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise TrainingError(f"Cannot start from {path}: none of its tensors fits this network.")
    model.load_state_dict({**own, **fitting})
    return len(fitting)
