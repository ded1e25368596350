"""`python -m studio.cli_entry` is the `studio` command, for launchers that start modules."""

from studio.cli import main

if __name__ == "__main__":
    main()
