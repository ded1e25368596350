"""Where each setting of a run comes from: `studio train METHOD ... --print-config`. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.catalog.presets import Start
from studio.catalog.run import Run
from studio.flags import names
from studio.settings import serial


@dataclass(frozen=True)
class Setting:
    """One resolved setting.

    Attributes:
        path: Dotted name, as in a settings file.
        value: Plain, as in JSON.
        origin: default, `preset NAME`, file, run (of one that is resumed) or flag.
    """

    path: str
    value: Any
    origin: str


def of_new(run: Run, start: Start, argv: Sequence[str]) -> list[Setting]:
    """Where the settings of a new run come from, which these flags made of what it started from."""
    return list(_settings(run, start.layers, argv))


def of_resumed(old: Run, new: Run, argv: Sequence[str]) -> list[Setting]:
    """Where the settings of a run that is resumed with these flags come from."""
    return list(_settings(new, {"run": serial.flatten(old.to_dict())}, argv))


def _settings(run: Run, layers: Mapping[str, Mapping[str, Any]], argv: Sequence[str]) -> Iterator[Setting]:
    final = serial.flatten(run.to_dict())
    flagged = names.given(final, argv)
    for path, value in final.items():
        from_layer = (
            name for name, values in layers.items() if path in values and _same(values[path], value)
        )
        yield Setting(path, value, "flag" if path in flagged else next(from_layer, "default"))


def _same(given: Any, resolved: Any) -> bool:
    return serial.plain(given) == resolved
