"""What `bbcu --help` and `bbcu --version` answer, at once: typer and rich would have to be imported first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bbcu_cli import __version__

COMMANDS: Final = {
    "sr": "Enlarge images 2, 3 or 4 times.",
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


def answer(arguments: list[str]) -> str | None:
    """The text for a command line that asks for help or the version and for nothing else."""
    if arguments == ["--version"]:
        return f"bbcu {__version__}"
    if arguments not in (["--help"], ["-h"]):
        return None
    commands = "\n".join(f"  {name:8} {line}" for name, line in COMMANDS.items())
    return (
        f"{SUMMARY}\n\n{EXAMPLES}\n\nUsage: bbcu COMMAND [OPTIONS] [ARGS]...\n\nCommands:\n{commands}\n\n"
        "Options:\n  --version             Print the version and exit.\n"
        "  --install-completion  Complete commands and options in this shell.\n"
        "  -h, --help            Show this message; `bbcu COMMAND --help` shows a command's options.\n\n"
        f"{EXIT_CODES}\nDocumentation: {DOCS}"
    )
