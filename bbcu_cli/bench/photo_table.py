"""The table of photos in weights/README.md: compressed and noisy files, restored as by the command line's defaults."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bbcu_cli.hub.catalogue import Catalogue
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Shelf
from bbcu_cli.restoration.serving import Restorer, serve
from bbcu_cli.score import markdown
from bbcu_cli.score.files import evaluate_files, evaluate_given, given_convention
from bbcu_cli.score.metrics import mean_scores
from bbcu_cli.score.pairs import images_at, pair
from bbcu_cli.score.trial import Evaluated, Trial
from bbcu_cli.spec import SCALES

BEGIN: Final = "<!-- measured by python -m bbcu_cli.bench.table --photos -->"
END: Final = "<!-- end of the table of photos -->"
SETS: Final = ("Set5", "Set14", "BSD20", "LIVE1", "Kodak24")
PAIRS: Final = ("CC15",)  # each with the folders noisy and mean

SR_QUALITIES: Final = (40, 60, 75, 85, 95)
DEBLOCK_QUALITIES: Final = (10, 30, 50, 70, 80, 90, 95)
EVERY_QUALITY: Final = tuple(range(5, 101, 5))
SIGMAS: Final = (0, 5, 15, 25, 40)
NOISY_QUALITY: Final = 90

Means = tuple[float, float]
"""PSNR of the input and of the result in dB, both means over a set; on Y for super-resolution, else on RGB."""


def trials() -> Iterator[tuple[str, str, Trial]]:
    """(command, input in words, trial) of the lines of the table."""
    for scale in SCALES:
        for quality in SR_QUALITIES:
            yield f"`bbcu sr -s {scale}`", f"JPEG {quality}", Trial("sr", scale, jpeg=quality)
        yield f"`bbcu sr -s {scale}`", "clean PNG", Trial("sr", scale)
    for quality in DEBLOCK_QUALITIES:
        yield "`bbcu deblock`", f"JPEG {quality}", Trial("deblock", quality=quality, colour=True)
    for sigma in SIGMAS:
        noise = f"sigma {sigma}" if sigma else "no noise"
        yield "`bbcu denoise`", f"{noise}, JPEG {NOISY_QUALITY}", Trial("denoise", sigma=sigma, jpeg=NOISY_QUALITY)
    yield "`bbcu denoise`", "clean PNG", Trial("denoise")


class PhotoTable:
    """Lines of the table, from the folders of sets that are at hand."""

    def __init__(self, folder: Path, catalogue: Catalogue, shelf: Shelf) -> None:
        """Args: folder: of the sets. shelf: opens the networks."""
        self._sets = {name: images_at(folder / name) for name in SETS if (folder / name).is_dir()}
        self._pairs = {
            name: pair(folder / name / "mean", folder / name / "noisy")
            for name in PAIRS
            if (folder / name / "noisy").is_dir()
        }
        self._restorer: Callable[[Wish], Restorer] = lambda wish: Restorer(partial(serve, wish, catalogue, shelf))

    def lines(self, only: str = "", known: Iterable[str] = ()) -> Iterator[str]:
        """The table, line by line; each takes its time.

        Args:
            only: measure the commands that begin so; of the others come the lines that are known.
            known: a table of before.
        """
        columns = ("restored by", "input", *self._sets, *self._pairs, "networks")
        yield from markdown.head(columns)
        stays = {line.split(" | ")[0] + " | " + line.split(" | ")[1]: line for line in known if " | " in line}
        for command, given, measured in self._rows():
            if command.removeprefix("`bbcu ").startswith(only):
                yield measured()
            elif line := stays.get(f"| {command} | {given}"):
                yield line

    def _rows(self) -> Iterator[tuple[str, str, Callable[[], str]]]:
        """(command, input in words, measures the line)."""
        for command, given, trial in trials():
            yield command, given, partial(self._trial, command, given, trial)
        if self._sets:
            given = f"JPEG {EVERY_QUALITY[0]}, {EVERY_QUALITY[1]}, ... {EVERY_QUALITY[-1]}: the least gain"
            yield "`bbcu deblock`", given, partial(self._every_quality, given)
        if self._pairs:
            yield "`bbcu denoise`", "camera noise", self._camera_noise

    def _trial(self, command: str, given: str, trial: Trial) -> str:
        restorer = self._restorer(Wish(trial.task, trial.scale))
        cells = [figures(means(trial, images, restorer)) for images in self._sets.values()]
        return markdown.row((command, given, *cells, *("" for _ in self._pairs), restorer.told))

    def _every_quality(self, given: str) -> str:
        restorer = self._restorer(Wish("deblock"))
        cells = [_worst(images, restorer) for images in self._sets.values()]
        return markdown.row(("`bbcu deblock`", given, *cells, *("" for _ in self._pairs), restorer.told))

    def _camera_noise(self) -> str:
        restorer, convention = self._restorer(Wish("denoise")), given_convention("denoise", 1)
        found = [evaluate_given(pairs, "denoise", 1, convention, restorer) for pairs in self._pairs.values()]
        cells = [figures(_means(images, "psnr_rgb")) for images in found]
        return markdown.row(("`bbcu denoise`", "camera noise", *("" for _ in self._sets), *cells, restorer.told))


def means(trial: Trial, truths: list[Path], restorer: Restorer) -> Means:
    """The figures of a trial on one set."""
    return _means(evaluate_files(trial, truths, restorer), f"psnr_{trial.convention.headline}")


def figures(found: Means) -> str:
    """The cell of a line: before, after, gain."""
    before, after = found
    gain = f" ({round(after - before, 2) + 0.0:+.2f})" if math.isfinite(before) else ""
    return f"{before:.2f}, **{after:.2f}**{gain}"


def _means(images: Iterable[Evaluated], headline: str) -> Means:
    rows = [image.row for image in images]
    before = mean_scores([row.baseline for row in rows if row.baseline])
    after = mean_scores([row.scores for row in rows])
    return getattr(before, headline), getattr(after, headline)


def _worst(truths: list[Path], restorer: Restorer) -> str:
    """The least gain at any quality, and where."""
    gains = {}
    for quality in EVERY_QUALITY:
        before, after = means(Trial("deblock", quality=quality, colour=True), truths, restorer)
        gains[quality] = after - before if math.isfinite(before) else 0.0
    least = min(gains, key=lambda quality: round(gains[quality], 2))
    return f"{round(gains[least], 2) + 0.0:+.2f} (JPEG {least})"
