"""`bbcu` and `python -m bbcu_cli`."""

import shutil
import sys

from bbcu_cli.cli.front import answer, misused
from bbcu_cli.cli.streams import BROKEN_PIPE, prepare_streams, silence_streams
from bbcu_cli.errors import BbcuError


def main() -> None:
    """Entry point of the console script."""
    prepare_streams()
    try:
        _run(sys.argv[1:])
    except (BrokenPipeError, SystemExit) as end:
        # typer and rich end with 1 for a broken pipe.
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise
        silence_streams()
        sys.exit(BROKEN_PIPE)
    except OSError as error:  # stdout is a file on a full disk, and a help text is printed
        print(f"bbcu: error: {error.strerror or error}.", file=sys.stderr, flush=True)
        silence_streams()
        sys.exit(BbcuError.exit_code)


def _run(arguments: list[str]) -> None:
    text = answer(arguments, shutil.get_terminal_size().columns)
    if text is not None:
        print(text, flush=True)
        return
    if complaint := misused(arguments):
        print(f"bbcu: error: {complaint}", file=sys.stderr)
        sys.exit(BbcuError.exit_code)
    from bbcu_cli.cli.app import main as run
    from bbcu_cli.cli.heap import return_large_blocks

    return_large_blocks()
    run()


if __name__ == "__main__":
    main()
