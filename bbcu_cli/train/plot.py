"""The log of a training run as a picture: validation, loss and rate over the steps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from bbcu_cli.errors import TrainingError
from bbcu_cli.files import write_atomic
from bbcu_cli.train.checkpoint import LOG

PLOT: Final = "curve.png"

Points = Sequence[tuple[float, float]]

# Sizes in pixels of the finished picture, which is drawn larger and reduced, so that its lines are smooth.
_WIDTH: Final = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 32, 34, 26  # around each panel
_TEXT: Final = 13
_LARGER: Final = 3

_CURVE: Final = "#0072b2"
_GRID: Final = "#e0e0e0"
_INK: Final = "#404040"


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: its title, how its latest value is written, its height in pixels, and (step, value)s."""

    title: str
    form: str
    height: int
    points: Points


def plot(run: Path) -> Path:
    """Draw the log in the folder of a run.

    Returns:
        The PNG file, in that folder.

    Raises:
        TrainingError: the folder has no log, or nothing is in it yet.
        OutputError: the file cannot be written.
    """
    rows = read_log(run / LOG)
    picture = _drawn(panels(rows), f"{run.resolve().name}, step {rows[-1]['step']:,}")
    write_atomic(run / PLOT, lambda file: picture.save(file, format="PNG", optimize=True))
    return run / PLOT


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, one for each checkpoint; a line that a kill cut off is left out.

    Raises:
        TrainingError: there is no log, or no whole line in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TrainingError(f"No log of a training run: {path} cannot be read ({error.strerror}).") from error
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"step", "loss", "rate"} <= set(row):
            rows.append(row)
    if not rows:
        raise TrainingError(f"{path} has no checkpoint yet; wait for the first one.")
    return rows


def panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """What there is to see in a log: validation at each level, if there was one, loss and rate."""
    levels = list({level: None for row in rows for level in row.get("scores", {})})
    scores = {level: [(row["step"], row["scores"][level]) for row in rows if row.get("scores")] for level in levels}
    if not scores:  # of an earlier version
        old = [(row["step"], row["psnr"]) for row in rows if row.get("psnr") is not None]
        scores = {"": old} if old else {}
    height = 300 if len(scores) == 1 else 180
    return [
        *(Panel(f"validation {level}".rstrip(), "{:.2f} dB", height, points) for level, points in scores.items()),
        Panel("loss in levels of 255", "{:.3f}", 180, [(row["step"], 255 * row["loss"]) for row in rows]),
        Panel("learning rate", "{:.2g}", 130, [(row["step"], row["rate"]) for row in rows]),
    ]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between both ends, at most so many: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _drawn(shown: Sequence[Panel], heading: str) -> Image.Image:
    height, last = sum(panel.height for panel in shown), max(panel.points[-1][0] for panel in shown)
    canvas = Image.new("RGB", (_LARGER * _WIDTH, _LARGER * height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_LARGER * _TEXT)
    top = 0
    for panel in shown:
        box = (_LEFT, top + _TOP, _WIDTH - _RIGHT, top + panel.height - _BOTTOM)
        _draw_panel(panel, last, draw, font, tuple(_LARGER * n for n in box))
        top += panel.height
    draw.text((_LARGER * (_WIDTH - _RIGHT), _LARGER * (_TOP - 10)), heading, _INK, font, "rs")
    return canvas.resize((_WIDTH, height), Image.Resampling.LANCZOS)


def _draw_panel(panel: Panel, last: float, draw: ImageDraw.ImageDraw, font: Any, box: tuple[int, ...]) -> None:
    """Args: last: step at the right end; box: left, top, right, bottom of the frame."""
    left, top, right, bottom = box
    low, high = _ends(panel.points, last)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x / last, bottom - (bottom - top) * (y - low) / (high - low)

    for tick in ticks(low, high, max(2, (bottom - top) // (_LARGER * 30))):
        _, y = place(0, tick)
        draw.line((left, y, right, y), _GRID, _LARGER)
        draw.text((left - 8 * _LARGER, y), f"{tick:.6g}", _INK, font, "rm")
    for tick in ticks(0, last, 10):
        x, _ = place(tick, 0)
        draw.line((x, top, x, bottom), _GRID, _LARGER)
        draw.text((x, bottom + 6 * _LARGER), f"{tick:,.10g}", _INK, font, "ma")
    seen = [place(x, y) for x, y in panel.points if low <= y <= high]
    if len(seen) > 1:
        draw.line(seen, _CURVE, 2 * _LARGER, joint="curve")
    draw.circle(seen[-1], 3 * _LARGER, _CURVE)
    draw.text((left, top - 10 * _LARGER), panel.title, _INK, font, "ls")
    value = panel.form.format(panel.points[-1][1])
    draw.text((left + font.getlength(panel.title) + 16 * _LARGER, top - 10 * _LARGER), value, _CURVE, font, "ls")


def _ends(points: Points, last: float) -> tuple[float, float]:
    """What an axis spans: all but the first steep twentieth of a run, which would flatten the rest."""
    values = [y for x, y in points if x >= last / 20] or [y for _, y in points]
    margin = 0.05 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 1.0
    return min(values) - margin, max(values) + margin
