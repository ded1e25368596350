"""What a run starts from before a person changes anything: the preset that suits its model, and where each value is from."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.catalog.cards import Card
from studio.errors import StudioError, unknown
from studio.settings import serial

FOLLOWED = "follows"
"""Where values are from that nobody gave: they follow others that a person gave."""


@dataclass(frozen=True)
class Start:
    """Plain values to begin with, nested; the method's own under `method`, without its name."""

    values: dict[str, Any]
    preset: str
    """Name of the preset among them; empty if none fits the model."""
    layers: Mapping[str, Mapping[str, Any]]
    """What they are made of, the strongest first: where it is from, to dotted names and values."""

    def followed(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> "Start":
        """The same, where settings (dotted names to values) followed those that were given."""
        changed = {name: value for name, value in after.items() if before.get(name) != value}
        return dataclasses.replace(self, layers={FOLLOWED: changed, **self.layers})


def starting(card: Card, *, file: Mapping[str, Any] = {}, model: str = "", preset: str = "") -> Start:
    """The preset for a model with a settings file over it.

    Args:
        card: Of the method.
        file: Values of a settings file.
        model: The model, as given beside the file; empty takes the file's, or the method's default.
        preset: Name of a preset to take whatever the model is.

    Raises:
        StudioError: There is no such preset.
    """
    own = file.get("method", {})
    if not isinstance(own, Mapping):
        raise StudioError(
            f"method was given as {own!r} in the settings file; write its settings under it: `method: {{kind: {card.name}, ...}}`.",
            field="method",
        )
    taken = preset or card.preset_for(str(model or own.get("model") or default_model(card)))
    if taken and taken not in card.presets:
        raise unknown("preset", taken, card.presets, field="preset")
    base = serial.nest(dict(card.presets[taken].values)) if taken else {}
    values = serial.merge(base, file)
    values["method"] = {key: value for key, value in values.get("method", {}).items() if key != "kind"}
    layers = {"file": serial.flatten(file), f"preset {taken}": serial.flatten(base)}
    return Start(values, taken, layers)


def default_model(card: Card) -> str:
    """The model that a method takes when none is named; empty if it has none."""
    return next((str(f.default) for f in dataclasses.fields(card.config) if f.name == "model"), "")
