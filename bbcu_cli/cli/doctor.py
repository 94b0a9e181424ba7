"""`bbcu doctor`: what was found on this machine and what a run would use."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.cli.console import shown

if TYPE_CHECKING:
    from bbcu_cli.bench.diagnosis import Diagnosis


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,  # noqa: ARG001
) -> None:
    """Show engines, kernel sets, threads, weights and versions, and why something is missing."""
    from bbcu_cli.bench.diagnosis import diagnose

    found = diagnose()
    if json:
        print(jsonlib.dumps(found.to_dict()))
        return
    for line in _lines(found):
        print(shown(line))


def _lines(found: Diagnosis) -> Iterator[str]:
    yield f"bbcu {found.version}, Python {found.python}, {found.machine}; threads: {found.threads}"
    yield ""
    yield "Engines, the fastest first:"
    for info in found.engines:
        mark = ">" if info == found.chosen else "-" if info.unavailable is None else " "
        state = info.detail if info.unavailable is None else f"not here: {info.unavailable}"
        yield f"  {mark} {info.name:9} on {info.device:6} {state}"
    yield "  (> is what auto takes)" if found.chosen else "  none can run here"
    if found.kernel_sets:
        yield ""
        yield "Kernel sets of the compiled module, the best first:"
        for name, reason in found.kernel_sets.items():
            yield f"  {'-' if reason is None else ' '} {name:9} {reason or 'runs here'}"
    yield ""
    yield f"Weights: {found.weights} ({found.models[0]} models embedded, {found.models[1]} elsewhere or not trained)"
    yield "Libraries: " + ", ".join(f"{name} {version}" for name, version in found.libraries.items())
    for name, value in found.environment.items():
        yield f"Environment: {name}={value}"
