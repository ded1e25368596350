"""Load what was trained into a model: `--artifact` takes a run, a file or a folder, from here or from elsewhere."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from studio.adapters.build import names
from studio.adapters.files import read, read_peft
from studio.adapters.loading import is_adapter, load_adapter
from studio.adapters.strength import set_strength
from studio.catalog import methods
from studio.contracts.sampling import Edit
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.files import absent
from studio.records import places, trained
from studio.records.trained import Trained
from studio.weights.embeddings import is_embedding, load_embedding
from studio.weights.made_for import families_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """What was loaded.

    Attributes:
        path: The file or folder read.
        kind: What it was.
        name: The adapter's name, for `set_strength`; the new word, for an embedding.
        trigger: What to write in a prompt, if the file tells; of an embedding of several vectors, all its words.
        edit: What it changes while sampling, for a method's own folder; to be given in a request's `edits`.
    """

    path: Path
    kind: Literal["lora", "peft", "embedding", "merged", "method"]
    name: str
    trigger: str = ""
    edit: Edit | None = None


def load(path: str | Path, family: Family, strength: float = 1.0, name: str = "") -> Artifact:
    """Put an artifact on a family's models; call it again to stack another.

    Args:
        path: A run folder, its export folder, a file of an adapter in any dialect (docs/dialects.md), a PEFT folder, a
            textual-inversion file (A1111's .pt too), a diffusers pipeline folder of the same architecture, a method's own folder, or the
            name of an embedded one.
        family: The base model.
        strength: 0 is the base, 1 as trained; a method's own folder says what it means there.
        name: Name for the adapter; empty makes one from the file's name.

    Raises:
        StudioError: Nothing is there, it is damaged, or it was made for another model family.
    """
    if (own := trained.find(path)) is not None:
        return _load_own(own, family, strength)
    found = find(Path(path))
    name = name or _free_name(found, family)
    if found.is_file():
        artifact = _load_file(found, family, name)
    elif (found / "model_index.json").is_file():
        artifact = _load_merged(found, family, name, strength)
    else:
        artifact = _load_peft(found, family, name)
    if artifact.kind in ("lora", "peft"):
        set_strength(family.modules(), name, strength)
    elif artifact.kind == "embedding" and strength != 1.0:
        raise StudioError(
            f"{found} is a text embedding, which has no strength; leave strength at 1.", field="strength"
        )
    return artifact


def _load_own(own: Trained, family: Family, strength: float) -> Artifact:
    """A folder that only its own method can read."""
    card = methods.card(own.method)
    if not card.artifact:
        raise StudioError(f"{own.folder} is of method {card.name!r}, which loads no folder of its own.")
    edit = card.load_artifact()(own, family, strength)
    return Artifact(own.folder, "method", own.folder.name, edit=edit)


def find(path: Path) -> Path:
    """The file or folder to read: in a run folder, the best of what it exported.

    Raises:
        StudioError: Nothing is there, or several files are.
    """
    if not path.exists():
        raise places.absent(path)
    path = _with_settings(path)
    if path.is_file() or _is_peft(path) or (path / "model_index.json").is_file():
        return path
    folder = path / "export" if (path / "config.json").is_file() else path
    for name in ("pytorch_lora_weights.safetensors", "peft", "merged"):
        if (folder / name).exists():
            return folder / name
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    if len(files) > 1:
        raise StudioError(
            f"{folder} holds several files ({', '.join(file.name for file in files)}); name one."
        )
    if folder != path:
        raise StudioError(f"Run {path} has no export yet; write one with `studio export {path}`.")
    raise StudioError(f"{path} holds nothing that can be loaded; give a run, a LoRA file or a PEFT folder.")


def _with_settings(path: Path) -> Path:
    """The folder of a file of PEFT's whose settings lie beside it: alpha stands there."""
    beside = path.name == "adapter_model.safetensors" and (path.parent / "adapter_config.json").is_file()
    return path.parent if beside else path


def _is_peft(folder: Path) -> bool:
    return bool(_peft_folders(folder))


def _peft_folders(folder: Path) -> dict[str, Path]:
    """PEFT folders by component: one each in sub-folders, or the folder itself under an empty name."""
    if (folder / "adapter_config.json").is_file():
        return {"": folder}
    return {file.parent.name: file.parent for file in sorted(folder.glob("*/adapter_config.json"))}


def _free_name(path: Path, family: Family) -> str:
    """A name for the adapter that nothing else has: no dots (PEFT), and no part of a layer's name, such as 0."""
    stem = path.parent.parent.name if path.parent.name == "export" else path.stem
    stem = stem.replace(".", "_") or "artifact"
    modules = family.modules().values()
    taken = {name for module in modules for name in names(module)}
    taken |= {part for module in modules for layer, _ in module.named_modules() for part in layer.split(".")}
    return next(one for one in (stem, *(f"{stem}_{i}" for i in range(2, 1000))) if one not in taken)


def _load_file(path: Path, family: Family, name: str) -> Artifact:
    if (path.parent / "manifest.json").is_file():
        run = path.parents[2]
        raise StudioError(
            f"{path} is a checkpoint, from which training goes on; give what the run exported: {run}."
        )
    values, header = read(path)
    if is_embedding(values):
        words = load_embedding(path, values, family, name)
        return Artifact(path, "embedding", words[0], " ".join(words))
    if not is_adapter(values):
        raise StudioError(
            f"{path} is neither a LoRA nor a text embedding; give a whole checkpoint as --model instead."
        )
    made_for = families_of(values, header)
    if made_for and family.name not in made_for:
        theirs = " or ".join(made_for)
        raise StudioError(
            f"{path} was made for {theirs}, but the model is {family.name}; load it on a {theirs} model."
        )
    found = load_adapter(path, family.card, family.modules(), name)
    log.info("%s: %s", path, found.told(family.card.title))
    words = [w for key, vectors in found.words.items() for w in load_embedding(path, vectors, family, key)]
    _freeze(family, name)
    trigger = header.get("modelspec.trigger_phrase", "") or " ".join(words)
    return Artifact(path, "lora", name, trigger)


def _load_peft(folder: Path, family: Family, name: str) -> Artifact:
    for component, sub in peft_folders(folder, family).items():
        read_peft(sub, family.modules()[component], name)
    _freeze(family, name)
    return Artifact(folder, "peft", name)


def peft_folders(folder: Path, family: Family) -> dict[str, Path]:
    """PEFT folders inside of one, or itself, by the component of the family that each adapts.

    Raises:
        StudioError: One adapts what the family has not.
    """
    modules = family.modules()
    found = {told or _component_of(sub, modules): sub for told, sub in _peft_folders(folder).items()}
    for component in found.keys() - modules.keys():
        raise StudioError(
            f"{folder} adapts {component!r}, which {family.name} has not; it has {', '.join(modules)}. "
            "Load it on the model family it was made for."
        )
    return found


def _component_of(folder: Path, modules: Mapping[str, nn.Module]) -> str:
    """The component whose layers a PEFT folder names."""
    values, _ = read(folder / "adapter_model.safetensors")
    first = min(values).removeprefix("base_model.model.")
    layers = {key: {name for name, _ in module.named_modules()} for key, module in modules.items()}
    fits = [
        key
        for key, known in layers.items()
        if any(first.startswith(f"{name}.") for name in known if "." in name)
    ]
    if not fits:
        raise StudioError(
            f"{folder} was made for another model: no part of this one has a layer for {first!r}."
        )
    return fits[0]


def _freeze(family: Family, name: str) -> None:
    """A loaded adapter is there to sample with: it does not train."""
    for module in family.modules().values():
        for key, value in module.named_parameters():
            if name in key.split("."):
                value.requires_grad_(False)


def _load_merged(folder: Path, family: Family, name: str, strength: float) -> Artifact:
    """Move the family's weights towards those of a pipeline folder: W0 + strength (W - W0)."""
    listed = json.loads((folder / "model_index.json").read_text())
    if listed["_class_name"] != family.pipeline_class.__name__:
        raise StudioError(
            f"{folder} is a {listed['_class_name']}, but the model is {family.name} "
            f"({family.pipeline_class.__name__}); load it on its own family."
        )
    other = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, **absent(folder))
    for component, module in family.modules().items():
        theirs: dict[str, Tensor] = other.components[component].state_dict()
        mine = {key.replace(".base_layer", ""): value for key, value in module.state_dict().items()}
        if any(key not in mine or mine[key].shape != value.shape for key, value in theirs.items()):
            raise StudioError(
                f"The {component} of {folder} has other sizes than that of the base model; use its own base."
            )
        _towards(mine, theirs, strength)
    return Artifact(folder, "merged", name)


@torch.no_grad()
def _towards(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], strength: float) -> None:
    for key, value in theirs.items():
        if value.is_floating_point():
            there = value.to(mine[key].device, mine[key].dtype)
            mine[key].copy_(there if strength == 1.0 else torch.lerp(mine[key], there, strength))
