"""Write a finetuned dual encoder so that other programs read it, and read it back as what it learned.

Weights that moved are a folder of the library they came from, adapters merged. What was added (prompts, a head) is
`matcher.safetensors`, with `matcher.json` beside it. Prompts are taken up on the base model that they name.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from studio.adapters.merge import merged_copy
from studio.errors import StudioError
from studio.matching.build import make
from studio.matching.config import Adapted, LpFt, Tuning, Whole
from studio.matching.matcher import Matcher
from studio.models.clip import load_clip
from studio.records import runs
from studio.settings import serial
from studio.settings.config import config

SETTINGS, TENSORS = "matcher.json", "matcher.safetensors"


@config
class Described:
    """What a folder says about the matcher in it."""

    base: str
    """The model that training started from."""
    pretrained: str = ""
    """Its weights, where its name alone does not say them."""
    tuning: Tuning
    """What was tuned."""
    classes: tuple[str, ...] = ()
    """The classes that were trained on, in order."""
    templates: tuple[str, ...] = ()
    """The sentences of training."""


@dataclass(frozen=True)
class Opened:
    """A matcher read back; `base` names the model that it started from, and is empty for a plain model."""

    matcher: Matcher
    base: str = ""
    pretrained: str = ""
    moved: bool = False
    """Whether weights of the model itself moved."""


def save_matcher(matcher: Matcher, described: Described, folder: Path) -> list[Path]:
    """Write what was learned."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    if isinstance(described.tuning, (Whole, Adapted, LpFt)):
        adapted = isinstance(described.tuning, Adapted)
        network = merged_copy(matcher.model.network) if adapted else matcher.model.network
        files += matcher.model.save(network, folder)
    if learned := matcher.learned():
        tensors = {key: value.detach().float().cpu().contiguous() for key, value in learned.items()}
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
        files.append(folder / TENSORS)
    runs.write_text(folder / SETTINGS, json.dumps(serial.to_dict(described), indent=2) + "\n")
    return [*files, folder / SETTINGS]


def load_matcher(name: str, templates: Sequence[str], pretrained: str = "") -> Opened:
    """A matcher by the name of a run or folder, or a plain model by any name that `load_clip` takes, on the CPU.

    Args:
        name: Run, folder or model.
        templates: Sentences for models that learned no prompt.
        pretrained: Weights of an open_clip name.

    Raises:
        StudioError: It cannot be read.
    """
    folder = _folder(name)
    if folder is None:
        return Opened(Matcher(load_clip(name, pretrained), templates).eval())
    values = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    described: Described = serial.from_dict(Described, values)
    moved = isinstance(described.tuning, (Whole, Adapted, LpFt))
    model = load_clip(str(folder)) if moved else load_clip(described.base, described.pretrained)
    matcher = make(model, described.tuning, described.classes, described.templates)
    if isinstance(described.tuning, (Whole, Adapted)):
        matcher.templates = tuple(templates)
    elif (folder / TENSORS).is_file():
        _take(matcher, load_file(folder / TENSORS), folder)
    return Opened(matcher.eval().requires_grad_(False), described.base, described.pretrained, moved)


@torch.no_grad()
def _take(matcher: Matcher, values: dict[str, Any], folder: Path) -> None:
    learned = matcher.learned()
    odd = sorted(set(values) ^ set(learned))
    odd += [key for key in learned if key in values and learned[key].shape != values[key].shape]
    if odd:
        raise StudioError(
            f"{str(folder / TENSORS)!r} does not fit its model ({odd[0]!r} is missing, unexpected or of another shape); "
            "export the run again with the base model it started from.",
            field="model",
        )
    for key, value in learned.items():
        value.copy_(values[key])


def _folder(name: str) -> Path | None:
    places = (Path(name), Path(name) / "export", Path("runs") / name / "export")
    return next((place for place in places if (place / SETTINGS).is_file()), None)
