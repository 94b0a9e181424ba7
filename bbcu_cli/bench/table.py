"""Measure every model of weights/ on folders of test sets; writes the table of its README and the catalogue's figures.

``python -m bbcu_cli.bench.table SETS``, where SETS holds Set5, Set14, BSD20, Classic5, ... as far as they are at hand.
A line is what `bbcu eval --gt SETS/Set5 --task sr --scale 4` prints as the mean. With ``--photos`` it measures
compressed and noisy files instead, see `bench.photo_table`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from bbcu_cli.bench import photo_table
from bbcu_cli.errors import BbcuError, UsageError
from bbcu_cli.files import write_whole
from bbcu_cli.hub.catalogue import Catalogue, Entry, weights_dir
from bbcu_cli.restoration.model import Shelf, load_model
from bbcu_cli.restoration.pipeline import run_tiled
from bbcu_cli.score import markdown
from bbcu_cli.score.metrics import mean_scores
from bbcu_cli.score.pairs import images_at
from bbcu_cli.score.trial import Trial, evaluate_trial
from bbcu_cli.spec import ModelSpec, Task

README: Final = "README.md"
BEGIN: Final = "<!-- measured by python -m bbcu_cli.bench.table -->"
END: Final = "<!-- end of the measured table -->"
TITLES: Final = ("model", "images", "input", "PSNR of the input", "PSNR", "gain", "SSIM")

SETS: Final[dict[Task, tuple[str, ...]]] = {
    "sr": ("Set5", "Set14", "BSD20", "B100", "Urban100", "Manga109"),
    "denoise": ("BSD20", "CBSD68", "Kodak24", "Urban100"),
    "deblock": ("Classic5", "LIVE1"),
}
COLOUR_QUALITIES: Final = (10, 30, 50, 70, 80, 90, 95)
COLOUR_SETS: Final = ("Set14", "LIVE1")  # lossless pictures; those of BSDS are JPEGs themselves


def trials(entry: Entry) -> list[Trial]:
    """The columns of the paper's tables that a network can be measured on; of photos for one that sees colour."""
    spec = entry.spec
    if spec.task == "sr":
        return [Trial("sr", scale=spec.scale)]
    if spec.task == "denoise":
        return [Trial("denoise", sigma=sigma) for sigma in (15, 25, 50)]
    if spec.channels == 3:
        low, high = entry.serves.quality if entry.serves else (1, 100)
        return [Trial("deblock", quality=q, colour=True) for q in COLOUR_QUALITIES if low <= q <= high]
    return [Trial("deblock", quality=quality) for quality in (10, 20, 30, 40)]


def sets_for(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the test sets that a network can be measured on; gray pictures say nothing of colour."""
    return COLOUR_SETS if spec.task == "deblock" and spec.channels == 3 else SETS[spec.task]


def measure(entry: Entry, sets: Path) -> Iterator[tuple[str, float, str]]:
    """(label, PSNR, line of the table) for every test set at hand that fits the model.

    Raises:
        BbcuError: an image or the weights cannot be read.
    """
    with load_model(entry.name) as model:
        for name in sets_for(entry.spec):
            if not (sets / name).is_dir():
                continue
            truths = images_at(sets / name)
            for trial in trials(entry):
                rows = [image.row for image in evaluate_trial(trial, truths, partial(run_tiled, model))]
                score = mean_scores([row.scores for row in rows])
                given = mean_scores([row.baseline for row in rows if row.baseline is not None])
                rgb = trial.convention.headline == "rgb"
                psnr, ssim = (score.psnr_rgb, score.ssim_rgb) if rgb else (score.psnr_y, score.ssim_y)
                before = given.psnr_rgb if rgb else given.psnr_y
                figures = (f"{before:.2f}", f"**{psnr:.2f}**", f"{psnr - before:+.2f}", f"{ssim:.4f}")
                line = markdown.row((entry.name, name, f"{trial.baseline}, {trial.strength}", *figures))
                yield name if entry.spec.task == "sr" else f"{name} {trial.strength}", psnr, line


def missing(entry: Entry) -> str:
    """The line of a model that nobody has trained yet."""
    return markdown.row((entry.name, "not trained", *[""] * (len(TITLES) - 2)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bbcu_cli.bench.table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", type=Path, help="folder of folders: Set5, Set14, BSD20, Classic5, ...")
    parser.add_argument("--photos", action="store_true", help="measure compressed and noisy files instead")
    parser.add_argument("--only", default="", help="with --photos, lines that begin with this ('sr -s 2'); others stay")
    given = parser.parse_args(arguments)
    try:
        if given.photos:
            _measure_photos(given.sets, given.only)
        else:
            _measure_models(given.sets)
    except BbcuError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _measure_photos(sets: Path, only: str) -> None:
    folder, lines = weights_dir(), []
    before, after = _parts(folder / README, photo_table.BEGIN, photo_table.END)
    known = (folder / README).read_text(encoding="utf-8").removeprefix(before + photo_table.BEGIN)
    known = known.removesuffix(photo_table.END + after) if only else ""
    with Shelf(load_model) as shelf:
        for line in photo_table.PhotoTable(sets, Catalogue.load(folder), shelf).lines(only, known.splitlines()):
            lines.append(line)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    _write_table(folder / README, lines, photo_table.BEGIN, photo_table.END)


def _measure_models(sets: Path) -> None:
    folder, lines = weights_dir(), [*markdown.head(TITLES)]
    _parts(folder / README, BEGIN, END)
    catalogue = Catalogue.load(folder)
    entries = dict(catalogue.entries)
    for entry in catalogue:
        if not entry.embedded:
            lines.append(missing(entry))
            continue
        if entry.serves and entry.spec.task != "deblock":
            continue  # the table of photos has those
        found = list(measure(entry, sets))
        entries[entry.name] = replace(entry, measured={label: round(psnr, 2) for label, psnr, _ in found})
        lines += [line for _, _, line in found]
        sys.stdout.write("".join(f"{line}\n" for _, _, line in found))
    _write_table(folder / README, lines, BEGIN, END)
    Catalogue(entries).save(folder)


def _write_table(path: Path, lines: list[str], begins: str, ends: str) -> None:
    """Put the table between its marks in the README."""
    before, after = _parts(path, begins, ends)
    write_whole(path, (f"{before}{begins}\n" + "\n".join(lines) + f"\n{ends}{after}").encode())


def _parts(path: Path, begins: str, ends: str) -> tuple[str, str]:
    """What stands before and after the marks; a UsageError without them."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(begins)
    _, end, after = rest.partition(ends)
    if not (begin and end):
        raise UsageError(f"{path} has no place for the table: the lines {begins} and {ends}.")
    return before, after


if __name__ == "__main__":
    raise SystemExit(main())
