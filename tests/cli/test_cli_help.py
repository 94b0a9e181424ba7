"""What the commands say of themselves, at any width, and options whose words are parsed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from bbcu_cli.cli.app import app
from bbcu_cli.cli.front import COMMANDS, answer, misused
from bbcu_cli.cli.options import parse_colour
from bbcu_cli.errors import UsageError

WIDTHS = (50, 60, 80, 120)


def commands() -> list[tuple[str, ...]]:
    """Every command line that has a help text."""
    root = typer.main.get_command(app)
    names = [(name,) for name in root.commands]
    return [*names, *(("models", name) for name in root.commands["models"].commands)]


def help_of(*arguments: str) -> str:
    """What `--help` prints on 80 columns."""
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", commands(), ids=" ".join)
def test_no_word_of_a_help_text_is_cut(name: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of options stand whole, at hyphens too, and no line is longer than the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    command = typer.main.get_command(app)
    for part in name:
        command = command.commands[part]
    context = command.context_class(command, info_name=f"bbcu {' '.join(name)}", **command.context_settings)
    text = context.get_help()
    records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    for option, words in records:
        assert f"  {option}" in text
        for word in words.split():
            assert re.search(rf"(^|\s){re.escape(word)}(\s|$)", text), word
    assert max(map(len, text.splitlines())) <= columns


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_quick_help_fits(columns: int) -> None:
    """`bbcu --help`, but for the place of the documentation."""
    lines = str(answer(["--help"], columns)).splitlines()
    assert max(len(line) for line in lines if not line.startswith("Documentation")) <= columns
    assert all(name in "\n".join(lines) for name in ("--install-completion", "--version", "-h, --help"))


def test_help_has_its_panels_as_sections() -> None:
    """Arguments first, then the options by what they are about."""
    titles = [line for line in help_of("sr").splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == ["Arguments:", "Options:", "Size:", "Quality:", "Files:", "Engine:", "Reporting:"]


def test_the_quick_help_lists_the_commands_with_their_own_words() -> None:
    """`bbcu --help` answers without typer; what it says of each command is what the command says of itself."""
    for name, line in COMMANDS.items():
        assert line in " ".join(help_of(name).split()), name
    registered = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    assert set(COMMANDS) == registered | {group.name for group in app.registered_groups}


def test_completion_takes_no_shell() -> None:
    """Typer would ignore it and install for the shell that runs; the option says so."""
    assert misused(["--install-completion"]) is None
    assert "takes no argument" in str(misused(["--show-completion", "fish"]))
    done = subprocess.run(
        [sys.executable, "-m", "bbcu_cli", "--install-completion", "zsh"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bbcu: error: --install-completion takes no argument: it is for the shell that runs it.\n"


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("white", (255, 255, 255)),
        ("White", (255, 255, 255)),
        ("#fff", (255, 255, 255)),
        ("#FF8000", (255, 128, 0)),
        ("ff8000", (255, 128, 0)),
        ("f80", (255, 136, 0)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
        (" rebeccapurple ", (102, 51, 153)),
    ],
)
def test_colours_are_names_or_digits(text: str, colour: tuple[int, int, int]) -> None:
    """As CSS writes them; the number sign may be left out, which a shell takes for a comment."""
    assert parse_colour(text) == colour


@pytest.mark.parametrize(
    "text", ["", "#", "reddish", "#ff", "#ffff", "#ffffffff", "rgb(300,0,0)", "rgb(-1,0,0)", "9" * 200]
)
def test_what_is_no_opaque_colour_is_rejected(text: str) -> None:
    """One sentence with examples."""
    with pytest.raises(UsageError, match="give for example white"):
        parse_colour(text)
