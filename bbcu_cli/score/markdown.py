"""Lines of Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def row(cells: Iterable[str]) -> str:
    """One line of a table; the cells are Markdown themselves."""
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def head(titles: Sequence[str], *, numbers: bool = False) -> tuple[str, str]:
    """The line of titles and the rule below it; with `numbers`, all columns but the first are aligned to the right."""
    return row(titles), row("---:" if numbers and index else "---" for index in range(len(titles)))
