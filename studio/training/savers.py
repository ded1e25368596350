"""Changes of a run that save memory, with their flags, from the cheapest on."""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from studio.catalog import methods
from studio.catalog.checks import is_diffusion
from studio.catalog.run import Run
from studio.flags import names
from studio.settings import serial


@dataclass(frozen=True)
class Saver:
    """One change: settings by dotted name, and what it costs in words."""

    values: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Change:
    """A run that holds less.

    Attributes:
        notes: What each changed setting costs, by its flag.
        run: The changed run.
    """

    notes: Mapping[str, str]
    run: Run

    @property
    def flags(self) -> list[str]:
        """What to add to the command."""
        return list(self.notes)

    def further(self, saver: Saver) -> "Change":
        """This and one more."""
        told = {" ".join(names.words(name, value)): saver.note for name, value in saver.values.items()}
        again = {flag.split()[0] for flag in told}
        kept = {flag: note for flag, note in self.notes.items() if flag.split()[0] not in again}
        values = serial.merge(self.run.to_dict(), serial.nest(dict(saver.values)))
        return Change(kept | told, Run.from_dict(values))

    def __str__(self) -> str:
        """Flags, each with what it costs."""
        return " ".join(f"{flag} ({note})" for flag, note in self.notes.items())


def changes(run: Run) -> Iterator[Change]:
    """Changes that save memory, the cheapest first; each keeps those before it."""
    parts = _parts(run)
    if len(parts) > 1:
        yield Change({}, run).further(_accumulate(parts[0]))
    change = Change({}, run)
    for saver in _savers(run, parts):
        change = change.further(saver)
        yield change


def _parts(run: Run) -> list[int]:
    """Into how many more parts a batch can be cut."""
    rows = run.loop.batch_size * methods.card_of(run.method).rows(run.method)
    return [n for n in range(run.loop.accumulate + 1, rows + 1) if rows % n == 0]


def _accumulate(parts: int) -> Saver:
    return Saver({"loop.accumulate": parts}, "same result")


def _savers(run: Run, parts: list[int]) -> Iterator[Saver]:
    if parts:
        yield _accumulate(parts[-1])
    if not run.hardware.gradient_checkpointing:
        yield Saver({"hardware.gradient_checkpointing": True}, "same result, slower")
    if not run.hardware.offload:
        yield Saver({"hardware.offload": True}, "same result, slower")
    if _trains_whole(run):
        yield from _of_whole(run, parts)
    elif is_diffusion(run) and run.hardware.quantize == "none":
        yield Saver({"hardware.quantize": "int8"}, "frozen weights in 8 bits")
        if _has_bitsandbytes():
            yield Saver({"hardware.quantize": "nf4"}, "frozen weights in 4 bits")


def _of_whole(run: Run, parts: list[int]) -> Iterator[Saver]:
    """What makes whole finetuning smaller."""
    if _has_bitsandbytes() and run.optim.name == "adamw":
        yield Saver({"optim.name": "adamw8bit"}, "close to the same result")
    if run.optim.name in ("adamw", "adamw8bit") and not run.hardware.sharded:
        yield Saver({"optim.full_bf16": True}, "weights rounded by chance")
        if run.hardware.num_processes == run.loop.accumulate == 1 and not parts:
            yield Saver({"optim.fused_backward": True, "loop.clip_norm": 0.0}, "no clipping")


def _has_bitsandbytes() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


def _trains_whole(run: Run) -> bool:
    return (
        getattr(run.method, "adapter", None) is not None and serial.kind(type(run.method.adapter)) == "full"
    )
