"""bbcu: image restoration with binarized neural networks, fast on any CPU.

>>> from bbcu_cli import load_model, restore
>>> with load_model("sr-m-x4") as model:
...     large = restore(pixels, model)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbcu_cli.errors import BbcuError
    from bbcu_cli.restoration.model import Model, Options, load_model
    from bbcu_cli.restoration.pipeline import restore, restore_image

__version__ = "0.1.0"
__all__ = ["BbcuError", "Model", "Options", "__version__", "load_model", "restore", "restore_image"]

_HOMES = {
    "BbcuError": "bbcu_cli.errors",
    "Model": "bbcu_cli.restoration.model",
    "Options": "bbcu_cli.restoration.model",
    "load_model": "bbcu_cli.restoration.model",
    "restore": "bbcu_cli.restoration.pipeline",
    "restore_image": "bbcu_cli.restoration.pipeline",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `bbcu --help` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bbcu_cli' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
