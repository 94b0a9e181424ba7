"""Evaluations of whole files, as people have them: made from ground truth, or given beside it.

The restoration gets a file and not samples, so that what the file says of its compression counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bbcu_cli.errors import UsageError
from bbcu_cli.image import Image, decode
from bbcu_cli.score.degrade import resize_bicubic
from bbcu_cli.score.metrics import Convention, score
from bbcu_cli.score.pairs import Pair, check_sizes
from bbcu_cli.score.report import ReportRow
from bbcu_cli.score.trial import (
    MAX_PIXELS,
    Evaluated,
    Pixels,
    Trial,
    comparable,
    convention_of,
    named,
)
from bbcu_cli.spec import Task

RestoreFile = Callable[[Path | bytes], Image]
"""A path, or the content of a file -> the restored picture, S times as large."""


def evaluate_files(trial: Trial, truths: Iterable[Path], restore: RestoreFile) -> Iterator[Evaluated]:
    """Make the file of each ground truth, restore it, and score the result and the baseline.

    Raises:
        ImageError: a file cannot be decoded.
        UsageError: a picture is too small, or the quality is out of range.
        EngineError: the engine failed.
    """
    for path in truths:
        image = decode(path, max_pixels=MAX_PIXELS)
        with named(path):
            evaluated = score_file(trial, path.stem, image, restore)
        yield evaluated


def score_file(trial: Trial, name: str, image: Image, restore: RestoreFile) -> Evaluated:
    """Make the file of one ground truth, restore and score it; errors as of `evaluate_files`."""
    truth, file, given = trial.encode(image)
    pictures = (truth, restore(file).pixels, given)
    return _evaluated(name, pictures, trial.convention, trial.task)


def given_convention(task: Task, scale: int, border: int | None = None) -> Convention:
    """How results of given files are counted: super-resolution on Y, the others on RGB."""
    usual = convention_of("sr" if task == "sr" else "denoise", scale)
    border = usual.border if border is None else border
    return replace(usual, border=border, gray_is_luma=False, note="inputs as given; outputs in the depth of the file")


def evaluate_given(
    pairs: Sequence[Pair], task: Task, scale: int, convention: Convention, restore: RestoreFile
) -> Iterator[Evaluated]:
    """Restore given inputs (the `restored` of each pair), and score the results and the inputs themselves.

    Raises:
        ImageError: a file cannot be decoded.
        UsageError: the sizes do not fit; before anything is restored.
        EngineError: the engine failed.
    """
    check_sizes(pairs, scale, enlarged=scale)
    for one in pairs:
        yield score_given(one, task, scale, convention, restore)


def score_given(one: Pair, task: Task, scale: int, convention: Convention, restore: RestoreFile) -> Evaluated:
    """Restore and score one input, whose size fits its ground truth; errors as of `evaluate_given`."""
    truth, source = (decode(path, max_pixels=MAX_PIXELS) for path in (one.truth, one.restored))
    with named(one.restored):
        result = restore(one.restored)
        baseline = Image(_enlarged(source.pixels, scale))
        a, b, peak = comparable(truth, result, scale)
        _, c, _ = comparable(truth, baseline, scale)
        pictures = (_rgb(a), _rgb(b), _rgb(c))
        return _evaluated(one.called, pictures, convention, task, peak)


def _enlarged(pixels: Pixels, scale: int) -> Pixels:
    """By MATLAB's bicubic, in the depth that the pixels have."""
    if scale == 1:
        return pixels
    size = (pixels.shape[0] * scale, pixels.shape[1] * scale)
    if pixels.dtype == np.uint8:
        return resize_bicubic(pixels, size)
    top = np.iinfo(pixels.dtype).max
    large: Pixels = np.rint(np.clip(resize_bicubic(pixels / top, size), 0, 1) * top).astype(pixels.dtype)
    return large


def _rgb(pixels: Pixels) -> Pixels:
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)


def _evaluated(
    name: str, pictures: tuple[Pixels, Pixels, Pixels], convention: Convention, task: Task, peak: float = 255
) -> Evaluated:
    """Scores of truth, result and baseline."""
    truth, restored, given = pictures
    if restored.shape != truth.shape:
        raise UsageError(f"the result has the shape {restored.shape}, its ground truth {truth.shape}")
    scores, baseline = (
        score(truth, picture, convention, peak=peak, blocking=task == "deblock") for picture in (restored, given)
    )
    return Evaluated(ReportRow(name, scores, baseline), truth, restored, given)
