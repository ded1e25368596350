"""How text was read while something was trained, as runs and exported files tell it. No torch."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from studio.catalog import run_folder
from studio.errors import StudioError
from studio.records import trained
from studio.settings import serial
from studio.settings.sampling import Text

log = logging.getLogger(__name__)
KEY = "studio_text"
"""Of a safetensors header."""
FILE = "studio_text.json"
"""In a folder that is a whole model."""
_PEFT = ("adapter_model.safetensors", "*/adapter_model.safetensors")


def written(text: Text) -> str:
    """What a file tells: all but weights in prompts, which everybody decides who draws."""
    return json.dumps({name: value for name, value in serial.to_dict(text).items() if name != "weights"})


def text_of(path: str | Path) -> Text | None:
    """How text was read where an artifact was trained; None if it does not tell.

    Args:
        path: A run, a file or folder that it exported, or the name of an embedded artifact.
    """
    if (own := trained.find(path)) is not None:
        return own.text
    place = Path(path)
    files = [place] if place.is_file() else [file for name in _PEFT for file in sorted(place.glob(name))]
    for file in files[:1]:
        if told := _header(file).get(KEY):
            return _read(told, file)
    if (place / FILE).is_file():
        return _read((place / FILE).read_text(encoding="utf-8"), place / FILE)
    return _of_run(place)


def as_trained(asked: Text, usual: Text, paths: Sequence[str]) -> Text:
    """How text is read with some artifacts on: as was asked, and as the first that tells was trained where nothing was.

    Says what it takes, and warns where another artifact was trained otherwise.

    Args:
        asked: What a person asked for.
        usual: The same if nobody asks.
        paths: The artifacts.
    """
    found = [(path, text) for path in paths if (text := text_of(path)) is not None]
    if not found:
        return asked
    first, text = found[0]
    taken = {
        name: value
        for name, value in serial.to_dict(text).items()
        if name != "weights" and getattr(asked, name) == getattr(usual, name) != value
    }
    if taken:
        log.info("text is read as %s was trained: %s", first, _spoken(taken))
    for path, other in found[1:]:
        if written(other) != written(text):
            log.warning(
                "%s was trained with %s; text is read as for %s.", path, _spoken(serial.to_dict(other)), first
            )
    return dataclasses.replace(asked, **taken)


def warn_of_other(path: str | Path, text: Text) -> None:
    """Say that training goes on from weights whose text was read otherwise."""
    told = text_of(path)
    if told is not None and written(told) != written(text):
        now, then = (_spoken(serial.to_dict(one)) for one in (text, told))
        log.warning("%s was trained with %s; this training reads text with %s.", path, then, now)


def _spoken(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name != "weights")


def _of_run(place: Path) -> Text | None:
    """What the settings say of the run that a place is, or lies in."""
    for folder in (place, *place.absolute().parents[:3]):
        if run_folder.is_run(folder):
            method = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("method", {})
            return _read(json.dumps(method["text"]), folder / "config.json") if "text" in method else None
    return None


def _header(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file; none of another, or of one that cannot be read, which loading it says."""
    if file.suffix != ".safetensors":
        return {}
    try:
        with safe_open(file, "numpy") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _read(told: str, file: Path) -> Text:
    try:
        return serial.from_dict(Text, json.loads(told))
    except (ValueError, TypeError, StudioError) as error:
        raise StudioError(
            f"{file} does not tell rightly how text is read ({error}); export it again."
        ) from None
