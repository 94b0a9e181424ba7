"""The forms of a report: text, JSON, CSV, Markdown and the HTML page."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
from PIL import Image as Pillow

from bbcu_cli.score.html import to_html, views
from bbcu_cli.score.metrics import Convention, Scores
from bbcu_cli.score.report import Report, ReportRow, figure, gain, to_csv, to_json, to_markdown, to_text

HOSTILE = '<img src=x onerror="alert(1)">|`*'


@pytest.fixture
def trial():
    """Two images with a baseline, one of them identical to its ground truth."""
    return Report(
        "sr x4 on Set2",
        Convention(border=4),
        (
            ReportRow("baby", Scores(32.0, 0.9, 30.0, 0.85), Scores(30.5, 0.8, 29.0, 0.75)),
            ReportRow(HOSTILE, Scores(math.inf, 1.0, math.inf, 1.0), Scores(31.5, 0.85, 30.0, 0.8)),
        ),
        "bicubic",
        (("model", "sr-m-x4"),),
    )


@pytest.fixture
def comparison():
    """One gray image without a baseline and too small for SSIM."""
    return Report("out against hr", Convention(gray_is_luma=True), (ReportRow("dot", Scores(40.0)),))


def _picture(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def test_text_aligns_every_column_and_ends_with_the_convention(trial):
    """Heading, rules, rows and mean have one width; the convention stands beside the numbers."""
    title, heading, rule, *rows = to_text(trial).splitlines()
    assert title == "sr x4 on Set2"
    assert {len(line) for line in (heading, rule, *rows[:4])} == {len(rule)}
    assert rows[3].split()[0] == "mean"
    assert "border 4 px" in to_text(trial)
    assert "model: sr-m-x4" in to_text(trial)


def test_text_leaves_out_scores_that_no_image_has(comparison):
    """Gray images have no RGB columns, and images too small no SSIM."""
    assert to_text(comparison).splitlines()[1].split() == ["image", "PSNR", "Y"]


def test_text_keeps_control_characters_from_the_terminal():
    """A file name cannot colour the terminal or break the table."""
    text = to_text(Report("a\x1b[31m", Convention(), (ReportRow("x\x1b[2J\ny", Scores(1, 1, 1, 1)),)))
    assert "\x1b" not in text
    assert "x?[2J?y" in text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("psnr_y", 33.684, "33.68"),
        ("ssim_y", 0.93052, "0.9305"),
        ("psnr_y", math.inf, "inf"),
        ("ssim_y", math.nan, "n/a"),
    ],
)
def test_figures_have_the_digits_of_the_papers(name, value, text):
    """PSNR to hundredths, SSIM to four digits."""
    assert figure(name, value) == text


def test_gain_carries_its_sign_and_no_negative_zero(trial):
    """+1.50 is a gain, +0.00 is none, and against infinity there is none to tell."""
    assert gain(trial.rows[0], "psnr_y") == "+1.50"
    assert gain(trial.rows[1], "psnr_y") == "n/a"
    assert gain(ReportRow("a", Scores(29.999), Scores(30.0)), "psnr_y") == "+0.00"


def test_json_has_the_promised_keys_and_is_strict_json(trial, comparison):
    """Infinity is null with a flag, what is not defined is null, and no NaN slips through."""
    data = json.loads(json.dumps(to_json(trial), allow_nan=False))
    assert data["schema"] == 1
    assert data["convention"]["border"] == 4
    assert [image["name"] for image in data["images"]] == ["baby", HOSTILE]
    assert data["images"][0]["psnr_y"] == 32.0
    assert "infinite" not in data["images"][0]
    assert data["images"][1]["psnr_rgb"] is None
    assert data["images"][1]["infinite"] == ["psnr_y", "psnr_rgb"]
    assert data["mean"]["ssim_y"] == pytest.approx(0.95)
    assert data["mean"]["baseline"]["psnr_y"] == 31.0
    assert set(to_json(comparison)["images"][0]) == {"name", "psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"}
    assert to_json(comparison)["images"][0]["ssim_y"] is None
    assert "infinite" not in to_json(comparison)["mean"]


def test_csv_reads_back_with_full_precision(trial):
    """Names are quoted as needed, the mean is the last line."""
    rows = list(csv.DictReader(io.StringIO(to_csv(trial))))
    assert [row["name"] for row in rows] == ["baby", HOSTILE, "mean"]
    assert float(rows[1]["psnr_y"]) == math.inf
    assert float(rows[2]["baseline_psnr_y"]) == 31.0


def test_csv_leaves_undefined_values_empty(comparison):
    """Not defined is not zero."""
    assert next(csv.DictReader(io.StringIO(to_csv(comparison))))["ssim_y"] == ""


def test_markdown_escapes_what_would_break_the_table(trial):
    """Every line has the same number of unescaped bars."""
    lines = [line for line in to_markdown(trial).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<img" not in to_markdown(trial).replace("\\<", "")


def _opened(uri):
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.images += [values["src"]] if tag == "img" else []
        self.links += [value for key, value in attrs if key in {"href", "onerror"}]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page(trial):
    """The page of the trial, parsed."""
    picture = _picture(20, 30, 3)
    html = to_html(trial, [views(picture, picture, picture)] * 2)
    parsed = _Page()
    parsed.feed(html)
    return html, parsed


def test_page_needs_nothing_from_outside(page):
    """Every picture is a data URI, nothing is linked, and the page's own policy forbids any request."""
    html, parsed = page
    assert len(parsed.images) == 2 * 4
    assert all(src.startswith("data:image/webp;base64,") for src in parsed.images)
    assert parsed.links == []
    assert "default-src 'none'" in html
    assert "http://" not in html
    assert "https://" not in html


def test_page_shows_a_hostile_name_as_text(page):
    """Markup in a file name stays a name."""
    html, parsed = page
    assert HOSTILE in parsed.text
    assert HOSTILE not in html


def test_page_has_a_line_per_image_and_the_mean(page):
    """Each image has its own table body, so that sorting keeps line and slider together."""
    html, parsed = page
    assert html.count("<tbody>") == html.count('type="range"') == 2
    assert "mean" in parsed.text
    assert 'data-value="Infinity"' in html


def test_page_has_the_style_sheet_and_the_script_of_the_package(page):
    """Both stand in the page as they are in their files, so that it works without them."""
    html, _ = page
    for name, before, after in (("report.css", "<style>\n", "</style>"), ("report.js", "<script>\n", "</script>")):
        text = resources.files("bbcu_cli.score").joinpath(name).read_text(encoding="utf-8")
        assert before + text + after in html


def test_page_takes_a_title_as_it_is():
    """A title that looks like a placeholder of the template is text like any other."""
    picture = _picture(12, 12, 3)
    report = Report("$title ${script} $$ {style}", Convention(), (ReportRow("dot", Scores(40.0, 0.9, 39.0, 0.9)),))
    html = to_html(report, [views(picture, picture)])
    assert "<title>$title ${script} $$ {style}</title>" in html
    assert "<h1>$title ${script} $$ {style}</h1>" in html


def test_page_without_a_baseline_compares_with_the_ground_truth(comparison):
    """Existing results come without their inputs."""
    picture = _picture(12, 12, 1)
    html = to_html(comparison, [views(picture, picture)])
    assert html.count('class="before"') == 1
    assert "n/a" not in html


def test_views_of_a_large_image_are_its_centre_at_full_resolution():
    """Reduced pictures would hide what a restoration changes; the thumbnail alone is reduced."""
    pixels = _picture(700, 1000, 3)
    pixels[30:670, 180:820] = 0
    seen = views(pixels, pixels)
    assert _opened(seen.result).max() < 32  # black but for what the codec leaves
    assert seen.size == (640, 640)
    assert seen.caption == "centre of 1000x700 px"
    assert seen.given == ""
    assert max(_opened(seen.thumbnail).shape) == 72


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_take_every_kind_of_pixels(dtype, channels):
    """Gray and 16 bit become 8-bit RGB pictures of the same look."""
    pixels = np.full((16, 16, channels), np.iinfo(dtype).max // 2, dtype)
    picture = _opened(views(pixels, pixels).result)
    assert picture.shape == (16, 16, 3)
    assert abs(picture.mean() - 127) <= 2
