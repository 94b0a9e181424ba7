"""`bbcu doctor`: what was found on this machine and what a run would use."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.cli.console import shown

if TYPE_CHECKING:
    from bbcu_cli.bench.diagnosis import Diagnosis
    from bbcu_cli.fleet.nodes import Node


def doctor(
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Show instead what each node of a Ray cluster has: local, auto or HOST:PORT.", metavar="ADDRESS"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,  # noqa: ARG001
) -> None:
    """Show engines, kernel sets, threads, weights and versions, and why something is missing."""
    from bbcu_cli.bench.diagnosis import diagnose

    if cluster is not None:
        _show_cluster(cluster, as_json=json)
        return
    found = diagnose()
    if json:
        print(jsonlib.dumps(found.to_dict()))
        return
    for line in _lines(found):
        print(shown(line))


def _show_cluster(address: str, *, as_json: bool) -> None:
    from bbcu_cli.fleet.cluster import survey

    nodes = survey(address)
    if as_json:
        print(jsonlib.dumps({"schema": 1, "cluster": address, "nodes": [node.to_dict() for node in nodes]}))
        return
    for node in nodes:
        print(shown(_node_line(node)))


def _node_line(node: Node) -> str:
    has = [f"{node.cpus:g} CPUs", f"{node.memory / 2**30:.1f} GB for workers"]
    if node.gpus:
        has.insert(1, f"{node.gpus:g} GPUs")
    if node.trouble:
        return f"  {node.name}: {', '.join(has)}; refused: {node.trouble}"
    urls = " ".join(f"{scheme}://" for scheme in node.found.urls) or "no URLs (fsspec is not installed)"
    return f"- {node.name}: {', '.join(has)}; bbcu {node.found.version}, the same weights; {node.found.engine}; {urls}"


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
