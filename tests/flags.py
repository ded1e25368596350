"""The list of flags of every training method, kept in `flags.txt`: `python -m tests.flags` writes it."""

from collections.abc import Iterator
from pathlib import Path

from studio.catalog import methods
from studio.catalog.run import Run
from studio.settings import serial

FILE = Path(__file__).with_name("flags.txt")


def flags(settings: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings; a choice between settings shows the member: `adapter:lora.rank`."""
    for name, annotation in serial.hints(settings).items():
        members = serial.members(annotation)
        if not members:
            yield f"{prefix}{name}"
        for member in members:
            chosen = f":{serial.kind(member)}" if len(members) > 1 else ""
            yield from (
                flags(member, f"{prefix}{name}{chosen}.")
                if serial.hints(member)
                else [f"{prefix}{name}{chosen}"]
            )


def render() -> str:
    """One flag a line: those of every run first, then each method's own."""
    common = [f"run {flag}" for flag in flags(Run)]
    own = [f"{name} {flag}" for name in methods.ours() for flag in flags(methods.card(name).config)]
    return "\n".join(common + own) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
