"""What a model is, told by its name, folder or file before anything of it is loaded. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio import assets
from studio.catalog import families
from studio.catalog.family import FamilyCard, Part, Variant

Kind = Literal["embedded", "tiny", "published", "folder", "file", "unknown"]


@dataclass(frozen=True)
class Known:
    """What is known of a model.

    Attributes:
        kind: embedded or tiny (small models of this project), published (a short name or a repository of a card), folder, file.
        card: Its family, if that can be told.
        variant: The published model that it is or was made from, as far as its settings tell.
        why: What told it.
    """

    kind: Kind
    card: FamilyCard | None = None
    variant: Variant | None = None
    why: str = ""

    @property
    def small(self) -> bool:
        """Whether it is a small model of this project."""
        return self.kind in ("embedded", "tiny")


def recognize(model: str) -> Known:
    """What the model of a name, folder or file is.

    Args:
        model: As given to `--model`.
    """
    if model.startswith("tiny:"):
        card = families.cards().get(model.removeprefix("tiny:"))
        return Known("tiny", card, None, "a tiny model with random weights")
    if named := families.by_name(model):
        return Known("published", *named, "its name")
    if assets.exists(f"models/{model}") and (found := _folder(assets.path(f"models/{model}"))):
        return Known("embedded", found[0], None, "an embedded model")
    if found := _folder(Path(model).expanduser()):
        return Known("folder", *found, "its model_index.json and settings")
    return Known("unknown")


def _folder(folder: Path) -> tuple[FamilyCard, Variant | None] | None:
    """Family and variant of a diffusers folder."""
    index = _json(folder / "model_index.json")
    cards = families.of_pipeline(str(index.get("_class_name", "")))
    for card in cards:
        if all(_agrees(folder, index, card.variants[0], *told) for told in card.recognize.tells.items()):
            fits = [
                v for v in card.variants if all(_agrees(folder, index, v, *told) for told in v.tells.items())
            ]
            return card, fits[0] if fits else None
    return None


def _agrees(folder: Path, index: Mapping[str, Any], variant: Variant, name: str, wanted: object) -> bool:
    """Whether a setting of a folder, or of its class where the folder leaves it out, is the wanted one."""
    component, _, setting = name.partition(".")
    if component == "index":
        return index.get(setting, False) == wanted
    file = "scheduler_config.json" if component == "scheduler" else "config.json"
    found = _json(folder / component / file)
    left_out = variant.architecture.get(component, Part("")).config.get(setting) if not found else None
    return found.get(setting, left_out) == wanted


def _json(file: Path) -> dict[str, Any]:
    """The values of a file; none where it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
