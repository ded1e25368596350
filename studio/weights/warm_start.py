"""Training that goes on from an adapter trained before, here or elsewhere: `--start`."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from studio.adapters.build import NAME, attach, load_tensors
from studio.adapters.config import Adapter, Full, Lora
from studio.adapters.files import PREFIX, read
from studio.adapters.layer import adapter_on
from studio.adapters.loading import read_adapter
from studio.adapters.orthogonal_files import take_up
from studio.adapters.updates import LowRank, Update, Updates, kinds
from studio.errors import StudioError
from studio.models.base import Family
from studio.records import places, texts
from studio.weights import artifacts

log = logging.getLogger(__name__)
SHAPING = ("peft_type", "r", "alpha", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
"""PEFT's settings by which the same tensors mean another update."""


def attach_from(
    start: str, adapter: Adapter, family: Family, modules: Mapping[str, nn.Module], name: str = NAME
) -> dict[str, frozenset[str]]:
    """Put an adapter on models (see `attach`) and fill it with weights trained before.

    Args:
        start: A run or its name, a LoRA file (diffusers, kohya or Comfy keys), or a PEFT folder; empty starts at the
            base model.
        adapter: The settings; rank and layers are those of the weights.
        family: The model, with nothing on it.
        modules: The parts of it that train, by component.
        name: Name of the adapter.

    Returns:
        Names of the parameters that train, for each module.

    Raises:
        StudioError: Nothing is there, or it does not fit the settings: the sentence says which to choose.
    """
    if not start:
        return attach(adapter, modules, name)
    found = artifacts.find(Path(places.artifact(start, field="start")))
    if isinstance(adapter, Full) or (found / "model_index.json").is_file():
        raise _refusal(
            f"{found} cannot be gone on from: --start is for adapters; give a whole model as --model."
        )
    texts.warn_of_other(found, family.text)
    given = _read(found, adapter, family) if found.is_file() else None
    attached = attach(adapter, modules, name)
    folders = {} if given is not None else artifacts.peft_folders(found, family)
    for component in (given or folders).keys() - modules.keys():
        raise _refusal(
            f"{found} holds weights of the {component}, which these settings do not train; "
            "set --text-encoder, or start from other weights."
        )
    for component, layers in (given or {}).items():
        _take_lora(found, layers, modules[component], name)
    for component, folder in folders.items():
        _take_folder(folder, modules[component], name)
    log.info("training starts from %s", found)
    return attached


def _read(path: Path, adapter: Adapter, family: Family) -> Updates:
    """The updates of a file."""
    if not isinstance(adapter, Lora):
        raise _refusal(f"{path} is a LoRA, and these settings train another adapter; set --adapter lora.")
    found = read_adapter(path, family.card, family.modules())
    log.info("%s: %s", path, found.told(family.card.title))
    return found.updates


def _take_lora(path: Path, given: Mapping[str, Update], module: nn.Module, name: str) -> None:
    """Fill a LoRA's layers; those that the file has not stay at the base model."""
    own = {
        key.replace(".base_layer", ""): layer
        for key, layer in module.named_modules()
        if isinstance(layer, LoraLayer) and name in layer.lora_A
    }
    if extra := sorted(given.keys() - own.keys()):
        raise _refusal(
            f"{path} adapts {len(extra)} layers that these settings do not train, first {extra[0]}; choose them with "
            "--adapter.layers or --adapter.only."
        )
    for key, update in given.items():
        low = update.additive
        if (
            not isinstance(low, LowRank)
            or low.mid is not None
            or update.bias is not None
            or update.by_columns
        ):
            kind = kinds({"": {key: update}})[0]
            raise _refusal(f"{path} holds another adapter than LoRA and DoRA in {key} ({kind}), from which none can go on; merge it "
                           "into the base model (studio weights merge) and train on that.")  # fmt: skip
        _fill(path, own[key], low, update.magnitude, name)


def _fill(path: Path, layer: LoraLayer, low: LowRank, magnitude: Tensor | None, name: str) -> None:
    rank, dora = layer.r[name], name in layer.lora_magnitude_vector
    if rank != low.rank:
        raise _refusal(
            f"{path} has rank {low.rank} and these settings {rank}; set --adapter.rank {low.rank}."
        )
    if dora != (magnitude is not None):
        raise _refusal(f"{path} is {'a plain LoRA' if dora else 'a DoRA'}; set --adapter.{'no-' * dora}dora.")
    scale = low.scale / layer.scaling[name]
    _fill_one(layer.lora_A[name], low.down)
    _fill_one(layer.lora_B[name], low.up * scale)
    if magnitude is not None:
        _fill_one(layer.lora_magnitude_vector[name], magnitude)


def _fill_one(to: nn.Module, value: Tensor) -> None:
    to.load_state_dict({"weight": value.reshape(to.state_dict()["weight"].shape)})


def _take_folder(folder: Path, module: nn.Module, name: str) -> None:
    """Fill an adapter from a PEFT folder of the same settings."""
    if adapter_on(module, name) is not None:
        take_up(folder, module, name)
        return
    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    own = vars(module)["peft_config"][name].to_dict()
    for key in SHAPING:
        if saved.get(key) != own.get(key):
            raise _refusal(
                f"{folder} was made with {key} {saved.get(key)}, and these settings have {own.get(key)}; use the "
                "adapter and the settings it was made with."
            )
    values, _ = read(folder / "adapter_model.safetensors")
    load_tensors(module, {key.removeprefix(PREFIX): value for key, value in values.items()}, name)


def _refusal(sentence: str) -> StudioError:
    return StudioError(sentence, field="start")
