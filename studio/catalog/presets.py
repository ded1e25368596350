"""What a run starts from before a person changes anything: the preset that suits its model, and where each value is from."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.catalog import traits
from studio.catalog.cards import Card
from studio.catalog.recognize import recognize
from studio.catalog.suits import Traits
from studio.errors import StudioError, unknown
from studio.settings import serial
from studio.settings.run import Loop, Optim
from studio.settings.sampling import Parts

NONE = "none"
"""The name for no preset at all."""


@dataclass(frozen=True)
class Choice:
    """The preset of a run.

    Attributes:
        name: Its name; none if there is none.
        why: What was taken and why, in one sentence; empty for methods without presets.
        warnings: Sentences about what a person should know of the model before training it.
    """

    name: str
    why: str
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What is said when a run starts."""
        return [
            *([f"preset: {self.why}"] if self.why else []),
            *(f"warning: {said}" for said in self.warnings),
        ]


FOLLOWED = "follows"
"""Where values are from that nobody gave: they follow others that a person gave."""


@dataclass(frozen=True)
class Start:
    """Plain values to begin with, nested; the method's own under `method`, without its name."""

    values: dict[str, Any]
    choice: Choice
    layers: Mapping[str, Mapping[str, Any]]
    """What they are made of, the strongest first: where it is from, to dotted names and values."""

    def followed(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> "Start":
        """The same, where settings (dotted names to values) followed those that were given."""
        changed = {name: value for name, value in after.items() if before.get(name) != value}
        return dataclasses.replace(self, layers={FOLLOWED: changed, **self.layers})

    @property
    def preset(self) -> str:
        """Name of the preset among them; empty if there is none."""
        return "" if self.choice.name == NONE else self.choice.name


def starting(
    card: Card,
    *,
    file: Mapping[str, Any] = {},
    model: str = "",
    preset: str = "",
    own: Mapping[str, Any] = {},
) -> Start:
    """The preset for a model with a settings file over it.

    Args:
        card: Of the method.
        file: Values of a settings file.
        model: The model, as given beside the file; empty takes the file's, or the method's default.
        preset: Name of a preset to take whatever the model is; none for no preset.
        own: Settings of the method given beside the file, as far as they choose what trains.

    Raises:
        StudioError: There is no such preset.
    """
    given: Any = file.get("method", {})
    if not isinstance(given, Mapping):
        raise StudioError(
            f"method was given as {given!r} in the settings file; write its settings under it: `method: {{kind: {card.name}, ...}}`.",
            field="method",
        )
    chosen = choose(
        card, {**given, **own, **({"model": model} if model else {})}, preset or str(file.get("preset", ""))
    )
    base = values_of(card, chosen.name)
    values: dict[str, Any] = serial.merge(base, file)
    values["preset"] = chosen.name
    values["method"] = {key: value for key, value in values.get("method", {}).items() if key != "kind"}
    taken = serial.flatten(base) | {"preset": chosen.name}
    layers = {"file": serial.flatten(file), f"preset {chosen.name}": taken}
    return Start(values, chosen, layers)


def values_of(card: Card, name: str) -> dict[str, Any]:
    """The plain values of a preset, nested; nothing for none."""
    return {} if name == NONE else serial.nest(dict(card.presets[name].values))


def choose(card: Card, own: Mapping[str, Any], preset: str = "") -> Choice:
    """The preset for settings of a method, and why.

    Args:
        card: Of the method.
        own: Plain values of the method's settings that are given; the others have their defaults.
        preset: Name of a preset to take whatever the model is; none for no preset, empty for the one that suits.

    Raises:
        StudioError: There is no such preset, or no such variant of the model.
    """
    if preset and preset != NONE and preset not in card.presets:
        raise unknown("preset", preset, [*card.presets, NONE], field="preset")
    model = _model(card, own)
    found = traits.traits_of(model, traits.choices(card.config, own), _parts(own))
    name = preset or card.preset_for(found) or NONE
    distilled = _distilled(card, model, _parts(own))
    if preset == NONE or not card.presets:
        return Choice(NONE, "none, as asked" if preset else "", distilled)
    if name == NONE:
        return Choice(NONE, "", (_unsuited(card, found), *distilled))
    because = "as asked" if preset else _because(found)
    return Choice(name, f"{name}, {because} ({card.presets[name].note})", distilled)


def told(card: Card, own: Mapping[str, Any], preset: str) -> Choice:
    """Why a run has the preset that its record names, said anew.

    Args:
        card: Of the method.
        own: Plain values of the method's settings.
        preset: As recorded.
    """
    if preset not in (NONE, *card.presets):  # recorded by a version that had it
        return Choice(preset, "")
    found = choose(card, own)
    return found if found.name == preset else choose(card, own, preset)


def taken_for(card: Card, own: Mapping[str, Any]) -> str:
    """Which published model the model of a method's settings is taken for and why; empty where none is.

    Args:
        card: Of the method.
        own: Plain values of the method's settings.

    Raises:
        StudioError: Its `parts` name no variant of it.
    """
    return recognize(_model(card, own).removeprefix("new:")).told(_parts(own)).taken_for


def _parts(own: Mapping[str, Any]) -> Parts:
    """What a method's settings say of its model, beside where it is."""
    return serial.from_dict(Parts, own.get("parts", {}), where="method.parts")


def _model(card: Card, own: Mapping[str, Any]) -> str:
    """The model as given, or the method's; empty for methods that make theirs anew, whose model is settings."""
    named = own.get("model") or default_model(card)
    return named if isinstance(named, str) else ""


def default_model(card: Card) -> str:
    """The model that a method takes when none is named; empty if it has none."""
    return next((str(f.default) for f in dataclasses.fields(card.config) if f.name == "model"), "")


def _because(found: Traits) -> str:
    return f"since {found.told or f'{found.name} is its model'}{_moving(found)}"


def _moving(found: Traits) -> str:
    """What of the model trains, where that decides anything."""
    if "whole" in found.chosen:
        return ", and all of its weights train"
    return ", and an adapter trains" if "adapter" in found.chosen else ""


def _unsuited(card: Card, found: Traits) -> str:
    """What to say where no preset suits."""
    what = found.told or f"what {found.name!r} is cannot be told before it is loaded"
    usual = f"rate {Optim().lr:g}, batch {Loop().batch_size}, {Loop().steps} steps"
    return (
        f"no preset of {card.name} suits this run ({what}{_moving(found)}); the method's defaults are used ({usual}). "
        f"Set your own, or take one with --preset: {', '.join(card.presets)}."
    )


def _distilled(card: Card, model: str, parts: Parts) -> tuple[str, ...]:
    """What to say of a model that is distilled to few steps."""
    variant = traits.variant_of(model, parts)
    if variant is None or not variant.distilled:
        return ()
    ways = [f"train {variant.instead} instead" if variant.instead else "train a model that is not distilled"]
    if variant.assistant and "denoising" in serial.hints(card.config):
        ways.append(f"train it under a de-distilling adapter: --denoising.assistant {variant.assistant}")
    return (
        f"{variant.title} is distilled to {variant.steps} steps, which plain finetuning takes from it; {', or '.join(ways)}.",
    )
