"""A published model without its weights, for the simulated device: every shape and type, nothing to read or download.

Networks are built from their settings. Words come from the model's own folder, or from the tokenizer that the project
carries for the family, which counts tokens a little differently from the published one; what is padded is exact.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import DiffusionPipeline
from torch import nn

from studio.backend.precision import kept_exact
from studio.backend.simulated.mode import Machine
from studio.catalog import component_settings
from studio.catalog.family import FamilyCard, Part, Variant
from studio.catalog.family import load as imported
from studio.models.architecture import component
from studio.models.checkpoints.fill import empty
from studio.models.depth import shallow, units
from studio.models.tokenizers import clip_tokenizer


def pretended(
    machine: Machine,
    card: FamilyCard,
    architecture: Mapping[str, Part],
    dtype: torch.dtype,
    variant: Variant | None = None,
    folder: Path | None = None,
) -> DiffusionPipeline:
    """The pipeline of a model, its networks in the machine's memory as if they had been read.

    Args:
        machine: Where.
        card: The model's family.
        architecture: Its components, as published or as a folder has them.
        dtype: Dtype that weights are read in.
        variant: Which published model it is, where that is known.
        folder: Where a model's own folder is, whose tokenizers are read.
    """
    carried: DiffusionPipeline = imported(card.tiny)()
    networks = {key: part for key, part in architecture.items() if key != "scheduler"}
    if machine.units:
        machine.whole = units(networks[card.denoiser])
        networks[card.denoiser] = shallow(networks[card.denoiser], machine.units)
    parts: dict[str, Any] = {key: weightless(machine, part, dtype) for key, part in networks.items()}
    for name, network in parts.items():
        _marked(machine, network, name == card.denoiser)
    parts["scheduler"] = component(architecture["scheduler"])
    parts |= {name: clip_tokenizer(pad_token=pad) for name, pad in card.words.pads.items()}
    parts |= dict(_own_words(folder)) if folder else {}
    absent = {key: None for key in carried.components if key.startswith("text_encoder") and key not in parts}
    told = {key.partition(".")[2]: value for key, value in (variant.tells if variant else {}).items()}
    options = {key: value for key, value in dict(carried.config).items() if not key.startswith("_")}
    own = {key: told.get(key, value) for key, value in options.items() if key not in carried.components}
    return type(carried)(**{**carried.components, **absent, **own, **parts})


def _own_words(folder: Path) -> Iterator[tuple[str, Any]]:
    """The tokenizers of a diffusers folder, by name."""
    listed = component_settings.values(folder / "model_index.json") if folder.is_dir() else {}
    for name, value in listed.items():
        if name.startswith("tokenizer") and isinstance(value, list) and (folder / name).is_dir():
            yield name, getattr(transformers, value[1]).from_pretrained(folder / name, local_files_only=True)


def _marked(machine: Machine, network: nn.Module, denoises: bool) -> None:
    """Have the machine told when a network begins to work; autoencoders are entered by their children."""
    for module in (network,) if denoises else network.children():
        module.register_forward_pre_hook(lambda *_: machine.mark("denoiser" if denoises else "others"))


def weightless(machine: Machine, part: Part, dtype: torch.dtype) -> nn.Module:
    """A network whose weights are not there, each in the dtype that its library reads it in."""
    module = empty(part)
    exact = {name for name, _ in kept_exact(module, dtype)}
    for place, owner in module.named_modules():
        for name, value in owner.named_parameters(recurse=False):
            own = torch.float32 if f"{place}.{name}" in exact else dtype
            setattr(owner, name, nn.Parameter(machine.empty(tuple(value.shape), own)))
    return module
