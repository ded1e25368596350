"""The `studio` command. Each command imports what it needs only when it runs; nothing here imports torch.

Exit codes: 0 done or stopped on request, 1 the work failed, 2 the person's mistake.
"""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from studio.console import Console
from studio.errors import RunFailed, StudioError, unknown

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("studio.demo:demo", "the main job on sample pictures: train, measure, report"),
    "train": ("studio.training_command:train", "train a method: studio train METHOD --data DIR [...]"),
    "sample": ("studio.commands:sample", "draw pictures with a model and trained artifacts"),
    "eval": (
        "studio.evaluation_command:evaluate",
        "measure an artifact: studio eval subject|dreambench|robustness|nullspace|vlm ...",
    ),
    "export": ("studio.commands:export", "write a run's weights in another format"),
    "data": ("studio.commands:data", "look at a folder of training data: studio data check DIR"),
    "plan": ("studio.commands:plan", "what a run would need, from one real step"),
    "runs": ("studio.commands:runs", "list, show, report and verify runs"),
    "models": ("studio.commands:models", "list the embedded models, or train them anew"),
    "decor": (
        "trainers.decor.command:command",
        "look into a prompt's embedding: components, suggest, save",
    ),
    "adapters": (
        "studio.commands:adapters",
        "the table of adapters, measured here: size, cost, readers",
    ),
    "reproduce": ("studio.evaluation_command:reproduce", "make a method's table of evidence again"),
    "ui": ("studio.commands:ui", "open the app in the browser: train, watch, sample, compare"),
    "doctor": ("studio.commands:doctor", "what is installed and what works here"),
}


def usage() -> str:
    """The text of `studio --help`."""
    from studio import catalog

    lines = ["usage: studio COMMAND [...]", "", "Finetune and harden image models.", "", "commands:"]
    lines += [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    cards = [catalog.card(name) for name in catalog.names()]
    lines += ["", "methods (studio train METHOD --help):"]
    lines += [f"  {c.name:<20} {c.summary}" for c in cards if not c.hidden]
    return "\n".join([*lines, "", "Every command takes --help, and --json for machines."])


NEW_OBJECTS = 10_000
"""Garbage is looked for after so many new objects: after every 700, Python's default, the search takes a sixth of the
time in which torch and diffusers are imported."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `studio` command."""
    gc.set_threshold(NEW_OBJECTS)
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Run one command; gives the exit code."""
    console = Console(json="--json" in argv, silent=os.environ.get("RANK", "0") != "0")
    arguments = [a for a in argv if a != "--json"]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            console.print(usage())
            return 0
        if arguments[0] == "--version":
            from importlib.metadata import version

            console.print(version("finetuning-studio"))
            return 0
        if arguments[0] not in COMMANDS:
            raise unknown("command", arguments[0], COMMANDS)
        module, _, function = COMMANDS[arguments[0]][0].partition(":")
        getattr(importlib.import_module(module), function)(arguments[1:], console)
    except RunFailed as error:
        console.error(str(error))
        return 1
    except StudioError as error:
        console.error(str(error))
        return 2
    except KeyboardInterrupt:
        console.error("Stopped.")
        return 1
    except BrokenPipeError:
        return 0
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
