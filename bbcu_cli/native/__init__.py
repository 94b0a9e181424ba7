"""The compiled module, or why it is not there: installed without a compiler, or a source tree that was not built."""

from __future__ import annotations

from types import ModuleType

compiled: ModuleType | None = None
missing: str = ""

try:
    from bbcu_cli import _native
except ImportError as error:
    missing = str(error)
else:
    compiled = _native
