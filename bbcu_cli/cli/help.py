"""Help as plain text: whole names of options at any width, an option's words below its name where it is narrow."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any, Final

from typer.core import TyperArgument, TyperCommand, TyperGroup

if TYPE_CHECKING:
    Context = Any  # typer carries its own click, or has that of the environment
    Formatter = Any

_NARROW: Final = 70
_LONGEST: Final = 30  # columns of a name that has its words beside it; a longer one has them below


def _write_list(formatter: Formatter, title: str, rows: list[tuple[str, str]]) -> None:
    """Names and what they mean; neither is broken within a word, at hyphens least of all."""
    names = min(_LONGEST, max(len(name) for name, _ in rows)) if formatter.width >= _NARROW else 2
    margin = " " * (names + 4)
    formatter.write(f"\n{title}:\n")
    for name, text in rows:
        lines = textwrap.wrap(text, formatter.width - len(margin), break_on_hyphens=False, break_long_words=False)
        head = [lines.pop(0)] if lines and len(name) <= names else []
        formatter.write(f"  {name}".ljust(len(margin)) + "".join(head) if head else f"  {name}")
        formatter.write("".join(f"\n{margin}{line}" for line in lines) + "\n")


def _write_text(command: TyperCommand | TyperGroup, formatter: Formatter) -> None:
    """What the command does, paragraph by paragraph."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = textwrap.fill(
            paragraph, formatter.width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        formatter.write(f"\n{text}\n")


def _write_parameters(command: TyperCommand | TyperGroup, context: Context, formatter: Formatter) -> None:
    """Arguments, then the options by their panels, in the order of the command."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        usual = "Arguments" if isinstance(parameter, TyperArgument) else "Options"
        if record := parameter.get_help_record(context):
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
    for title, records in panels.items():
        _write_list(formatter, title, records)


class Command(TyperCommand):
    """A command with plain help."""

    def format_help_text(self, ctx: Context, formatter: Formatter) -> None:  # noqa: ARG002 - of click
        """What the command does."""
        _write_text(self, formatter)

    def format_options(self, ctx: Context, formatter: Formatter) -> None:
        """Every panel a section."""
        _write_parameters(self, ctx, formatter)


class Group(TyperGroup):
    """A group of commands with plain help."""

    def format_help_text(self, ctx: Context, formatter: Formatter) -> None:  # noqa: ARG002 - of click
        """What the commands are about."""
        _write_text(self, formatter)

    def format_options(self, ctx: Context, formatter: Formatter) -> None:
        """The options of the group, and what its commands do, in whole sentences."""
        _write_parameters(self, ctx, formatter)
        names = self.list_commands(ctx)
        found = [(name, command) for name in names if (command := self.get_command(ctx, name)) and not command.hidden]
        _write_list(formatter, "Commands", [(name, command.get_short_help_str(limit=1000)) for name, command in found])
