"""The published files of a model as a folder that loads: its own tokenizers and settings, thin networks with random weights."""

import json
import shutil
from pathlib import Path

import diffusers
import torch
import transformers

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "published"
"""The models' own files, where they lie beside the project."""


def shrunk(name: str, folder: Path, widths: dict[str, dict]) -> Path:
    """A folder of a model, `family/Model` below the published files, with other widths by component."""
    whole(name, folder)
    for component, changes in widths.items():
        file = folder / component / "config.json"
        settings = json.loads(file.read_text())
        kind = json.loads((folder / "model_index.json").read_text())[component]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            built(kind, _changed(settings, changes)).save_pretrained(folder / component)
    return folder


def whole(name: str, folder: Path) -> None:
    """Copy a model's files, and those that it has in common with others."""
    shutil.copytree(PUBLISHED / name, folder, dirs_exist_ok=True)
    for listed in list(folder.rglob("SAME_AS")):
        for line in listed.read_text().splitlines():
            file, other = line.split("\t")
            shutil.copyfile(PUBLISHED / other, listed.parent / file)
        listed.unlink()


def built(kind: list[str], settings: dict):
    """A component by library and class, from settings."""
    library, cls = kind
    if library == "diffusers":
        return getattr(diffusers, cls).from_config(settings)
    made = getattr(transformers, cls)
    return made._from_config(made.config_class(**settings))


def _changed(settings: dict, changes: dict) -> dict:
    return settings | {
        key: _changed(settings.get(key, {}), value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
