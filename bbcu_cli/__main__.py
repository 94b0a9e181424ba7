"""`bbcu` and `python -m bbcu_cli`."""

import signal
import sys


def main() -> None:
    """Entry point of the console script."""
    # Whatever is imported is imported below this `try`: Ctrl-C in the first second is no traceback either.
    try:
        if control_break := getattr(signal, "SIGBREAK", None):  # Windows: Ctrl-Break, and a parent that wants us to end
            signal.signal(control_break, signal.default_int_handler)
        _main()
    except (KeyboardInterrupt, SystemExit) as end:
        # A command that was interrupted has said so. typer ends with 130 in silence where no command had begun.
        reason = getattr(end.__context__, "__cause__", None) if isinstance(end, SystemExit) else end
        if not isinstance(reason, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is in a hurry presses twice
        from bbcu_cli.cli.streams import INTERRUPTED, LEFT

        print(f"bbcu: {LEFT}", file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)


def _main() -> None:
    from bbcu_cli.cli.streams import BROKEN_PIPE, prepare_streams, silence_streams
    from bbcu_cli.errors import BbcuError

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
    import shutil

    from bbcu_cli.cli.front import answer, misused
    from bbcu_cli.errors import BbcuError

    # In its last column a console of Windows begins a new line.
    text = answer(arguments, shutil.get_terminal_size().columns - 1)
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
