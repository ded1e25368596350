"""What `--help` says, of `studio` and of every command that does not explain itself. No torch."""

from studio.catalog import methods
from studio.commands.table import COMMANDS, Asked, Command

CODES = """Exit codes: 0 done, or stopped and saved; 1 the work failed, what was done is saved; 2 something to correct, nothing was
written. Every command takes --help, and --json: then each fact is one JSON object a line on stdout, numbers are numbers,
an error is {"event": "error", "error": "..."}, and sentences for people are left out."""


def usage() -> str:
    """The text of `studio --help`."""
    lines = ["usage: studio COMMAND [...]", "", "Finetune and harden image models.", "", "commands:"]
    lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    cards = methods.listed()
    lines += ["", "methods (studio train METHOD --help):"]
    lines += [f"  {methods.reference(c):<20} {c.summary}" for c in cards if c.trainer]
    lines += _here()
    lines += ["", "edits of sampling, without training (studio sample --edits NAME ...):"]
    lines += [f"  {methods.reference(c):<20} {c.summary}" for c in cards if not c.trainer]
    return "\n".join([*lines, "", CODES])


def of(asked: Asked) -> str:
    """The help of a command."""
    if asked.words == ("train",):
        return of_train()
    command, words = asked.command, " ".join(asked.words)
    lines = [
        f"usage: studio {words} {command.usage}".rstrip(),
        "",
        f"{command.summary[:1].upper()}{command.summary[1:]}.",
    ]
    if command.verbs:
        given = "|".join(command.verbs)
        lines[0] = f"usage: studio {words} {f'[{given}]' if command.default else given} ..."
        lines += ["", *(line for name, verb in command.verbs.items() for line in _verb(name, verb))]
        lines += ["", "Each of them takes --help."]
    return "\n".join([*lines, *(["", command.text] if command.text else [])])


def of_train() -> str:
    """The text of `studio train --help`."""
    lines = [
        "usage: studio train METHOD [--preset NAME] [--config FILE] [settings of the method]",
        "       studio train METHOD ... --print-config     every setting, its value, and where that comes from",
        "       studio train METHOD ... --gpu 12GiB|auto   with the cheapest changes that make it fit (studio plan)",
        "       studio train --resume RUN [--loop.steps N] [--allow-changes]",
        "",
        "methods (studio train METHOD --help lists all settings with their sources):",
    ]
    lines += [f"  {methods.reference(card):<20} {card.summary}" for card in methods.listed() if card.trainer]
    lines += _here()
    return "\n".join([*lines, "", COMMANDS["train"].text])


def _verb(name: str, verb: Command) -> list[str]:
    return [f"  {f'{name} {verb.usage}'.rstrip()}", f"      {verb.summary}"]


def _here() -> list[str]:
    """What a person's own methods in the working folder are called, which nothing imports before they are asked for."""
    return [f"  {name:<20} yours, in this folder: studio train {name} --help" for name in methods.here()]
