"""Bring ``weights/catalogue.json`` up to date after a file of weights was added, replaced or removed.

``python -m bbcu_cli.hub`` takes over SHA-256, size and spec of every file; ``--measured sr-m-x4 Set5 31.54`` also
records a figure (PSNR in dB, may be repeated); ``--check`` changes nothing and exits with 1 if something would change.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from bbcu_cli.errors import BbcuError
from bbcu_cli.hub.catalogue import Catalogue, weights_dir


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bbcu_cli.hub", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measured", nargs=3, action="append", default=[], metavar=("NAME", "SET", "DB"))
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if something would change")
    options = parser.parse_args(arguments)
    folder = weights_dir()
    try:
        catalogue, changes = Catalogue.load(folder).refreshed(folder)
        entries = dict(catalogue.entries)
        for name, label, value in options.measured:
            entry = catalogue[name]
            entries[name] = replace(entries[name], measured={**entries[name].measured, label: float(value)})
            changes.append(f"{name}: {entry.metric} on {label} is {float(value):g} dB")
        if changes and not options.check:
            Catalogue(entries).save(folder)
    except (BbcuError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(("\n".join(changes) or f"{folder} and its catalogue agree") + "\n")
    return 1 if changes and options.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
