"""What every command shares: where text goes, how errors end a run, and options as values.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import typer

from bbcu_cli.cli.streams import INTERRUPTED, LEFT
from bbcu_cli.errors import BbcuError


def shown(text: object) -> str:
    """Text from outside (a file name, say) made safe for a terminal: control characters are written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(text))


def note(message: str) -> None:
    """One line on stderr."""
    print(f"bbcu: {shown(message)}", file=sys.stderr, flush=True)


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Make a typer command of a function whose shared options come as frozen dataclasses.

    typer sees every field of such a dataclass as an option of its own. The command ends as documented: an error is
    one sentence and its exit code (with --debug also a traceback), Ctrl-C is 130.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}

    def run(**arguments: Any) -> None:
        debug = bool(arguments.get("debug"))
        for name, kind in groups.items():
            arguments[name] = kind(**{f.name: arguments.pop(f.name) for f in fields(kind)})
        try:
            command(**arguments)
            sys.stdout.flush()
        except BbcuError as error:
            if debug:
                traceback.print_exc()
            note(f"error: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as error:  # training says in it what it kept
            note(f"interrupted; {error}" if error.args else LEFT)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # nobody reads on: `main` ends the program as the signal would
            raise
        except OSError as error:  # a name that is too long, a folder that may not be entered, a full disk
            if debug:
                traceback.print_exc()
            note(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}.")
            raise typer.Exit(BbcuError.exit_code) from None

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    parameters = list(_flattened(command, hints, groups))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _flattened(
    command: Callable[..., Any], hints: dict[str, Any], groups: dict[str, type]
) -> Iterator[inspect.Parameter]:
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            yield parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        options = get_type_hints(groups[name], include_extras=True)
        for f in fields(groups[name]):
            default = inspect.Parameter.empty if f.default is MISSING else f.default
            yield inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=options[f.name])
