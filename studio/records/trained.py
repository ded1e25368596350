"""Folders of trained weights that only their own method reads: `method.json` beside safetensors files. No torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import assets
from studio.errors import StudioError
from studio.settings import serial
from studio.settings.sampling import Text

CARD = "method.json"
PUBLIC = {"ip_adapter": "ip_adapter.1.to_k_ip.weight"}
"""Methods that read files of others too, and a tensor that only such files have."""


@dataclass(frozen=True)
class Trained:
    """What such a folder says of itself.

    Attributes:
        folder: Where it is; of a public file, the file.
        method: Name of the method.
        model: Base model it was trained on; empty if it does not tell.
        settings: What the method wrote for itself.
        guidance: Guidance that suits it while sampling; None if it does not say.
        text: How text was read while it was trained; None if it does not say.
    """

    folder: Path
    method: str
    model: str
    settings: Mapping[str, Any]
    guidance: float | None = None
    text: Text | None = None


def write(  # what such a folder says of itself
    folder: Path,
    *,
    method: str,
    model: str,
    settings: Mapping[str, Any],
    guidance: float | None = None,
    text: Text | None = None,
) -> Path:
    """Write the card of a folder (see `Trained`); gives its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CARD
    values = {"method": method, "model": model, "guidance": guidance, "settings": dict(settings)}
    values |= {} if text is None else {"text": serial.to_dict(text)}
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return path


def find(path: str | Path) -> Trained | None:
    """The folder that a path, a run or the name of an embedded artifact leads to, or a public file of such a method.

    None if it is something else. A public file does not tell its base model.

    Raises:
        StudioError: Its card is damaged.
    """
    if Path(path).suffix == ".safetensors" and Path(path).is_file():
        return _public(Path(path))
    places = [Path(path), Path(path) / "export"]
    if len(Path(path).parts) == 1:
        places.append(assets.root() / "models" / path)
    folder = next((place for place in places if (place / CARD).is_file()), None)
    return None if folder is None else _read(folder)


def refuse_other(given: Trained, settings: Any, names: Sequence[str]) -> None:
    """Refuse to go on from weights that were made with other settings where these must be the same.

    Raises:
        StudioError: Names the first one that differs.
    """
    for name in names:
        own = getattr(settings, name)
        if name in given.settings and given.settings[name] != own:
            raise StudioError(
                f"{given.folder} was trained with {name} {given.settings[name]!r}, and these settings have {own!r}; "
                "set it as it was, or start from other weights.",
                field=name,
            )


def shipped() -> list[str]:
    """Names of the embedded artifacts."""
    return sorted(card.parent.name for card in (assets.root() / "models").glob(f"*/{CARD}"))


def _public(path: Path) -> Trained | None:
    """A file of tensors that one of our methods reads; its header alone is read."""
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > path.stat().st_size:
            return None
        header = opened.read(length)
    method = next((name for name, key in PUBLIC.items() if f'"{key}"'.encode() in header), None)
    return None if method is None else Trained(path, method, "", {})


def _read(folder: Path) -> Trained:
    try:
        values = dict(json.loads((folder / CARD).read_text(encoding="utf-8")))
        guidance = None if values.get("guidance") is None else float(values["guidance"])
        text = serial.from_dict(Text, values["text"]) if "text" in values else None
        told = str(values["method"]), str(values["model"]), dict(values["settings"])
        return Trained(folder, *told, guidance, text)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError, StudioError) as error:
        raise StudioError(
            f"{folder / CARD} is damaged ({type(error).__name__}: {error}); copy or export it again."
        ) from None
