"""An evaluation as one self-contained page: sortable table, and before/after sliders that work offline."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

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
    eight: NDArray[np.uint8] = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
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
    head = "".join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in heads)
    bodies = "\n".join(_body(report, row, view) for row, view in zip(report.rows, pictures, strict=True))
    facts = "".join(f"<p>{escape(name)}: {escape(value)}</p>" for name, value in report.facts)
    title = escape(report.title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{facts}
<p class="convention">{escape(str(report.convention))}.</p>
<table>
<thead><tr><th></th>{head}</tr></thead>
{bodies}
<tfoot><tr><td></td>{_cells(report, report.mean_row)}</tr></tfoot>
</table>
<script>{_SCRIPT}</script>
</body>
</html>
"""


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


_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: light-dark(#b01c40, #ff6b8b); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .4rem; }
p { margin: .2rem 0; }
.convention { color: #777; font-size: .85rem; max-width: 60rem; }
table { border-collapse: collapse; margin-top: 1rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tfoot :is(th, td) { border-top: 2px solid var(--line); font-weight: 600; }
th[scope=row], thead th:nth-child(2) { text-align: left; overflow-wrap: anywhere; }
th[scope=row] { font-weight: 500; min-width: 6rem; }
tbody td:first-child { width: 76px; text-align: center; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: inherit; }
thead th[aria-sort] button { color: var(--accent); }
thead th[aria-sort=ascending] button::after { content: " \\25B2"; }
thead th[aria-sort=descending] button::after { content: " \\25BC"; }
.line { border-top: 1px solid var(--line); }
.scripted .line { cursor: pointer; }
.line:hover { background: var(--soft); }
.thumb { display: block; margin: auto; max-width: 72px; max-height: 48px; border-radius: 3px; }
.scripted .detail { display: none; }
.scripted .open .detail { display: table-row; }
.detail > td { padding: .4rem 0 1.2rem; text-align: center; }
.slider { --at: 50%; position: relative; max-width: min(100%, 100vw - 2rem); margin: auto; overflow: hidden;
  border-radius: 4px; }
.slider img { position: absolute; inset: 0; width: 100%; height: 100%; }
.slider .before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.slider input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.slider i { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px; background: #fff;
 box-shadow: 0 0 3px #000; pointer-events: none; }
.slider:focus-within i { background: var(--accent); }
.slider b { position: absolute; top: .4rem; padding: .05rem .45rem; border-radius: 3px; background: #000a; color: #fff;
 font-weight: 500; font-size: .8rem; pointer-events: none; }
.left { left: .4rem; } .right { right: .4rem; }
.choices { font-size: .85rem; color: #777; }
.choice { border: 1px solid var(--line); border-radius: 3px; padding: .05rem .5rem; margin: 0 .15rem; }
.choice[aria-pressed=true] { color: var(--accent); border-color: var(--accent); }
"""

_SCRIPT: Final = """
const table = document.querySelector("table");
table.classList.add("scripted");

for (const body of table.tBodies) {
  const line = body.querySelector(".line"), slider = body.querySelector(".slider");
  const toggle = () => line.setAttribute("aria-expanded", body.classList.toggle("open"));
  line.addEventListener("click", toggle);
  line.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
  });
  slider.querySelector("input").addEventListener("input", event =>
    slider.style.setProperty("--at", event.target.value + "%"));
  const layers = [...slider.querySelectorAll(".before")], choices = [...body.querySelectorAll(".choice")];
  choices.forEach((choice, chosen) => choice.addEventListener("click", () => {
    layers.forEach((layer, index) => layer.hidden = index !== chosen);
    choices.forEach((other, index) => other.setAttribute("aria-pressed", index === chosen));
    slider.querySelector(".left").textContent = layers[chosen].dataset.title;
  }));
}
if (table.tBodies.length) table.tBodies[0].querySelector(".line").click();

const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  // Names start with A, scores with the best; a second click turns the order round.
  const first = column === 1 ? "ascending" : "descending";
  const other = column === 1 ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  heads.forEach(each => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const value = body => body.rows[0].cells[column].dataset.value;
  const compare = (a, b) => {
    if (column === 1) return value(a).localeCompare(value(b), undefined, {numeric: true});
    return Number(value(a) || -Infinity) - Number(value(b) || -Infinity) || 0;
  };
  const sign = order === "ascending" ? 1 : -1;
  [...table.tBodies].sort((a, b) => sign * compare(a, b)).forEach(body => table.insertBefore(body, table.tFoot));
}));
"""
