"""Compressed files as a network behind the deblocking one sees them, see `restoration.choice`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bbcu_cli.hub import Catalogue
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Shelf, load_model
from bbcu_cli.restoration.serving import Restorer, serve
from bbcu_cli.score.photos import Pixels, Read, decoded
from bbcu_cli.spec import Task


@contextmanager
def reader(task: Task, *, photo: bool) -> Iterator[Read]:
    """What makes the picture of a file, called by any thread: for a deblocking network its decoder.

    For the other tasks, a photo recipe shows what `bbcu deblock` makes of the file, by the weights that ship, on one
    thread of the CPU.
    """
    if not photo or task == "deblock":
        yield decoded
        return
    with Shelf(partial(load_model, device="cpu", threads=1)) as shelf:
        restorer = Restorer(partial(serve, Wish("deblock"), Catalogue.load(), shelf))
        one_by_one = threading.Lock()

        def deblocked(file: bytes) -> Pixels:
            with one_by_one:
                return restorer(file).pixels

        yield deblocked
