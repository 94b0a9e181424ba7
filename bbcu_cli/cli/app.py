"""The `bbcu` command: registers the commands, answers --version."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from bbcu_cli import __version__
from bbcu_cli.cli.bench import bench
from bbcu_cli.cli.console import guarded
from bbcu_cli.cli.doctor import doctor
from bbcu_cli.cli.evaluate import evaluate
from bbcu_cli.cli.front import EXIT_CODES, SUMMARY
from bbcu_cli.cli.help import Command, Group
from bbcu_cli.cli.models import models
from bbcu_cli.cli.restore import deblock, denoise, sr
from bbcu_cli.cli.train import train

app = typer.Typer(
    name="bbcu",
    help=SUMMARY,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    cls=Group,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bbcu {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Restore photos with binarized neural networks: super-resolution, denoising, JPEG deblocking."""


for command in (sr, denoise, deblock, bench, doctor, train):
    app.command(cls=Command)(guarded(command))
app.command("eval", cls=Command)(guarded(evaluate))
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line."""
    # Pillow warns about small damage in metadata; what matters is said in the result's notes.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    app()
