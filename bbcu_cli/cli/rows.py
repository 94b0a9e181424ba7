"""What is said of one file: a line for people, an object of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bbcu_cli.batch.settings import Row
    from bbcu_cli.score.metrics import Scores

SCHEMA: Final = 2
"""Of the objects that --json prints; 1 had sizes as [height, width], and "identical" among the scores."""


def size_text(size: tuple[int, int] | None) -> str:
    """(height, width) as people write it."""
    return "?" if size is None else f"{size[1]}x{size[0]}"


def size_json(size: tuple[int, int] | None) -> dict[str, int] | None:
    """(height, width) with names, since people write the width first; None where it is not known."""
    return None if size is None else {"width": size[1], "height": size[0]}


def network_text(row: Mapping[str, Any]) -> str:
    """The networks that serve, with the filter behind them, why, and the noise that was found."""
    text = ", then ".join(row["way"] or ([row["model"]] if row["model"] else [])) or "left as it is"
    if row["reason"]:
        text += f": {row['reason']}"
    return text if row["noise"] is None else f"{text}, noise of about {row['noise']:g}"


def _frames_text(row: Mapping[str, Any]) -> str:
    """How many pictures a file has; nothing of one."""
    return f"{row['frames']} frames, " if row["frames"] > 1 else ""


def scores_text(scores: Scores) -> str:
    """What a result scored."""
    return f"PSNR {scores.psnr_y:.2f} dB (Y), {scores.psnr_rgb:.2f} dB (RGB), SSIM {scores.ssim_y:.4f} (Y)"


def failure_text(row: Row) -> str:
    """Which file failed, and why."""
    return f"failed: {row.error}" if row.source in row.error else f"failed: {row.source}: {row.error}"


def plan_text(row: Mapping[str, Any]) -> str:
    """A line of --dry-run, of the object that --json prints."""
    if "error" in row:
        return str(row["error"] if row["source"] in row["error"] else f"{row['source']}: {row['error']}")
    sizes = " to ".join("{width}x{height}".format(**row[name]) for name in ("input_size", "output_size"))
    memory = f"about {row['memory_bytes'] >> 20} MB" + (", exists" if row["status"] == "exists" else "")
    sizes = _frames_text(row) + sizes
    return f"{row['source']} -> {row['output']}  ({sizes}, {network_text(row)}, tile {row['tile']}, {memory})"


def row_text(row: Row) -> str:
    """What became of a file, with its notes on lines of their own."""
    if row.status == "failed":
        return failure_text(row)
    if row.status == "skipped":
        text = f"{row.source}: {row.output} is up to date"
        if row.model or row.reason:
            text += f"  ({network_text(asdict(row))})"
    else:
        sizes = f"{size_text(row.size_in)} to {size_text(row.size_out)}"
        sizes = _frames_text(asdict(row)) + sizes
        text = f"{row.source} -> {row.output}  ({sizes}, {row.seconds:.2f} s, {network_text(asdict(row))})"
    if row.scores:
        text += f"  {scores_text(row.scores)}"
    return "".join([text, *(f"\n  {line}" for line in row.notes)])


def row_json(row: Row) -> str:
    """The same as one line of JSON."""
    fields = {"schema": SCHEMA, **asdict(row)}
    fields["input_size"], fields["output_size"] = size_json(fields.pop("size_in")), size_json(fields.pop("size_out"))
    if row.scores:
        from bbcu_cli.score.report import scores_to_json

        fields["scores"] = scores_to_json(row.scores)
    return json.dumps(fields)
