"""The processes of a run, and the wish to end it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def processes(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, number of processes, device) of this process, with the process group open under torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1, torch.device(device)
        return
    local = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if device.startswith("cuda") else device)
    torch.distributed.init_process_group("nccl" if local.type == "cuda" else "gloo")
    try:
        yield torch.distributed.get_rank(), world, local
        # None leaves while another still waits for what it sent, or writes the model.
        torch.distributed.barrier(device_ids=[local.index] if local.type == "cuda" else None)
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, on Windows Ctrl-Break too, so that a step is never cut in half."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield stop
        return
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    wanted = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
