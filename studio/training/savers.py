"""Changes of a run that save memory, with their flags, from the cheapest on."""

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from studio.catalog import methods
from studio.catalog.run import Run


@dataclass(frozen=True)
class Change:
    """A run that holds less: its flags in place of the old ones, and what they cost in words."""

    flags: tuple[str, ...]
    notes: tuple[str, ...]
    run: Run

    def __str__(self) -> str:
        pairs = zip(self.flags, self.notes, strict=True)
        return " ".join(f"{flag} ({note})" for flag, note in pairs)


def changes(run: Run) -> Iterator[Change]:
    """Changes that save memory, the cheapest first; each keeps those before it."""
    parts = _parts(run)
    if len(parts) > 1:
        yield _changed(
            Change((), (), run), f"--loop.accumulate {parts[0]}", "same result", loop={"accumulate": parts[0]}
        )
    change = Change((), (), run)
    for flag, note, values in _savers(run, parts):
        change = _changed(change, flag, note, **values)
        yield change


def _parts(run: Run) -> list[int]:
    """Into how many more parts a batch can be cut."""
    rows = run.loop.batch_size * methods.card_of(run.method).rows(run.method)
    return [n for n in range(run.loop.accumulate + 1, rows + 1) if rows % n == 0]


def _savers(run: Run, parts: list[int]) -> Iterator[tuple[str, str, dict[str, dict[str, Any]]]]:
    quantizes = importlib.util.find_spec("bitsandbytes") is not None
    if parts:
        yield f"--loop.accumulate {parts[-1]}", "same result", {"loop": {"accumulate": parts[-1]}}
    if not run.hardware.gradient_checkpointing:
        flag = "--hardware.gradient-checkpointing"
        yield flag, "same result, slower", {"hardware": {"gradient_checkpointing": True}}
    if quantizes and run.optim.name == "adamw":
        yield "--optim.name adamw8bit", "close to the same result", {"optim": {"name": "adamw8bit"}}
    if not run.hardware.offload:
        yield "--hardware.offload", "same result, slower", {"hardware": {"offload": True}}
    if quantizes and run.hardware.quantize == "none":
        yield "--hardware.quantize nf4", "frozen weights in 4 bits", {"hardware": {"quantize": "nf4"}}


def _changed(before: Change, flag: str, note: str, **parts: dict[str, Any]) -> Change:
    values = {name: dataclasses.replace(getattr(before.run, name), **own) for name, own in parts.items()}
    return Change((*before.flags, flag), (*before.notes, note), dataclasses.replace(before.run, **values))
