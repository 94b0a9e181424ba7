"""Where pictures of a store lie while they are restored: a temporary folder that nobody has to tidy up."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bbcu_cli.files import hold, is_free

PREFIX: Final = "bbcu-spool-"
_LOCK: Final = "lock"


@contextmanager
def spool() -> Iterator[Path]:
    """A folder of this process's own, removed at the end; what killed runs left beside it goes as well."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / "new").open("wb") as lock:
            hold(lock)
            with contextlib.suppress(OSError):  # Windows keeps the name of an open file, and takes nothing for litter
                (folder / "new").rename(folder / _LOCK)  # nobody sees it before it is held
            _remove_abandoned(folder.parent)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the spools whose processes are gone: nobody holds their locks. On Windows they stay."""
    for lock in parent.glob(f"{PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("rb") as file:  # somebody else's, or gone meanwhile
            if is_free(file):
                shutil.rmtree(lock.parent, ignore_errors=True)
