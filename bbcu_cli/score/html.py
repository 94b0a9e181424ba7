"""An evaluation as one self-contained page: sortable table, and before/after sliders that work offline."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from bbcu_cli.image.color import to_8_bit
from bbcu_cli.score.report import TITLES, Report, ReportRow, figure, gain

Pixels = NDArray[Any]

_VIEW: Final = 640  # longest side of what a slider shows, in the image's own pixels
_THUMBNAIL: Final = 72


@dataclass(frozen=True, slots=True)
class Views:
    """Pictures of one image as data URIs.

    Attributes:
        thumbnail: the whole result, small.
        result, truth, given: the same part of each at full resolution, at most 640 px a side; `given` is the
            baseline, empty when unknown.
        size: (height, width) of that part.
        caption: which part it is; empty when it is all.
    """

    thumbnail: str
    result: str
    truth: str
    given: str
    size: tuple[int, int]
    caption: str


def views(truth: Pixels, restored: Pixels, given: Pixels | None = None) -> Views:
    """Pictures for the page from uint8 or uint16 (H, W, C), C = 1 or 3; made as images come, to keep only these.

    A large image is shown by its centre: reduced, nothing of what a restoration changes would be seen.
    """
    height, width = restored.shape[:2]
    rows, columns = min(height, _VIEW), min(width, _VIEW)
    top, left = (height - rows) // 2, (width - columns) // 2
    part = np.s_[top : top + rows, left : left + columns]
    whole = Pillow.fromarray(_rgb(restored))
    whole.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return Views(
        thumbnail=_data_uri(whole, quality=80),
        result=_data_uri(Pillow.fromarray(_rgb(restored[part])), quality=92),
        truth=_data_uri(Pillow.fromarray(_rgb(truth[part])), quality=92),
        given="" if given is None else _data_uri(Pillow.fromarray(_rgb(given[part])), quality=92),
        size=(rows, columns),
        caption="" if (rows, columns) == (height, width) else f"centre of {width}x{height} px",
    )


def _rgb(pixels: Pixels) -> NDArray[np.uint8]:
    eight = to_8_bit(pixels)
    return np.ascontiguousarray(np.broadcast_to(eight, (*eight.shape[:2], 3)))


def _data_uri(picture: Pillow.Image, quality: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_html(report: Report, pictures: list[Views]) -> str:
    """The page; `pictures` go with `report.rows`. Without scripts the table and the pictures are still there."""
    heads = ["image", *(TITLES[name] for name in report.measured)]
    if report.baseline:
        heads += [f"{report.baseline} {TITLES[report.headline]}", "gain, dB"]
    headings = "".join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in heads)
    bodies = "\n".join(_body(report, row, view) for row, view in zip(report.rows, pictures, strict=True))
    return Template(_asset("report.html")).substitute(
        title=escape(report.title),
        style=_asset("report.css"),
        facts="".join(f"<p>{escape(name)}: {escape(value)}</p>" for name, value in report.facts),
        convention=escape(str(report.convention)),
        headings=headings,
        bodies=bodies,
        mean=_cells(report, report.mean_row),
        script=_asset("report.js"),
    )


def _asset(name: str) -> str:
    """The text of a file of this package: the page's template, style sheet or script."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _cells(report: Report, row: ReportRow) -> str:
    """The cells of one line, each with the value that it is sorted by."""
    cells = [f'<th scope="row" data-value="{escape(row.name)}">{escape(row.name)}</th>']
    values = [(getattr(row.scores, name), figure(name, getattr(row.scores, name))) for name in report.measured]
    if report.baseline and row.baseline:
        name = report.headline
        before = getattr(row.baseline, name)
        values += [(before, figure(name, before)), (getattr(row.scores, name) - before, gain(row, name))]
    for value, text in values:
        key = "" if math.isnan(value) else repr(value).replace("inf", "Infinity")
        cells.append(f'<td data-value="{key}">{text}</td>')
    return "".join(cells)


def _body(report: Report, row: ReportRow, view: Views) -> str:
    """A line and, below it, its slider; one <tbody>, so that sorting keeps them together."""
    name = escape(row.name)
    sources = [(title, uri) for title, uri in ((report.baseline, view.given), ("ground truth", view.truth)) if uri]
    layers = "".join(
        f'<img class="before" alt="{escape(title)} of {name}" data-title="{escape(title)}" src="{uri}"'
        f"{' hidden' if index else ''}>"
        for index, (title, uri) in enumerate(sources)
    )
    choices = "".join(
        f'<button type="button" class="choice" aria-pressed="{str(not index).lower()}">{escape(title)}</button>'
        for index, (title, _) in enumerate(sources)
    )
    height, width = view.size
    columns = 2 + len(report.measured) + (2 if report.baseline else 0)
    caption = f"<span>{escape(view.caption)}</span>" if view.caption else ""
    return f"""<tbody>
<tr class="line" tabindex="0" aria-expanded="false">
<td><img class="thumb" alt="" src="{view.thumbnail}"></td>{_cells(report, row)}</tr>
<tr class="detail"><td colspan="{columns}">
<div class="slider" style="width:{width}px;aspect-ratio:{width}/{height}">
<img class="after" alt="result for {name}" src="{view.result}">{layers}
<input type="range" min="0" max="100" value="50" step="0.1" aria-label="before and after">
<b class="left">{escape(sources[0][0])}</b><b class="right">result</b><i></i></div>
<p class="choices">compare with {choices} {caption}</p>
</td></tr>
</tbody>"""
