"""Which engines exist here, and opening the one that was asked for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bbcu_cli.checkpoint.packed import PackedModel
from bbcu_cli.cores import checked_threads, default_threads
from bbcu_cli.engines.base import Engine, EngineInfo, Session
from bbcu_cli.engines.cpu import CpuEngine
from bbcu_cli.errors import WITHOUT_TORCH, EngineUnavailableError, UsageError, require_torch

EngineName = Literal["auto", "packed", "reference"]
ENGINES: Final[tuple[EngineName, ...]] = ("auto", "packed", "reference")


@dataclass(slots=True)
class _MissingEngine:
    """Stands for an engine whose library is not installed."""

    info: EngineInfo

    def open(self, packed: PackedModel) -> Session:  # noqa: ARG002 - the protocol's
        raise EngineUnavailableError(f"Engine {self.info.name} on {self.info.device}: {self.info.unavailable}.")


def _torch_is_installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def _engine(name: str, device: str, threads: int) -> Engine:
    """Imports only what that engine needs: the packed CPU engine never touches torch."""
    if name == "packed" and device == "cpu":
        return CpuEngine(threads)
    if not _torch_is_installed():
        return _MissingEngine(EngineInfo(name, device, "", unavailable=WITHOUT_TORCH))
    if name == "packed":
        from bbcu_cli.engines.cuda import CudaEngine

        return CudaEngine(device)
    from bbcu_cli.engines.reference import ReferenceEngine

    return ReferenceEngine(device, threads)


def _check_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdigit()):
        raise UsageError(f"Unknown device {device!r}; give auto, cpu, cuda or cuda:N.")


def _cuda_may_exist() -> bool:
    """A cheap look, without importing torch, that spares CPU-only machines the import."""
    if os.name == "nt":
        drivers = [Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll")]
    else:
        drivers = [Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl")]
    return any(driver.exists() for driver in drivers) and _torch_is_installed()


def candidates(engine: EngineName, device: str) -> Iterator[tuple[str, str]]:
    """(engine, device) pairs that a wish stands for, the fastest first."""
    if device == "auto":
        devices = ["cuda:0", "cpu"] if _cuda_may_exist() else ["cpu"]
    else:
        devices = ["cuda:0" if device == "cuda" else device]
    names = ["packed", "reference"] if engine == "auto" else [engine]
    # On auto, a packed engine on any device comes before float simulation on any other.
    yield from ((name, place) for name in names for place in devices)


def available(threads: int | None = None) -> list[EngineInfo]:
    """Every engine with the reason why it cannot run here, if it cannot; for `bbcu doctor`."""
    pairs = [(name, place) for name in ("packed", "reference") for place in ("cuda:0", "cpu")]
    return [_engine(name, place, threads or default_threads()).info for name, place in pairs]


def require_cuda(device: str) -> EngineInfo:
    """The packed engine on a CUDA device.

    Raises:
        UsageError: no such device name.
        EngineUnavailableError: it cannot run here; says why.
    """
    _check_device(device)
    require_torch(f"Device {device}")
    [place] = {place for _, place in candidates("packed", device)}
    info = _engine("packed", place, default_threads()).info
    if info.unavailable:
        raise EngineUnavailableError(f"Engine packed on {place}: {info.unavailable}.")
    return info


def open_session(
    packed: PackedModel, *, engine: EngineName = "auto", device: str = "auto", threads: int | None = None
) -> tuple[Session, tuple[str, ...]]:
    """Open a model on the fastest engine that the wish allows.

    Returns:
        The session, and one sentence for every faster engine that could not serve.

    Raises:
        EngineUnavailableError: none can, with each one's reason.
        UsageError: no such engine or device, or an impossible number of threads.
    """
    _check_device(device)
    if engine not in ENGINES:
        raise UsageError(f"Unknown engine {engine!r}; give {', '.join(ENGINES)}.")
    threads = checked_threads(threads)
    wanted = list(candidates(engine, device))
    if ("packed", "cpu") not in wanted:
        require_torch(f"Device {device}" if engine == "auto" else f"Engine {engine}")
    reasons: list[str] = []
    for name, place in wanted:
        try:
            session = _engine(name, place, threads).open(packed)
        except EngineUnavailableError as error:
            reasons.append(str(error))
        else:
            return session, tuple(reasons)
    raise EngineUnavailableError(" ".join(reasons) + " `bbcu doctor` lists what can run here.")
