"""`bbcu bench`: how fast this machine restores, engines side by side."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from bbcu_cli.cli.console import note
from bbcu_cli.cli.options import ENGINE, Threads
from bbcu_cli.cli.size import parse_box
from bbcu_cli.errors import UsageError

if TYPE_CHECKING:
    from bbcu_cli.bench.engines import BenchReport, EngineRow
    from bbcu_cli.bench.folder import FolderReport
    from bbcu_cli.spec import ModelSpec


def bench(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name from `bbcu models list`; its weights are random.")
    ] = "sr-m-x4",
    size: Annotated[str, typer.Option(help="Input as WIDTHxHEIGHT.")] = "320x180",
    runs: Annotated[int, typer.Option(help="Timed rounds after a warm-up.", min=1)] = 5,
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel=ENGINE)] = "cpu",
    folder: Annotated[
        Path | None,
        typer.Option(help="Instead, restore the images of this folder and report how long the engine waits."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="With --folder: restore it by turns without and with a Ray cluster (local, auto or HOST:PORT).",
            metavar="ADDRESS",
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option(help="Also time the float simulation in torch, which is slow.", rich_help_panel=ENGINE)
    ] = True,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers/--no-peers",
            help="Also time the published code's arithmetic in torch, and ONNX Runtime, OpenVINO, Real-ESRGAN and "
            "waifu2x if installed.",
            rich_help_panel=ENGINE,
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,  # noqa: ARG001
) -> None:
    """Time the engines on one input, and compare with the limit of the hardware."""
    from bbcu_cli.bench.engines import run_bench
    from bbcu_cli.hub.catalogue import Catalogue

    if cluster is not None:
        _bench_cluster(model, folder, cluster, threads, runs, as_json=json)
        return
    if folder is not None:
        _bench_folder(model, folder, device, threads, as_json=json)
        return
    spec = Catalogue.load()[model].spec
    width, height = parse_box(size, "--size")
    if device not in ("cpu", "auto"):
        _bench_cuda(model, spec, (height, width), device, as_json=json)
        return
    report = run_bench(model, spec, (height, width), runs=runs, threads=threads, reference=reference, peers=peers)
    if json:
        print(jsonlib.dumps(report.to_dict()))
    else:
        _show(report)


def _bench_cuda(model: str, spec: ModelSpec, size: tuple[int, int], device: str, *, as_json: bool) -> None:
    from bbcu_cli.engines.select import require_cuda

    info = require_cuda(device)
    from bbcu_cli.bench.cuda import run_cuda_bench

    if not as_json:
        print(f"{model}, {size[1]}x{size[0]} in, {info.device}: {info.detail}; medians, host copies not counted")
    for row in run_cuda_bench(spec, size, info.device):
        if as_json:
            named = {"width": size[1], "height": size[0]}
            print(jsonlib.dumps({"schema": 2, "model": model, "size": named, "device": info.device, **asdict(row)}))
            continue
        floor = f"  {row.milliseconds / row.floor:.1f}x the bandwidth floor of {row.floor:.3f} ms" if row.floor else ""
        print(f"{row.what}: {row.milliseconds:.3f} ms{floor}", flush=True)


def _bench_folder(model: str, folder: Path, device: str, threads: int | None, *, as_json: bool) -> None:
    from bbcu_cli.bench.folder import bench_folder
    from bbcu_cli.restoration.model import load_model

    with load_model(model, device=device, threads=threads) as opened:
        report = bench_folder(folder, opened, threads=threads)
    if as_json:
        print(jsonlib.dumps(report.to_dict()))
    else:
        _show_folder(report)


def _bench_cluster(
    model: str, folder: Path | None, address: str, threads: int | None, runs: int, *, as_json: bool
) -> None:
    from bbcu_cli.bench.cluster import bench_cluster

    if folder is None:
        raise UsageError("--cluster restores the images of a folder; give --folder.")
    report = bench_cluster(folder, model, address, threads=threads, runs=runs, note=note)
    if as_json:
        print(jsonlib.dumps(report.to_dict()))
        return
    print(f"{report.model}, {report.images} images of {report.megapixels:.1f} megapixels in all, {runs} runs by turns")
    for name, times, where in (
        ("without a cluster", report.alone, f"{report.threads} threads"),
        (f"on {address}, after its start", report.cluster, f"{report.worker_threads} threads a worker"),
    ):
        print(f"{name}: {median(times):.2f} s ({min(times):.2f}-{max(times):.2f}), {where}")
    core = f"{report.images_per_core_hour:,.0f} pictures or {report.megapixels_per_core_hour:,.0f} megapixels an hour"
    print(f"The cluster takes {report.overhead:+.1%}; one core without it restores {core}.")


def _show_folder(report: FolderReport) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{report.model}, {report.images} images of {report.megapixels:.1f} megapixels in all, {report.engine}"
    table = Table("", *(heading for heading in ("seconds", "share")), title=title)
    for name, seconds in (
        ("from the first file to the last", report.wall),
        ("engine computing", report.engine_busy),
        ("engine waiting", report.wall - report.engine_busy),
        ("the same tiles in the engine alone", report.pure),
        ("decoding, beside the engine", report.decode),
        ("colour and encoding, beside the engine", report.encode),
    ):
        table.add_row(name, f"{seconds:.2f}", f"{seconds / report.wall:.1%}")
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    rates = f"{report.images_per_second:.2f} images/s; the engine alone {report.images / report.pure:.2f} images/s"
    console.print(f"{rates}: {report.pure_share:.0%} of it reached.")
    if report.failed:
        console.print(f"{report.failed} images failed.", style="red")


def _share(row: EngineRow) -> str:
    return "" if row.roofline_share is None else f"{row.roofline_share:.0%}"


def _show(report: BenchReport) -> None:
    from rich.console import Console
    from rich.table import Table

    slowest = max(row.seconds for row in report.engines)
    table = Table(title=f"{report.model}, {report.size[1]}x{report.size[0]} in, median of {report.runs}")
    table.add_column("engine")
    for heading in ("threads", "seconds", "range", "times", "ns/pixel/layer", "of roofline", "difference", "peak MB"):
        table.add_column(heading, justify="right")
    for row in report.engines:
        table.add_row(
            row.engine,
            str(row.threads),
            f"{row.seconds:.3f}",
            f"{row.fastest:.3f}-{row.slowest:.3f}",
            f"{slowest / row.seconds:.1f}x",
            "" if row.layer_ns is None else f"{row.layer_ns:.0f}",
            _share(row),
            "" if row.difference is None else f"{row.difference:.1e}",
            "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
        )
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140)
    console.print(report.machine)
    if report.layer is not None:
        layer = report.layer
        console.print(
            f"One fused 64-channel binary layer ({layer.kernels}, 1 thread, width {layer.width}): {layer.fused:.1f} ns "
            f"per pixel, {layer.share:.0%} of the roofline (the bare product, {layer.roofline:.1f} ns)."
        )
    console.print(table)
    for reason in report.missing:
        console.print(f"Missing: {reason}", markup=False)
    console.print(
        "Weights are random: time does not depend on them. ns/pixel/layer is thread time per input pixel and binary "
        "layer, head and tail included; difference is from the first row, for the same network."
    )
