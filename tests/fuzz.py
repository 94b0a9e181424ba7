"""Seeded fuzzing of whatever reads what others wrote: `python tests/fuzz.py SURFACE FIRST COUNT` tries COUNT seeds.

One execution is one seed: it makes a hostile input and hands it in. It may succeed or raise what the surface
documents; anything else, a crash, 20 s of computing, 15 minutes without progress or 1 GiB of growth ends the process
with an error. The seed is all that is needed to see it again. `test_fuzz.py` runs every surface, a little or for long.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

SLOWEST = 20.0  # seconds of computing that one execution may take
GROWTH = 1 << 30  # bytes of address space that all executions together may take

EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 24]

Attack = Callable[[random.Random], object]


@dataclass(frozen=True)
class Surface:
    """What is attacked: one execution, what it may raise, and whether to look at memory as a limit of the process."""

    attack: Attack
    refusals: tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Outcome:
    """What a number of executions did; seconds of computing, MB of resident memory."""

    surface: str
    executions: int
    refused: int
    slowest: float
    grown: int


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A file with a few bytes changed, taken out, doubled or replaced by extreme numbers, mostly near its head."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        if not out:
            break
        at = rng.randrange(min(len(out), 400) if rng.random() < 0.6 else len(out))
        order, extreme = rng.choice("<>"), rng.choice(EXTREMES)
        choice = rng.randrange(7)
        if choice == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif choice == 1:
            out[at] = rng.randrange(256)
        elif choice == 2:
            out[at : at + 4] = struct.pack(f"{order}L", extreme)
        elif choice == 3:
            out[at : at + 2] = struct.pack(f"{order}H", extreme & 0xFFFF)
        elif choice == 4 and at > 3:
            del out[at:]
        elif choice == 5:
            out[at:at] = out[: rng.randrange(1, 200)]
        elif len(out) > 100:
            del out[at : at + rng.randrange(1, 64)]
    return bytes(out)


NUMBERS = [0, -1, 1, 2, 3, 64, 256, 257, 1 << 31, 1 << 63, 1 << 64, 10**30, -0.0, 0.5, 1e308, 1e-320]
ODD = [*NUMBERS, float("nan"), float("inf"), None, True, False, "", "x", "\x1b[2J", "../x", "\ud800", [], {}, [[]]]
DEEP = "DEEP"


def scrambled(value: object, rng: random.Random) -> object:
    """JSON with one part somewhere replaced, taken out, renamed or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        out = dict(value)
        key = rng.choice(list(out))
        choice = rng.randrange(12)
        if choice == 0:
            del out[key]
        elif choice == 1:
            out[rng.choice(["x", "", "../x", "\x1b[31m", key.upper()])] = out.pop(key)
        elif choice == 2:
            out[rng.choice(["x", "__class__", "format"])] = rng.choice(ODD)
        else:
            out[key] = scrambled(out[key], rng)
        return out
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        part = [] if rng.random() < 0.2 else [scrambled(value[at], rng)] * rng.choice([1, 1, 1, 2])
        return [*value[:at], *part, *value[at + 1 :]]
    if isinstance(value, str) and rng.random() < 0.5:
        return mutated(value.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice([value + 1, value - 1, -value, value * 2, value << 32, float(value), str(value)])
    return DEEP if rng.random() < 0.03 else rng.choice(ODD)


def dumped(value: object) -> bytes:
    """JSON as bytes, with `DEEP` as lists nested deeper than any reader goes."""
    return json.dumps(value).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def bound_memory() -> int:
    """Let the process grow by `GROWTH` at most; returns its resident peak so far, in KiB."""
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, resource.RLIM_INFINITY))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(name: str, surface: Surface, first: int, count: int, *, bounded: bool = True) -> Outcome:
    """Try seeds `first` to `first + count - 1`."""
    refused, slowest = 0, 0.0
    before = bound_memory() if bounded else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(first, first + count):
        if (seed - first) % 100 == 0:
            print(f"{name} from seed {seed}", file=sys.stderr, flush=True)  # where to look after a crash
            faulthandler.dump_traceback_later(900, exit=True)
        signal.setitimer(signal.ITIMER_PROF, SLOWEST)  # of computing, then the signal ends the process
        started = time.process_time()
        try:
            surface.attack(random.Random(seed))  # noqa: S311 - no secrets here
        except surface.refusals:
            refused += 1
        except BaseException:
            print(f"{name}: seed {seed} raised", file=sys.stderr, flush=True)
            raise
        slowest = max(slowest, time.process_time() - started)
    signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    return Outcome(name, count, refused, round(slowest, 2), grown)


def load_native(path: str) -> None:
    """Use another build of the compiled module, for example one with sanitizers."""
    spec = importlib.util.spec_from_file_location("bbcu_cli._native", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["bbcu_cli._native"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main() -> None:
    """Attack one surface and print the outcome as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("surface")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--native", help="path of another build of bbcu_cli._native")
    options = parser.parse_args()
    faulthandler.enable()
    if options.native:
        load_native(options.native)
    from fuzz_surfaces import SURFACES

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        surface = SURFACES[options.surface]()
        run(options.surface, surface, 0, 20, bounded=False)  # what is imported and kept on first use is no growth
        outcome = run(options.surface, surface, options.first, options.count, bounded=not options.native)
        os.chdir("/")
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
