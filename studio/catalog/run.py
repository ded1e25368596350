"""One training run: a method's settings and what every run can be told, with the preset that suits the model. No torch."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from studio.catalog import methods
from studio.catalog.presets import starting
from studio.errors import StudioError, unknown
from studio.settings import serial
from studio.settings.config import Count, config
from studio.settings.run import Hardware, Loop, Optim, Preview


@config
class Run:
    """One training run. `config.json` in the run folder holds it whole and re-creates it."""

    method: Any
    """The method's own settings."""
    preset: str = "none"
    """Preset that the settings start from: by itself the one that suits the model and what of it trains; none: none."""
    name: str = ""
    """Name of the run folder; empty makes one from the method and the time."""
    output: str = "runs"
    """Folder of all runs."""
    seed: Count = 0
    """Every random number is a function of this and the step."""
    loop: Loop = Loop()
    optim: Optim = Optim()
    hardware: Hardware = Hardware()
    preview: Preview = Preview()
    trackers: tuple[Literal["auto", "trackio", "tensorboard", "wandb"], ...] = ("auto",)
    """Trackers besides events.jsonl, which is always written; auto: a local Trackio, where installed."""

    def __post_init__(self) -> None:
        """Refuse what is no method's settings.

        Raises:
            StudioError: Such as the name of a method.
        """
        if isinstance(self.method, type) or not dataclasses.is_dataclass(self.method):
            raise StudioError(
                f"method was given as {self.method!r}; give a method's settings, such as DreamBooth(data='photos').",
                field="method",
            )

    @classmethod
    def of(cls, method: str, *, preset: str = "", **given: Any) -> "Run":
        """A run of a method, with the preset that `studio train METHOD` takes for the same model.

            Run.of("dreambooth", data="photos", class_word="dog", model="sdxl", loop={"steps": 400})

        Args:
            method: Name of the method, or where one of your own is: a dotted path or a file.
            preset: Name of a preset, or none; empty takes the one that suits the model and what of it trains, if there is one.
            given: Settings of the method and of the run by name. A nested setting is a dictionary of what to change, or
                its class, such as `Lora(rank=8)`, which then holds whole; a choice can be its name, such as "oft".

        Raises:
            StudioError: There is no such method, preset or setting, or a value is out of bounds.
        """
        card = methods.card(method)
        own, common = serial.hints(card.config), set(serial.hints(cls)) - {"method"}
        for name in given:
            if name not in own and name not in common:
                raise unknown("setting", name, [*own, *common], field=name)
        values = {name: serial.plain(value) for name, value in given.items()}
        nested: dict[str, Any] = {name: value for name, value in values.items() if name in common}
        nested["method"] = {name: value for name, value in values.items() if name not in common}
        base = starting(card, preset=preset, own=nested["method"])
        merged = serial.merge(base.values, nested)
        run = cls.from_dict({**merged, "method": {**merged["method"], "kind": methods.reference(card)}})
        return card.follow(run, serial.flatten(nested).keys())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Run":
        """A run from plain values: what `to_dict` gave, or a settings file.

        Raises:
            StudioError: No method is named, a setting does not exist, or a value is out of bounds.
        """
        rest = dict(values)
        method = rest.pop("method", {})
        if isinstance(method, str):
            method = {"kind": method}  # as a person writes it
        if not isinstance(method, Mapping) or "kind" not in method:
            raise StudioError(
                "The settings name no method; add `method: {kind: dreambooth, ...}`.", field="method"
            )
        method = dict(method)
        card = methods.card(str(method.pop("kind")))
        rest["method"] = serial.from_dict(card.config, method, where="method")
        return serial.from_dict(cls, rest)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, with the method's name."""
        values = serial.to_dict(self)
        values["method"] = {
            "kind": methods.reference(methods.card_of(self.method)),
            **serial.to_dict(self.method),
        }
        return values
