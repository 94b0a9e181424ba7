"""`bbcu models`: what there is, where it is, and how it gets here or onto a hub."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bbcu_cli.cli.console import guarded, note, shown
from bbcu_cli.cli.help import Command, Group
from bbcu_cli.errors import BbcuError, UsageError, require_torch

if TYPE_CHECKING:
    from bbcu_cli.checkpoint.packed import PackedModel
    from bbcu_cli.hub.locate import Located, Status
    from bbcu_cli.hub.push import Description
    from bbcu_cli.spec import ModelSpec

PLACES: Final = {"hub": "downloaded", "cache": "cached", "embedded": "ships with bbcu", "file": "a local file"}
UNSHOWN: Final = ("schema", "provenance")  # the form of the JSON, and what gets lines of its own

models = typer.Typer(
    help="List, inspect, convert, download, verify and publish models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    cls=Group,
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name, a packed file, or hf://user/repo@rev:file.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite/--no-overwrite", help="Replace existing files.")]


@dataclass(frozen=True)
class HubOptions:
    """Where models are looked for that do not ship with bbcu."""

    hub_repo: Annotated[
        str | None,
        typer.Option(
            help="Hub repository for models that do not ship: user/repo, where {name} stands for the model's name.",
            envvar="BBCU_HUB_REPO",
        ),
    ] = None
    offline: Annotated[
        bool, typer.Option("--offline/--no-offline", help="Never use the network.", envvar="BBCU_OFFLINE")
    ] = False


@dataclass(frozen=True)
class CardOptions:
    """What the model card says beyond the file itself."""

    license: Annotated[str, typer.Option(help="Licence of the weights, as the hub spells it.")] = "other"
    dataset: Annotated[list[str] | None, typer.Option(help="Hub name of a training set; may be repeated.")] = None
    measured: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET=DB", help="A measured PSNR; may be repeated. Those of models in the catalogue are known."
        ),
    ] = None


@dataclass(frozen=True)
class TalkOptions:
    """What is said on stderr."""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False


@dataclass(frozen=True)
class ReportOptions:
    """The form of the result."""

    json: Annotated[bool, typer.Option("--json", help="Print a JSON object on stdout.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False


def list_models(hub: HubOptions = HubOptions(), report: ReportOptions = ReportOptions()) -> None:
    """List every model with its task, scale, size, location and measured PSNR."""
    from bbcu_cli.hub.catalogue import OTHER_WAYS, Catalogue, train_command
    from bbcu_cli.hub.locate import status

    found = [status(entry, hub.hub_repo) for entry in Catalogue.load()]
    if report.json:
        _print_json({"schema": 1, "models": [_status_row(one) for one in found]})
        return
    lines = [["NAME", "TASK", "SCALE", "SIZE", "WHERE", "MEASURED"]]
    for one in found:
        entry = one.entry
        measured = ", ".join(f"{label} {value:.2f} dB" for label, value in entry.measured.items())
        scale = f"x{entry.spec.scale}" if entry.spec.task == "sr" else ""
        lines.append([entry.name, entry.spec.task, scale, _size(one.size), one.where, measured])
    typer.echo(_table(lines))
    if missing := [[f"  {one.entry.name}", train_command(one.entry)] for one in found if one.where == "not there yet"]:
        typer.echo(f"\nNot there yet; train one as follows, {OTHER_WAYS}:\n{_table(missing)}")


def info(model: Model, hub: HubOptions = HubOptions(), report: ReportOptions = ReportOptions()) -> None:
    """Show one model: network, file, SHA-256 and provenance."""
    from bbcu_cli.hub.catalogue import Catalogue, remedy
    from bbcu_cli.hub.locate import is_name, locate, status

    row: dict[str, Any] = {"schema": 1}
    present = True
    if is_name(model):
        one = status(Catalogue.load()[model], hub.hub_repo)
        present = one.path is not None
        row |= _status_row(one) | {"summary": one.entry.summary, "spec": one.entry.spec.to_dict()}
        if one.where == "not there yet":
            row["next_step"] = remedy(one.entry)
    if present:
        row |= _located_row(locate(model, hub_repo=hub.hub_repo, offline=hub.offline))
    if report.json:
        _print_json(row)
    else:
        facts = [[key.replace("_", " "), _text(value)] for key, value in row.items() if key not in UNSHOWN]
        history = [[f"  {key}", value] for key, value in row.get("provenance", {}).items()]
        typer.echo(_table([*facts, ["provenance", "" if history else "unknown"], *history]))


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A published .pth, one of `bbcu train`, or a packed file.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The packed file; default: beside it, as .safetensors.")
    ] = None,
    hub_layout: Annotated[
        Path | None, typer.Option(help="Write a folder for the hub instead: model, config.json, model card.")
    ] = None,
    *,
    overwrite: Overwrite = False,
    card: CardOptions = CardOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Pack a float checkpoint: signs become bits, and the file some 20 times smaller.

    Examples:

    bbcu models convert BBCULx4.pth

    bbcu models convert BBCULx4.pth --hub-layout to-upload/
    """
    from bbcu_cli.checkpoint.packed import to_bytes
    from bbcu_cli.hub import push as hub_push

    if output is not None and hub_layout is not None:
        raise UsageError("--output and --hub-layout exclude each other.")
    packed = _read(source)
    content = to_bytes(packed)
    if hub_layout is not None:
        about = _description(source.stem, packed.spec, card, content)
        hub_push.write(hub_push.layout(content, packed, about), hub_layout, overwrite=overwrite)
        target = hub_layout
    else:
        target = output or source.with_suffix(".safetensors")
        hub_push.write({target.name: content}, target.parent, overwrite=overwrite)
    if not talk.quiet:
        note(f"{source} is {_network(packed.spec)}; packed {len(content)} bytes of {source.stat().st_size}.")
    typer.echo(shown(target))


def pull(model: Model, hub: HubOptions = HubOptions(), talk: TalkOptions = TalkOptions()) -> None:
    """Download a model, verify it, and print where it is.

    A branch or tag is looked up again; a file cached under its commit needs no request.
    """
    from bbcu_cli.hub.locate import locate

    progress = sys.stderr.isatty() and not talk.quiet
    found = locate(model, hub_repo=hub.hub_repo, offline=hub.offline, progress=progress, refresh=True)
    if not talk.quiet:
        note(f"{found.ref or model}: {PLACES[found.source]}, SHA-256 {found.file.sha256}")
    typer.echo(shown(found.file.path))


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names, files or hf:// references; default: all.")
    ] = None,
    hub: HubOptions = HubOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Check the files on this machine again, without the network; exit code 1 if one is bad."""
    from bbcu_cli.hub.catalogue import Catalogue
    from bbcu_cli.hub.locate import status

    present = [entry.name for entry in Catalogue.load() if status(entry, hub.hub_repo).path is not None]
    checked = [_verify(name, hub.hub_repo) for name in names or present]
    for good, line in checked:
        if not (good and talk.quiet):
            typer.echo(shown(line))
    if not all(good for good, _ in checked):
        raise typer.Exit(1)


def path(model: Model, hub: HubOptions = HubOptions(), talk: TalkOptions = TalkOptions()) -> None:
    """Print the path of a model's file, if it is on this machine and valid."""
    from bbcu_cli.hub.locate import locate

    found = locate(model, hub_repo=hub.hub_repo, offline=True)
    if not talk.quiet:
        note(f"{model}: {PLACES[found.source]}, SHA-256 {found.file.sha256}")
    typer.echo(shown(found.file.path))


def remove(model: Model, hub: HubOptions = HubOptions(), talk: TalkOptions = TalkOptions()) -> None:
    """Remove a downloaded model from the cache."""
    from bbcu_cli.hub import client
    from bbcu_cli.hub.catalogue import Catalogue
    from bbcu_cli.hub.locate import is_name, status
    from bbcu_cli.hub.reference import SCHEME, parse

    if is_name(model):
        one = status(Catalogue.load()[model], hub.hub_repo)
        if one.where == "embedded":
            raise UsageError(f"{model} ships with bbcu ({one.path}) and is not removed; only downloaded models are.")
        cached = one.path
    elif model.startswith(SCHEME):
        cached = client.cached(parse(model))
    else:
        raise UsageError(f"{model} is a file of yours; only models that were downloaded are removed.")
    if cached is not None:
        client.discard(cached)
    if not talk.quiet:
        note(f"{model}: {'removed from the cache' if cached else 'is not in the cache'}")


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, a packed file, or a .pth file.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.", show_default=False)],
    *,
    overwrite: Overwrite = False,
    hub: HubOptions = HubOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Write a network as ONNX, for other runtimes: float32, any size, 0..1 in and out.

    With onnxruntime installed, the file is run on a small picture and compared with bbcu's own engine.
    """
    require_torch("Writing ONNX")
    if importlib.util.find_spec("onnx") is None:
        raise UsageError("Writing ONNX needs the package onnx; run: pip install 'bbcu-cli[onnx]'.")
    from bbcu_cli.bench.peers import onnx_difference
    from bbcu_cli.checkpoint.onnx import OPSET, to_onnx
    from bbcu_cli.files import write_whole
    from bbcu_cli.hub import locate

    if model.endswith(".pth"):
        packed = _read(Path(model))
    else:
        packed = locate(model, hub_repo=hub.hub_repo, offline=hub.offline).file.model
    content = to_onnx(packed)
    write_whole(onnx, content, overwrite=overwrite)
    if not talk.quiet:
        note(f"{onnx}: {len(content) / 1e6:.1f} MB, opset {OPSET}; x float32 (N, {packed.spec.channels}, H, W) in 0..1")
        if (difference := onnx_difference(content, packed)) is not None:
            note(f"in ONNX Runtime it differs from bbcu's engine by {difference:.1e} of the range 0..1 on average")
    typer.echo(shown(onnx))


def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or a packed file.")],
    to: Annotated[str, typer.Option(metavar="USER/REPO", help="The repository; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Whether a new repository is private.")] = False,
    *,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Commit message.")] = None,
    card: CardOptions = CardOptions(),
    talk: TalkOptions = TalkOptions(),
) -> None:
    """Upload a packed model with its config.json and model card; needs HF_TOKEN or `hf auth login`.

    Prints the reference under which it can be used, pinned to the commit.
    """
    from bbcu_cli.hub import locate
    from bbcu_cli.hub import push as hub_push

    found = locate(model, offline=True)
    file = found.file
    name = model if found.source == "embedded" else file.path.stem
    about = _description(name, file.model.spec, card, file.content)
    files = hub_push.layout(file.content, file.model, about, repo=to)
    progress = sys.stderr.isatty() and not talk.quiet
    ref = hub_push.push(files, to, private=private, message=message or f"Upload {about.name}", progress=progress)
    if not talk.quiet:
        note(f"uploaded {len(file.content)} bytes, SHA-256 {file.sha256}")
    typer.echo(str(ref))


for _name, _command in (
    ("list", list_models), ("info", info), ("convert", convert), ("pull", pull), ("verify", verify), ("path", path),
    ("remove", remove), ("export", export), ("push", push),
):  # fmt: skip
    models.command(_name, cls=Command)(guarded(_command))


def _verify(name: str, hub_repo: str | None) -> tuple[bool, str]:
    from bbcu_cli.hub.locate import locate

    try:
        found = locate(name, hub_repo=hub_repo, offline=True)
    except UsageError:
        raise
    except BbcuError as error:
        return False, f"BAD  {name}: {error}"
    return True, f"ok   {name}  {found.file.sha256}  {found.source}"


def _read(source: Path) -> PackedModel:
    from bbcu_cli.checkpoint.packed import load_packed

    if source.suffix == ".safetensors":
        return load_packed(source)
    require_torch("Reading a .pth file")
    from bbcu_cli.checkpoint.pth import load_pth

    return load_pth(source)


def _description(name: str, spec: ModelSpec, card: CardOptions, content: bytes) -> Description:
    """For the card; a file that is in the catalogue brings its own words and figures."""
    import hashlib

    from bbcu_cli.hub.catalogue import Catalogue, describe, metric
    from bbcu_cli.hub.push import Description

    digest = hashlib.sha256(content).hexdigest()
    entry = next((entry for entry in Catalogue.load() if entry.sha256 == digest), None)
    figures = dict(entry.measured) if entry else {}
    for text in card.measured or []:
        label, _, value = text.rpartition("=")
        try:
            figures[label] = float(value)
        except ValueError:
            label = ""
        if not label:
            raise UsageError(f"--measured {text!r} is not SET=DB, such as Set5=31.54.")
    return Description(
        name=entry.name if entry else name,
        summary=entry.summary if entry else describe(spec),
        license=card.license,
        datasets=card.dataset or (),
        metric=metric(spec),
        measured=figures,
    )


def _status_row(one: Status) -> dict[str, Any]:
    entry = one.entry
    return {
        "name": entry.name,
        "task": entry.spec.task,
        "arch": entry.spec.arch,
        "scale": entry.spec.scale,
        "where": one.where,
        "path": one.path and str(one.path),
        "hub": one.ref and str(one.ref),
        "size": one.size,
        "sha256": entry.sha256,
        "metric": entry.metric,
        "measured": dict(entry.measured),
    }


def _located_row(found: Located) -> dict[str, Any]:
    file, spec = found.file, found.file.model.spec
    return {
        "path": str(file.path),
        "hub": found.ref and str(found.ref),
        "size": len(file.content),
        "sha256": file.sha256,
        "spec": spec.to_dict(),
        "halo": spec.halo,
        "provenance": dict(file.model.provenance),
    }


def _network(spec: ModelSpec) -> str:
    what = f"super-resolution x{spec.scale}" if spec.task == "sr" else spec.task
    return f"{spec.arch} for {what}, {spec.features} features, {spec.blocks} binary units, k {spec.k:g}"


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f} MB"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    return "none" if value is None else str(value)


def _table(lines: list[list[str]]) -> str:
    """Columns aligned by spaces; control characters in the cells are written out."""
    safe = [[shown(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in safe) for column in range(len(safe[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in safe
    )


def _print_json(value: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))
