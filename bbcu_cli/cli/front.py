"""What `bbcu --help` and `bbcu --version` answer, at once: typer and rich would have to be imported first."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

from bbcu_cli import __version__

COMMANDS: Final = {
    "sr": "Enlarge images to any size up to 16 times.",
    "denoise": "Remove noise from images.",
    "deblock": "Remove the blocks and ringing of JPEG compression.",
    "eval": "Measure PSNR and SSIM, and print the convention used.",
    "models": "List, inspect, convert, download, verify and publish models.",
    "train": "Train a network on a folder of pictures.",
    "bench": "Time the engines on one input, and compare with the limit of the hardware.",
    "doctor": "Show engines, kernel sets, threads, weights and versions, and why something is missing.",
}

SUMMARY: Final = "Restore photos with binarized neural networks: super-resolution, denoising, JPEG deblocking."

EXAMPLES: Final = """\
  bbcu sr photo.jpg --scale 4
  bbcu denoise --sigma 25 folder/
  bbcu deblock photo.jpg
  bbcu eval --gt hr/ --pred out/"""

EXIT_CODES: Final = (
    "Exit codes: 0 all done, 1 some files failed, 2 bad usage or input, 3 weights unavailable, 130 interrupted, "
    "141 nobody reads the output."
)


DOCS: Final = Path(__file__).resolve().parents[1] / "docs"


COMPLETION: Final = ("--install-completion", "--show-completion")
_OPTIONS: Final = {
    "--version": "Print the version and exit.",
    "--install-completion": "Complete commands and options in the shell that runs this; takes no argument.",
    "-h, --help": "Show this message; `bbcu COMMAND --help` shows a command's options.",
}


def answer(arguments: list[str], columns: int = 80) -> str | None:
    """The text for a command line that asks for help or the version and for nothing else, in lines of that width."""
    if arguments == ["--version"]:
        return f"bbcu {__version__}"
    if arguments not in (["--help"], ["-h"]):
        return None
    lists = (f"{title}:\n{_list(rows, columns)}" for title, rows in (("Commands", COMMANDS), ("Options", _OPTIONS)))
    return "\n\n".join(
        (
            _wrapped(SUMMARY, columns),
            EXAMPLES,
            "Usage: bbcu COMMAND [OPTIONS] [ARGS]...",
            *lists,
            f"{_wrapped(EXIT_CODES, columns)}\nDocumentation: {DOCS}",
        )
    )


def _list(rows: dict[str, str], columns: int) -> str:
    names = max(map(len, rows))
    return "\n".join(
        _wrapped(text, columns, f"  {name:{names}}  ", " " * (names + 4))
        if columns > 2 * names + 10
        else f"  {name}\n" + _wrapped(text, columns, " " * 6, " " * 6)
        for name, text in rows.items()
    )


def _wrapped(text: str, columns: int, first: str = "", rest: str = "") -> str:
    width = max(columns, 40)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def misused(arguments: list[str]) -> str | None:
    """What is wrong with a command line that gives a shell to complete in, which typer would ignore."""
    if len(arguments) < 2 or arguments[0] not in COMPLETION:
        return None
    return f"{arguments[0]} takes no argument: it is for the shell that runs it."
