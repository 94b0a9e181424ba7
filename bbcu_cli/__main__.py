"""`bbcu` and `python -m bbcu_cli`."""

import sys

from bbcu_cli.cli.front import answer


def main() -> None:
    """Entry point of the console script."""
    text = answer(sys.argv[1:])
    if text is not None:
        print(text)
        return
    from bbcu_cli.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
