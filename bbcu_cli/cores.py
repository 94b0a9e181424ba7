"""How many CPUs this process may use, counted in one way for engines, encoders and training."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from bbcu_cli.errors import UsageError

MAX_THREADS: Final = 1024  # more are a slip of the finger
VARIABLE: Final = "BBCU_THREADS"


def checked_threads(threads: int | None) -> int:
    """That many threads; None: `default_threads()`.

    Raises:
        UsageError: not in 1..MAX_THREADS.
    """
    if threads is None:
        return default_threads()
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"--threads is {threads}, expected 1 to {MAX_THREADS}.")
    return threads


def default_threads() -> int:
    """BBCU_THREADS, else OMP_NUM_THREADS, else `usable_cpus()`.

    Raises:
        UsageError: BBCU_THREADS is not in 1..MAX_THREADS; OMP_NUM_THREADS, which is not ours, is ignored then.
    """
    if wanted := os.environ.get(VARIABLE, "").strip():
        if (threads := _count(wanted)) is None:
            raise UsageError(f"{VARIABLE} is {wanted[:40]!r}, expected 1 to {MAX_THREADS}.")
        return threads
    return _count(os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()) or usable_cpus()


def usable_cpus() -> int:
    """The CPUs that the process may run on, or the whole number above its quota of CPU time if that is less."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        cpus = os.process_cpu_count()
    else:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Rounded up, as Java and Go do: with 1.5 CPUs two threads get all of them, one thread two thirds.
    return max(1, math.ceil(min(cpus or 1, cpu_quota())))


def cpu_quota(root: Path = Path("/")) -> float:
    """CPUs' worth of time that the control groups of this process allow; infinite where nothing limits it.

    Source: the kernel's documentation of cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`).

    Args:
        root: of the file system with `proc` and `sys`.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux, or a sandbox without /proc
        return math.inf
    limits = [math.inf]
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            limits.extend(_v2_limits(root / "sys/fs/cgroup", path))
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                limits.extend(_v1_limits(root / "sys/fs/cgroup" / mount, path))
    return min(limits)


def _v2_limits(mount: Path, path: str) -> Iterator[float]:
    for group in _groups(mount, path):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        yield _share(quota, period)


def _v1_limits(mount: Path, path: str) -> Iterator[float]:
    for group in _groups(mount, path):
        yield _share(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """The group and all above it; in a container what it sees of them may be the mount alone."""
    group = PurePosixPath(path.lstrip("/"))
    yield from (mount / part for part in (group, *group.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _share(quota: str, period: str) -> float:
    """CPUs from microseconds in each period; "max", -1 and what is missing mean no limit."""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else math.inf


def _count(text: str) -> int | None:
    """The number that a text stands for if it is in 1..MAX_THREADS; Python refuses to read thousands of digits."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return number if 1 <= number <= MAX_THREADS else None
