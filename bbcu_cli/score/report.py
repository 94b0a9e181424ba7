"""Rows of an evaluation and their forms: a table for people, JSON, CSV and Markdown. Pure formatting."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Final

from bbcu_cli.score import markdown
from bbcu_cli.score.metrics import Convention, Scores, mean_scores

SCHEMA: Final = 1
TITLES: Final = {
    "psnr_y": "PSNR Y",
    "ssim_y": "SSIM Y",
    "psnr_rgb": "PSNR RGB",
    "ssim_rgb": "SSIM RGB",
    "psnrb_y": "PSNR-B Y",
}
_ALWAYS: Final = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")  # keys that the JSON schema promises


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One image: what the result scored and, when bbcu degraded it itself, what the baseline scored."""

    name: str
    scores: Scores
    baseline: Scores | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation.

    Attributes:
        title: what was evaluated, in words.
        convention: how the numbers were made.
        rows: one per image, at least one; either all have a baseline or none.
        baseline: what the baseline is ("bicubic"); empty when there is none.
        facts: more to know, as (name, value) pairs: model, engine.
    """

    title: str
    convention: Convention
    rows: tuple[ReportRow, ...]
    baseline: str = ""
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def mean(self) -> Scores:
        """Mean of the per-image scores."""
        return mean_scores([row.scores for row in self.rows])

    @property
    def baseline_mean(self) -> Scores | None:
        """Mean of the baseline's per-image scores."""
        baselines = [row.baseline for row in self.rows if row.baseline]
        return mean_scores(baselines) if baselines else None

    @property
    def mean_row(self) -> ReportRow:
        """The means as a row of their own."""
        return ReportRow("mean", self.mean, self.baseline_mean)

    @property
    def headline(self) -> str:
        """The score that the paper's tables are about."""
        return f"psnr_{self.convention.headline}"

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the scores that at least one image has."""
        return tuple(name for name in TITLES if any(not math.isnan(getattr(r.scores, name)) for r in self.rows))


def figure(name: str, value: float) -> str:
    """A score as text: PSNR to 0.01 dB, SSIM to 0.0001, "inf" for identical images, "n/a" where not defined."""
    if math.isnan(value):
        return "n/a"
    return f"{value:.{4 if name.startswith('ssim') else 2}f}"


def gain(row: ReportRow, name: str) -> str:
    """By how much the result is above the baseline, with its sign; "n/a" when one of them has no finite score."""
    difference = getattr(row.scores, name) - getattr(row.baseline, name) if row.baseline else math.nan
    # Adding 0.0 turns the -0.0 of a rounded loss into 0.0.
    return f"{round(difference, 2) + 0.0:+.2f}" if math.isfinite(difference) else "n/a"


def cells(report: Report) -> list[list[str]]:
    """The table as text: a heading, a line per image, the mean; with a baseline its headline score and the gain."""
    headline = report.headline
    heading = ["image", *(TITLES[name] for name in report.measured)]
    if report.baseline:
        heading += [f"{report.baseline} {TITLES[headline]}", "gain dB"]
    lines = [heading]
    for row in (*report.rows, report.mean_row):
        line = [_plain(row.name), *(figure(name, getattr(row.scores, name)) for name in report.measured)]
        if report.baseline and row.baseline:
            line += [figure(headline, getattr(row.baseline, headline)), gain(row, headline)]
        lines.append(line)
    return lines


def _plain(text: str) -> str:
    """Text from outside on one line, without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def to_text(report: Report) -> str:
    """A table of aligned columns with the convention below it."""
    lines = cells(report)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def aligned(line: list[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        return "  ".join([line[0].ljust(widths[0]), *numbers])

    heading, *images, mean = map(aligned, lines)
    notes = [f"{name}: {_plain(value)}" for name, value in (*report.facts, ("convention", str(report.convention)))]
    wrapped = [textwrap.fill(note, 100, subsequent_indent="  ") for note in notes]
    return "\n".join([_plain(report.title), heading, rule, *images, rule, mean, *wrapped]) + "\n"


def to_markdown(report: Report) -> str:
    """A Markdown table with the convention below it."""
    heading, *lines = [[_markdown_cell(cell) for cell in line] for line in cells(report)]
    table = "\n".join((*markdown.head(heading, numbers=True), *map(markdown.row, lines)))
    facts = "".join(f"\n- {name}: {_markdown_cell(value)}" for name, value in report.facts)
    return f"**{_markdown_cell(report.title)}**\n\n{table}\n{facts}\n- convention: {report.convention}\n"


def _markdown_cell(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\|*_`<>[]" else c for c in _plain(text))


def to_csv(report: Report) -> str:
    """Comma-separated values: a heading, a line per image, the mean; full precision, "inf", empty where not defined."""
    names = list(dict.fromkeys((*_ALWAYS, *report.measured)))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    prefixes = ["", "baseline_"] if report.baseline else [""]
    writer.writerow(["name", *(prefix + name for prefix in prefixes for name in names)])
    for row in (*report.rows, report.mean_row):
        values = [getattr(scores, name) for scores in (row.scores, row.baseline) if scores for name in names]
        writer.writerow([row.name, *("" if math.isnan(value) else repr(value) for value in values)])
    return buffer.getvalue()


def scores_to_json(scores: Scores) -> dict[str, Any]:
    """Scores as JSON values: null for what is not a finite number; the names of infinite ones under "infinite"."""
    values = {name: value for name, value in asdict(scores).items() if name in _ALWAYS or not math.isnan(value)}
    fields: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in values.items()}
    if infinite := [name for name, value in values.items() if math.isinf(value)]:
        fields["infinite"] = infinite
    return fields


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON values, schema 1.

    ``{"schema": 1, "title", "facts", "convention": {...}, "images": [{"name", "psnr_y", "ssim_y", "psnr_rgb",
    "ssim_rgb"}], "mean": {...}}``, and where there is a baseline ``"baseline"`` beside the scores of each image and
    of the mean, its name in ``"baseline"`` at the top.
    """

    def fields(row: ReportRow) -> dict[str, Any]:
        baseline = {"baseline": scores_to_json(row.baseline)} if row.baseline else {}
        return {**scores_to_json(row.scores), **baseline}

    return {
        "schema": SCHEMA,
        "title": report.title,
        "facts": dict(report.facts),
        "convention": report.convention.to_dict(),
        **({"baseline": report.baseline} if report.baseline else {}),
        "images": [{"name": row.name, **fields(row)} for row in report.rows],
        "mean": fields(report.mean_row),
    }
