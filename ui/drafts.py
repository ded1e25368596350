"""A training run as the form holds it: defaults, preset and what the person changed, as values, YAML and command."""

import dataclasses
import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from studio.catalog import methods, presets
from studio.catalog.checks import check
from studio.catalog.run import Run
from studio.data.view_config import STICKERS
from studio.errors import StudioError
from studio.flags import names
from studio.queue.job import OPEN
from studio.settings import serial
from ui import forms
from ui.forms import Leaf
from ui.workspace import Workspace

SIMPLE = ("method.data", "method.data.train", "method.model", "method.prompts", "method.class_word", "method.token", "loop.steps",
          "optim.lr", "name", "loop.batch_size", "seed")  # fmt: skip
"""What the simple view asks for: the first five of these that a method has."""
NUM_SIMPLE = 5
GROUPS = {
    "": "Run",
    "method": "Method",
    "loop": "Training loop",
    "optim": "Optimizer",
    "preview": "Pictures while training",
    "hardware": "Hardware",
}


def offered() -> list[tuple[str, str]]:
    """Title and name of every method that trains, the usual first choice at the top."""
    found = [(card.title, methods.reference(card)) for card in methods.listed() if card.trainer]
    usual = sorted(found, key=lambda pair: (pair[1] != "dreambooth", pair[0]))
    return [*usual, *((f"{name} (yours)", name) for name in methods.here())]


@functools.cache
def _usual(method: str) -> str:
    card = methods.card(method)
    return json.dumps(
        forms.defaults(Run) | {"method": {"kind": methods.reference(card), **forms.defaults(card.config)}}
    )


def base(method: str, preset: str, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All values of a method under a preset.

    Args:
        method: Its name.
        preset: Name of a preset, or none; auto takes the one that suits.
        own: Values of the method's settings that auto looks at; None takes the defaults.
    """
    card, values = methods.card(method), json.loads(_usual(method))
    name = presets.choose(card, own or values["method"]).name if preset == "auto" else preset
    return serial.merge(values, presets.values_of(card, name)) | {"preset": name}


def suited(method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under the preset that suits their model and choices; what a person changed stays."""
    wanted = base(method, "auto", values["method"])
    if wanted["preset"] == values["preset"]:
        return dict(values)
    before = serial.flatten(base(method, values["preset"]))
    after = serial.flatten(values)
    mine = {
        name: value
        for name, value in after.items()
        if before.get(name) != value or _moved(name, before, after)
    }
    return serial.merge(wanted, serial.nest(mine)) | {"preset": wanted["preset"]}


def told(run: Run) -> list[tuple[str, str]]:
    """Which preset a run starts from and why, and what to know of its model: sentences, each with its kind of note."""
    choice = presets.told(methods.card_of(run.method), serial.to_dict(run.method), run.preset)
    why = [(f"Preset: {choice.why.rstrip('.')}.", "info")] if choice.why else []
    return [*why, *((said, "warning") for said in choice.warnings)]


def followed(held: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """What of a run is otherwise than the form holds it, since it follows what was given."""
    shown, found = serial.flatten(held), serial.flatten(run.to_dict())
    return {name: value for name, value in found.items() if name in shown and shown[name] != value}


def fields(method: str, values: Mapping[str, Any]) -> list[Leaf]:
    """Every field of a run of a method."""
    card = methods.card(method)
    own = {key: value for key, value in values["method"].items() if key != "kind"}
    found = list(forms.leaves(card.config, own, "method."))
    shared = [
        leaf for leaf in forms.leaves(Run, values) if not leaf.name.startswith(("method", "output", "preset"))
    ]
    return [*found, *(leaf for leaf in shared if leaf.name != "hardware.num_processes")]


def simple(all_fields: Sequence[Leaf]) -> list[Leaf]:
    """The few fields of the simple view."""
    by_name = {leaf.name: leaf for leaf in all_fields}
    return [by_name[name] for name in SIMPLE if name in by_name][:NUM_SIMPLE]


def build(values: Mapping[str, Any], workspace: Workspace) -> Run:
    """The run, checked as the command checks it, and kept inside the workspace.

    Raises:
        StudioError: Names the field at fault.
    """
    missing = _required(values["method"]["kind"]) & {
        name for name, value in serial.flatten(values).items() if value == forms.REQUIRED
    }
    if missing:
        raise _missing(min(missing))
    workspace.check(values, json.loads(_usual(values["method"]["kind"])))
    _check_data(values["method"], workspace)
    run = Run.from_dict(dict(values) | {"output": "runs"})
    run = methods.card_of(run.method).follow(run, _changed(run).keys())
    check(run)
    if run.name and ("/" in run.name or run.name.startswith(".")):
        raise StudioError(f"name {run.name!r} must be a plain name without a slash.", field="name")
    waiting = [job.title for job in workspace.jobs.all(states=OPEN) if job.run]
    if run.name and ((workspace.runs / run.name / "config.json").exists() or run.name in waiting):
        raise StudioError(f"A run {run.name!r} exists already; choose another name.", field="name")
    return run


def _missing(name: str) -> StudioError:
    if name.endswith("data"):
        return StudioError("Data is missing; choose a folder, or upload pictures.", field=name)
    word = name.rpartition(".")[2].replace("_", " ").capitalize()
    return StudioError(f"{word} is missing; fill it in.", field=name)


def _required(method: str) -> set[str]:
    cls = methods.card(method).config
    given = dataclasses.MISSING
    found = [
        each for each in dataclasses.fields(cls) if each.default is given and each.default_factory is given
    ]
    return {f"method.{field.name}" for field in found}


def _check_data(method: Mapping[str, Any], workspace: Workspace) -> None:
    """Refuse data that is not there."""
    data, field = method.get("data", ""), "method.data"
    if isinstance(data, Mapping):
        data, field = data.get("train", ""), "method.data.train"
    if data and data != STICKERS and not (workspace.root / Path(data).expanduser()).exists():
        raise StudioError(
            f"Data {data!r} does not exist; choose a folder of the list, or upload pictures.", field=field
        )


def as_yaml(run: Run) -> str:
    """The settings file of a run."""
    return yaml.safe_dump(run.to_dict(), sort_keys=False, allow_unicode=True)


def command(run: Run) -> str:
    """The command that does the same: what differs from the defaults and from the model's own preset."""
    card, changed = methods.card_of(run.method), _changed(run)
    words = ["studio", "train", methods.reference(card)]
    chosen = serial.nest({name: value for name, value in changed.items() if name.startswith("method.")})
    if presets.choose(card, chosen.get("method", {})).name != run.preset:
        words += ["--preset", run.preset]
    for name, value in changed.items():
        words += names.words(name, value)
    return " ".join(shlex.quote(word) for word in words)


def _changed(run: Run) -> dict[str, Any]:
    """What differs from the defaults and from the run's preset."""
    values = run.to_dict()
    before, after = serial.flatten(base(values["method"]["kind"], run.preset)), serial.flatten(values)
    return {
        name: value
        for name, value in after.items()
        if name != "preset" and (before.get(name) != value or _moved(name, before, after))
    }


def _moved(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a field belongs to an alternative that the defaults do not have."""
    kind = f"{name.rpartition('.')[0]}.kind"
    return kind in after and before.get(kind) != after[kind] and name != kind and name not in before
