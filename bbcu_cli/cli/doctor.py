"""`bbcu doctor`: what was found on this machine and what a run would use."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,
) -> None:
    """Show engines, devices, kernel sets, threads, weights and versions, and why anything is missing."""
    from bbcu_cli.diagnosis import diagnose
    from bbcu_cli.report import diagnosis_json, diagnosis_table

    found = diagnose()
    typer.echo(diagnosis_json(found) if json else diagnosis_table(found))
