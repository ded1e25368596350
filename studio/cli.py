"""The `studio` command. Each command imports what it needs only when it runs; nothing here imports torch.

Exit codes: 0 done, or stopped on request and saved; 1 the work failed; 2 the person's mistake.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType

from studio.commands import process, usage
from studio.commands.table import HELP, find
from studio.console import Console
from studio.errors import RunFailed, StudioError

_OF_DISKS = {getattr(errno, name, None) for name in (
    "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EIO", "EMFILE", "ENFILE", "ELOOP", "EFBIG", "ESTALE")}  # fmt: skip
"""Errors of the disk and its limits, which are nobody's fault here."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `studio` command."""
    process.begin()
    process.open_streams()
    process.leave(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one command; gives the exit code."""
    console = Console(json="--json" in argv, silent=os.environ.get("RANK", "0") != "0")
    arguments = [a for a in argv if a != "--json"]
    process.on_end(_interrupt)
    try:
        _answer(arguments, console)
    except RunFailed as error:
        console.error(str(error))
        return 1
    except StudioError as error:
        console.error(str(error))
        return 2
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        console.error(
            f"{error.strerror}: {error.filename or 'while writing'}; free space, choose a folder that can be written, or a "
            "shorter name, and go on."
        )
        return 1
    except KeyboardInterrupt:
        console.error("Stopped.")
        return 1
    return 0


def _answer(arguments: list[str], console: Console) -> None:
    """Help, the version, or the command itself."""
    match arguments:
        case [] | ["help"]:
            console.page(usage.usage())
        case [first, *_] if first in HELP:
            console.page(usage.usage())
        case ["help", *words]:
            _answer([*words, "--help"], console)
        case ["--version"]:
            console.page(version("finetuning-studio"))
        case _:
            asked = find(arguments)
            if asked.wants_help:
                console.page(usage.of(asked))
                return
            module, _, function = asked.command.where.partition(":")
            getattr(importlib.import_module(module), function)(asked.rest, console)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
