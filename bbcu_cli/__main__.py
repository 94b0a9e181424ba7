"""`bbcu` and `python -m bbcu_cli`."""

from bbcu_cli.cli.app import main

if __name__ == "__main__":
    main()
