"""What the documentation shows is true: its commands run, its links resolve, its tables say what the code does."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from golden import golden_state
from loopback_hub import LoopbackHub
from PIL import Image as Pillow
from small import SMALL_SPECS
from test_layering import ROOMS
from typer.testing import CliRunner

import bbcu_cli
from bbcu_cli import errors
from bbcu_cli.batch.run import Row
from bbcu_cli.checkpoint.packed import _layout
from bbcu_cli.cli.app import app
from bbcu_cli.hub import Catalogue
from bbcu_cli.image import FORMATS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = {path.stem: path for path in sorted((ROOT / "bbcu_cli" / "docs").glob("*.md"))}
WEIGHTS = ROOT / "weights" / "README.md"
PAGES = [README, WEIGHTS, *DOCS.values()]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())

# What keeps an example short in a test: the last value of an option counts.
QUICK = {
    "train": ["--steps", "1", "--batch", "2", "--patch", "16", "--threads", "1"],
    "bench": ["--size", "24x16", "--runs", "1"],
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def prose_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```\n", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def spans(prose: str) -> list[str]:
    """What stands between single backticks, on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def tables(page: Path) -> list[list[list[str]]]:
    """Tables as lines of cells; the second line, of dashes, is left out."""
    found = re.findall(r"(?:^\|.*\|\n)+", prose_of(page), re.MULTILINE)
    lines = ([line for line in text.splitlines() if not set(line) <= set("|-: ")] for text in found)
    return [[[cell.strip() for cell in line[1:-1].split("|")] for line in table] for table in lines]


def table(page: Path, corner: str) -> dict[str, list[str]]:
    """The table whose first cell is `corner`: its lines by their first cell."""
    [found] = [lines for lines in tables(page) if lines[0][0] == corner]
    return {line[0]: line[1:] for line in found}


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    lines = [line.strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples speak of, small."""
    rng = np.random.default_rng(3)
    folders = ("folder", "hr", "holiday", "scans", "Set5", "Kodak24", "Classic5")
    for name in ("photo.jpg", "out/a_x4.png", "results_x4/a_x4.png", *(f"{folder}/a.png" for folder in folders)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pillow.fromarray(rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)).save(tmp_path / name)
    with Pillow.open(ROOT / "tests" / "data" / "chelsea.png") as cat:
        for name, left in (("photos", 0), ("withheld", 100)):
            (tmp_path / name).mkdir()
            cat.crop((left, 0, left + 96, 88)).save(tmp_path / name / "cat.png")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_a_shell(script: str, home: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run lines as a user does, with `bbcu` on the path; the first that fails ends it."""
    shim = home / "bin" / "bbcu"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bbcu_cli "$@"\n')
    shim.chmod(0o755)
    environment = {**environment, "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}"}
    bash = shutil.which("bash") or "sh"
    return subprocess.run(
        [bash, "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, check=False
    )


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture that can be read whole."""
    with Pillow.open(path) as picture:
        picture.load()
        return picture.size


def test_the_first_minute_runs(home: Path) -> None:
    """Every line of it, as it stands, in a shell."""
    [block] = [block for block in blocks(README, "sh") if "bbcu sr photo.jpg" in block]
    done = in_a_shell(block, home, dict(os.environ))
    assert done.returncode == 0, done.stderr
    for name in (
        "photo_x4.png",
        "folder_denoised/a.png",
        "photo_deblocked.png",
        "photo_deblocked_compare.png",
        "large.webp",
    ):
        assert size_of(home / name)[0] > 0


def test_the_commands_of_the_hub_run(home: Path) -> None:
    """Converting, uploading, downloading and removing, in a shell, with a hub on this machine."""
    state = {name: torch.from_numpy(array) for name, array in golden_state("bbcu-m-x4").items()}
    torch.save({"params": state}, home / "BBCUMx4.pth")
    with LoopbackHub() as hub:
        environment = {**hub.environment(home / "cache"), "HF_TOKEN": "hf_writer"}
        del environment["BBCU_WEIGHTS_DIR"]
        done = in_a_shell("\n".join(blocks(DOCS["hub"], "sh")), home, environment)
        assert done.returncode == 0, done.stderr
        [pushed] = [repo for name, repo in hub.repos.items() if name == "user/repo"]
    assert "model.safetensors" in pushed.commits[pushed.refs["main"]]
    assert size_of(home / "photo_x4.png") == (80, 64)


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads of torch, put back after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("home", "threads")
@pytest.mark.parametrize("name", [name for name in DOCS if name != "hub" and blocks(DOCS[name], "sh")])
def test_the_commands_of_a_page_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, in this process; training and timing take fewer steps and a smaller input."""
    for line in commands(DOCS[name]):
        words = shlex.split(line, comments=True)
        while "=" in words[0]:
            monkeypatch.setenv(*words.pop(0).split("=", 1))
        if words[0] == "pytest":
            assert all((ROOT / word).exists() for word in words[1:] if word[0] != "-" and "/" in word), line
            continue
        if words[0] == "torchrun":  # test_train runs two processes
            parse(words[words.index("bbcu_cli") + 1 :])
            continue
        assert words[0] == "bbcu", line
        done = CliRunner().invoke(app, [*words[1:], *QUICK.get(words[1], [])])
        if "cuda" in words and not torch.cuda.is_available():
            assert done.exit_code == 2, line
        else:
            assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.mark.parametrize("number", range(len(blocks(DOCS["python"], "python"))))
def test_the_python_examples_run(number: int, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each on its own; the first gives an image four times as large, the last a known PSNR."""
    exec(compile(blocks(DOCS["python"], "python")[number], "python.md", "exec"), {})  # noqa: S102 - our own pages
    printed = capsys.readouterr().out
    expected: list[Any] = [(home / "large.png", (80, 64)), (home / "clean.webp", (20, 16)), "48.13"]
    if isinstance(expected[number], str):
        assert printed.startswith(expected[number])
    else:
        assert size_of(expected[number][0]) == expected[number][1]


def parse(words: list[str], *, whole: bool = True) -> None:
    """Check a command line of `bbcu` without running it; if not `whole`, what must be given may be missing."""
    command, context = typer.main.get_command(app), None
    try:
        while True:
            group = hasattr(command, "resolve_command")
            context = command.make_context(command.name or "bbcu", list(words[:1] if group else words), parent=context)
            if not group or not words:
                return
            _, command, _ = command.resolve_command(context, list(words))
            words = words[1:]
    except Exception as error:
        if not whole and type(error).__name__ in {"MissingParameter", "NoArgsIsHelpError", "Exit"}:
            return
        raise AssertionError(f"bbcu {shlex.join(words)}: {error!r}") from error


@each_page
def test_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    """A command between backticks is one that bbcu understands, whether or not it is complete."""
    for span in spans(prose_of(page)):
        found = re.search(r"(?:^|\s)bbcu (?!COMMAND)(.+)", span)
        if found:
            parse(shlex.split(found[1]), whole=False)


@each_page
def test_files_in_the_text_exist(page: Path) -> None:
    """A path of the source between backticks leads somewhere."""
    for span in spans(prose_of(page)):
        for path in re.findall(r"(?:^|\s)((?:bbcu_cli|tests|weights|\.ci)/[\w./-]+)", span):
            assert (ROOT / path).exists(), path


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page may end with, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve_and_nothing_is_unfinished(page: Path) -> None:
    """Every local link leads to a file and a heading that exist, and no placeholder is left."""
    assert "@@" not in text_of(page)
    for target in re.findall(r"\]\(([^)]+)\)", prose_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    """At most 150 lines, and no page that nobody finds."""
    assert len(text_of(README).splitlines()) <= 150
    linked = set(re.findall(r"\]\(bbcu_cli/docs/([\w-]+)\.md", text_of(README)))
    assert linked == set(DOCS)


def test_the_pages_ship_with_the_package() -> None:
    """An installed bbcu has them all, with the same text."""
    installed = {file.name: file.read_text(encoding="utf-8") for file in (resources.files(bbcu_cli) / "docs").iterdir()}
    assert installed == {page.name: text_of(page) for page in DOCS.values()}


@each_page
def test_tables_have_as_many_cells_in_every_line(page: Path) -> None:
    """A cell too many is not shown, and one too few shifts what follows."""
    for lines in tables(page):
        assert len({len(line) for line in lines}) == 1, lines[0]


def sections(page: Path) -> Iterator[tuple[str, str]]:
    """Headings with the text below them, each up to the next heading."""
    parts = re.split(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


@pytest.mark.parametrize("page", [README, *DOCS.values()], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_figures_come_with_the_command_that_makes_them(page: Path) -> None:
    """Where a section tells something measured, it names a command, or refers to the section that does."""
    measured = re.compile(r"\d ?(?:dB|MB|GB|s|ms|ns|%)(?![\w-])|\*\*\d+\.")
    command = re.compile(
        r"(?:`|^)(?:\w+=\S+ )?(?:bbcu|python|pytest|\.ci/|/usr/bin/time)\b|\(#measured\)", re.MULTILINE
    )
    for heading, text in sections(page):
        figure = measured.search(re.sub(r"`[^`]*`", "", text))
        assert figure is None or command.search(text), f"{heading}: {figure and figure[0]}"


def test_every_command_is_in_the_readme() -> None:
    """The table of commands lists what `bbcu --help` lists."""
    listed = set(re.findall(r"^\| `bbcu (\w+)", text_of(README), re.MULTILINE))
    registered = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert listed == registered | {group.name for group in app.registered_groups}


def test_every_command_of_models_is_documented() -> None:
    """The page of the hub lists what `bbcu models --help` lists."""
    models = typer.main.get_command(app).commands["models"]
    assert set(re.findall(r"^\| `bbcu models (\w+)", text_of(DOCS["hub"]), re.MULTILINE)) == set(models.commands)


@pytest.mark.parametrize("command", ["sr", "denoise", "deblock", "eval", "models", "train", "bench", "doctor"])
def test_help_is_complete_and_opens_with_what_the_command_does(command: str) -> None:
    """No option without a word about it."""
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_environment_variables_are_documented() -> None:
    """Every BBCU_ variable that is read is on the page of the command line, and no other."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bbcu_cli").rglob("*.py"))
    used = set(re.findall(r'"(BBCU_[A-Z_]+)"', sources))
    assert used == set(re.findall(r"`(BBCU_[A-Z_]+)`", text_of(DOCS["command-line"])))


def test_exit_codes_are_documented() -> None:
    """Those of every error, of success, of Ctrl-C and of a broken pipe."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BbcuError)]
    documented = set(table(DOCS["command-line"], "code")) - {"code"}
    assert documented == {"0", "130", "141", *(str(kind.exit_code) for kind in kinds)}


def test_the_keys_of_json_are_documented() -> None:
    """The page of the command line names what a row of a run has."""
    [lines] = [lines for lines in tables(DOCS["command-line"]) if lines[0] == ["key", "value"]]
    documented = {name for line in lines[1:] for name in re.findall(r"`(\w+)`", line[0])}
    renamed = {"size_in": "input_size", "size_out": "output_size"}
    assert documented == {renamed.get(field.name, field.name) for field in fields(Row)}


def test_the_table_of_formats_says_what_the_code_does() -> None:
    """Every yes, no and limit of it is that of `FORMATS`."""
    found = table(DOCS["formats"], "")
    names = [name.strip("¹²³⁴⁵⁶") for name in found[""]]
    in_words = {"RAW", "JPEG 2000", "JPEG XL", "TGA", "ICO", "DDS"}  # only read; each has a paragraph of its own
    assert names == [name for name in FORMATS if name not in in_words]
    expected = {
        "read / written": lambda fmt: "yes / yes" if fmt.writable else "yes / no",
        "16 bits per sample": lambda fmt: "yes" if fmt.depth == 16 else "rounded" if fmt.writable else "-",
        "gray stays gray": lambda fmt: "yes" if fmt.gray else "RGB",
        "alpha": lambda fmt: "yes" if fmt.alpha else "rejected",
        "colour profile (ICC)": lambda fmt: _kept(fmt.icc, fmt.writable),
        "EXIF (camera, date, exposure, place)": lambda fmt: _kept(fmt.exif, fmt.writable),
        "XMP": lambda fmt: _kept(fmt.xmp, fmt.writable),
        "resolution (DPI)": lambda fmt: "in EXIF" if fmt.dpi == "exif" else _kept(fmt.dpi, fmt.writable),
        "several pictures": lambda fmt: fmt.several or "-",
        "longest side written": lambda fmt: f"{fmt.max_side:,}" if fmt.writable else "-",
    }
    for label, of in expected.items():
        for name, cell in zip(names, found[label], strict=True):
            shown = cell.replace("2³¹-1", f"{2**31 - 1:,}")
            assert shown == "-" or shown.startswith(of(FORMATS[name])), (label, name, cell)


def _kept(kept: object, writable: bool) -> str:  # noqa: FBT001
    return "-" if not writable else "yes" if kept else "no"


def test_the_format_page_names_every_tensor() -> None:
    """The page of the packed format and the reader know the same tensors."""
    page = text_of(DOCS["packed-format"])
    for spec in SMALL_SPECS.values():
        for name in _layout(spec):
            group, part = name.rsplit(".", 1)
            assert (
                f"`{group}.*`" in page
                or f"`{name}`" in page
                or f"`.{part}`" in page
                or f"`{group.split('.')[0]}.*`" in page
            ), name


def test_the_layout_lists_the_rooms_in_their_order() -> None:
    """The page of the source shows the house as the test of its layers knows it."""
    [drawing] = blocks(DOCS["layout"], "text")
    listed = [name for line in re.findall(r"^  (\S.*)$", drawing, re.MULTILINE) for name in _names(line)]
    rooms = [room if (ROOT / "bbcu_cli" / room).is_dir() else f"{room}.py" for room in ROOMS if room]
    assert [name.rstrip("/") for name in listed if name != "docs/"] == rooms


def _names(line: str) -> list[str]:
    return re.findall(r"\w+(?:/|\.py)(?=\s)", re.split(r"\s{3,}", line)[0] + " ")


def catalogue() -> dict[tuple[str, str], str]:
    """What was measured, by model and by condition ("Set5 x2", "BSD20 sigma 25"), as it is written."""
    return {
        (entry.name, f"{label} x{entry.spec.scale}" if entry.spec.task == "sr" else label): f"**{value:.2f}**"
        for entry in Catalogue.load()
        for label, value in entry.measured.items()
    }


def weights_table() -> list[list[str]]:
    """The measured lines of weights/README.md: model, condition, PSNR of the input, PSNR."""
    [lines] = [lines for lines in tables(WEIGHTS) if lines[0][:3] == ["model", "images", "input"]]
    return [[line[0], f"{line[1]} {line[2].partition(', ')[2]}", *line[3:5]] for line in lines[1:] if line[3]]


def test_the_table_of_the_weights_is_that_of_the_catalogue() -> None:
    """weights/README.md shows what is recorded for exactly the files that ship."""
    assert {(model, condition): psnr for model, condition, _, psnr in weights_table()} == catalogue()


def test_the_measured_tables_of_the_readme_are_those_of_the_shipped_files() -> None:
    """Every bold figure is the catalogue's, every other that of the input, and none that belongs there is missing."""
    measured, inputs = catalogue(), {condition: given for _, condition, given, _ in weights_table()}
    found = [lines for lines in tables(README) if "BSD20" in lines[0][-1] or "Classic5" in lines[0][-1]]
    assert len(found) == 2
    for (_, *conditions), *lines in found:
        for label, *shown in lines:
            for condition, cell in zip(conditions, shown, strict=True):
                kind = condition.split()[-1]
                model = {
                    "`sr-m`": f"sr-m-{kind}",
                    "`sr-l`": f"sr-l-{kind}",
                    "`denoise`, `deblock`": "denoise" if "sigma" in condition else "deblock",
                    "`denoise-15`, `-25`, `-50`": f"denoise-{kind}",
                }.get(label)
                if model is not None:
                    assert cell == measured.get((model, condition), ""), (label, condition)
                elif "paper" not in label:
                    assert cell == inputs[condition], (label, condition)
