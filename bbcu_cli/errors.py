"""Every error that bbcu raises on purpose.

A message says what is wrong, where, and what to do next, in one sentence or two. The library raises;
only ``bbcu_cli.cli`` prints and turns an error into an exit code.
"""

from __future__ import annotations

import importlib.util
from typing import Final

WITHOUT_TORCH: Final = "needs PyTorch, which is not installed; run: pip install 'bbcu-cli[torch]'"
WITHOUT_HUB: Final = (
    "needs the client of the Hugging Face hub, which is not installed; run: pip install 'bbcu-cli[hub]'"
)


class BbcuError(Exception):
    """Base of all deliberate errors; ``exit_code`` is what the command line ends with."""

    exit_code = 2


class UsageError(BbcuError):
    """The request makes no sense: an impossible option, a missing input, an output that is in the way."""


class ImageError(BbcuError):
    """A file cannot be read as an image, or an image cannot be written in that format."""


class OutputError(BbcuError):
    """The system refused to write a file: no space, no permission, a broken disk."""


class StoreError(BbcuError):
    """An object store or a web server does not have a file, refuses it, or cannot be reached."""


class CheckpointError(BbcuError):
    """A file of weights is damaged, hostile, or of a network that bbcu does not know."""


class WeightsUnavailableError(BbcuError):
    """The weights asked for are not embedded, not cached, and could not be fetched."""

    exit_code = 3


class EngineUnavailableError(BbcuError):
    """The engine or the device asked for cannot run here."""


class EngineError(BbcuError):
    """An engine failed while running: out of memory at the smallest tile, or a result that is not finite."""

    exit_code = 1


class OutOfMemoryError(EngineError):
    """A tile did not fit the memory of its device; the pipeline tries again with smaller ones."""


class ThreadsError(BbcuError):
    """The system starts no more threads for this process."""

    exit_code = 1


class TrainingError(BbcuError):
    """Training cannot start or go on: no usable data, a checkpoint of another network."""


def require_torch(what: str) -> None:
    """Raise an EngineUnavailableError where torch is not installed: `what` (a sentence's subject) needs it."""
    if importlib.util.find_spec("torch") is None:
        raise EngineUnavailableError(f"{what} {WITHOUT_TORCH}.")


def hub_is_installed() -> bool:
    """Whether the client of the Hugging Face hub is there."""
    return importlib.util.find_spec("huggingface_hub") is not None


def require_hub(what: str) -> None:
    """Raise a WeightsUnavailableError where the hub's client is not installed: `what`, a subject, needs it."""
    if not hub_is_installed():
        raise WeightsUnavailableError(f"{what} {WITHOUT_HUB}.")
