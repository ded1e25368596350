"""Folders of trained weights that only their own method reads: `method.json` beside safetensors files. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import assets
from studio.errors import StudioError

CARD = "method.json"


@dataclass(frozen=True)
class Trained:
    """What such a folder says of itself.

    Attributes:
        folder: Where it is.
        method: Name of the method.
        model: Base model it was trained on.
        settings: What the method wrote for itself.
    """

    folder: Path
    method: str
    model: str
    settings: Mapping[str, Any]


def write(folder: Path, *, method: str, model: str, settings: Mapping[str, Any]) -> Path:
    """Write the card of a folder; gives its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CARD
    values = {"method": method, "model": model, "settings": dict(settings)}
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return path


def find(path: str | Path) -> Trained | None:
    """The folder that a path, a run or the name of an embedded artifact leads to; None if it is something else.

    Raises:
        StudioError: Its card is damaged.
    """
    places = [Path(path), Path(path) / "export"]
    if len(Path(path).parts) == 1:
        places.append(assets.root() / "models" / path)
    folder = next((place for place in places if (place / CARD).is_file()), None)
    return None if folder is None else _read(folder)


def shipped() -> list[str]:
    """Names of the embedded artifacts."""
    return sorted(card.parent.name for card in (assets.root() / "models").glob(f"*/{CARD}"))


def _read(folder: Path) -> Trained:
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return Trained(folder, str(values["method"]), str(values["model"]), dict(values["settings"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudioError(
            f"{folder / CARD} is damaged ({type(error).__name__}: {error}); copy or export it again."
        ) from None
