"""Files of adapters as other tools name them: diffusers, kohya (A1111, Forge, ComfyUI), Comfy.

`Updates` is the neutral form: for each component (unet, transformer, text_encoder ...) and layer, its update.
The scale alpha / rank is folded into the up factor where a format has no place for alpha that all its readers look
at: diffusers reads it from the file's metadata, ComfyUI does not.
"""

import json
from collections.abc import Callable, Collection, Mapping

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from studio.adapters.dialects.place import comfy_stem, file_name, kohya_stem, place
from studio.adapters.fusing import fused, require_together
from studio.adapters.on_layers import update_on
from studio.adapters.targets import root
from studio.adapters.updates import Difference, LowRank, Rows, Update, Updates
from studio.catalog.family import FamilyCard
from studio.errors import StudioError

Stem = Callable[[FamilyCard, str, str], str]
SUFFIXES = {
    "down": ".lora_down.weight",
    "up": ".lora_up.weight",
    "mid": ".lora_mid.weight",
    "magnitude": ".dora_scale",
    "bias": ".diff_b",
}
"""Ends of keys as sd-scripts, LyCORIS and ComfyUI have them, where they are not the role's name."""


def updates(modules: Mapping[str, nn.Module], name: str) -> Updates:
    """The LoRA, DoRA, LoHa or LoKr of that name on each module, at strength 1, in CPU memory.

    Raises:
        StudioError: The adapter is of another kind.
    """
    found: Updates = {}
    for key, module in modules.items():
        for path, layer in module.named_modules():
            if isinstance(layer, BaseTunerLayer) and (update := update_on(layer, name)) is not None:
                found.setdefault(key, {})[path.replace(".base_layer", "")] = update
    if not found:
        raise StudioError(
            f"Adapter {name!r} is not a LoRA, DoRA, LoHa or LoKr, so it has no such file; export peft or merged instead."
        )
    return found


def to_diffusers(parts: Updates) -> dict[str, Tensor]:
    """Keys that `load_lora_weights` reads: unet.<layer>.lora_A.weight; alpha = rank.

    Raises:
        StudioError: Something else than LoRA and DoRA.
    """
    found: dict[str, Tensor] = {}
    for component, layers in parts.items():
        text = component.startswith("text_encoder")
        for layer, update in layers.items():
            low = _low_rank(update, layer)
            stem = f"{component}.{file_name(layer) if text else layer}"
            found[f"{stem}.lora_A.weight"] = low.down
            found[f"{stem}.lora_B.weight"] = low.folded().up
            if update.magnitude is not None:  # as each library's reader wants it
                found[f"{stem}.lora_magnitude_vector{'.weight' if text else ''}"] = update.magnitude
    return found


def _low_rank(update: Update, layer: str) -> LowRank:
    low = update.additive
    if not isinstance(low, LowRank) or low.mid is not None or update.bias is not None:
        raise StudioError(
            f"diffusers' files hold LoRA and DoRA, and {layer} has another adapter; export kohya, comfy or peft instead.",
            field="export.formats",
        )
    return low


def require_held(
    parts: Updates, card: FamilyCard, modules: Mapping[str, nn.Module], wanted: Collection[str]
) -> None:
    """Refuse formats that cannot hold updates, by their kinds and the names of their layers: before anything is trained.

    Raises:
        StudioError: One of them cannot.
    """
    require_named(card, wanted)
    for component, layers in parts.items():
        if "diffusers" in wanted:
            for layer, update in layers.items():
                _low_rank(update, layer)
        if {"kohya", "comfy"} & set(wanted):
            for where in {place(card, component, layer, modules[component]) for layer in layers}:
                require_together([layers.get(layer) for layer in where.ours], where)


def lora_metadata(parts: Updates, modules: Mapping[str, nn.Module], name: str) -> dict[str, str]:
    """Diffusers' own entry of a file's metadata: rank, alpha and layers of each component."""
    told: dict[str, object] = {}
    for component, layers in parts.items():
        ranks = {one.additive.rank for one in layers.values() if one.additive}
        if len(ranks) > 1:  # one number cannot say it; diffusers then reads the tensors
            return {}
        config = modules[component].peft_config[name]
        values = {"r": min(ranks), "lora_alpha": min(ranks), "target_modules": sorted(config.target_modules)}
        told |= {
            f"{component}.{key}": value for key, value in {**values, "use_dora": config.use_dora}.items()
        }
    return {"lora_adapter_metadata": json.dumps(told, indent=2, sort_keys=True)}


def to_kohya(parts: Updates, card: FamilyCard, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Keys of sd-scripts and LyCORIS: lora_unet_<layer>.lora_down.weight, .lora_up.weight, .alpha; text encoders lora_te...

    SDXL's U-Net takes the names of the original checkpoint (input_blocks ...), transformers their original fused
    layers (double_blocks_0_img_attn_qkv ...): that is what A1111, Forge and ComfyUI look for.

    Raises:
        StudioError: A layer that has no name there, or whose update cannot be put together with those beside it.
    """
    return _to_native(parts, card, modules, kohya_stem)


def to_comfy(parts: Updates, card: FamilyCard, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """ComfyUI's own keys: diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight ...

    DoRA's magnitudes are those of the base weight's rows, as ComfyUI and Forge divide them (`Update.against_base`).

    Raises:
        StudioError: A family that it has none for, a layer that has no name there, or whose update cannot be put together.
    """
    require_named(card, ("comfy",))
    return _to_native(against_base(parts, modules), card, modules, comfy_stem)


def against_base(parts: Updates, modules: Mapping[str, nn.Module]) -> Updates:
    """The same updates with DoRA's magnitudes for those who divide by the base weight's lengths."""
    return {
        component: {
            layer: one.against_base(root(modules[component].get_submodule(layer)).weight)
            for layer, one in layers.items()
        }
        for component, layers in parts.items()
    }


def require_named(card: FamilyCard, wanted: Collection[str]) -> None:
    """Refuse formats in which a family's layers have no names.

    Raises:
        StudioError: It has none, and what it has.
    """
    there = {"kohya": card.names.kohya, "comfy": card.names.comfy}
    for name in [name for name in wanted if not there.get(name, True)]:
        others = " and ".join(["diffusers", *(other for other, named in there.items() if named)])
        raise StudioError(
            f"No tool reads LoRAs of {card.title} in the {name} format; export {others} instead.",
            field="export.formats",
        )


def _to_native(
    parts: Updates, card: FamilyCard, modules: Mapping[str, nn.Module], stem: Stem
) -> dict[str, Tensor]:
    """Tensors under a tool's own layer names, fused where its model has one layer for several of ours."""
    found: dict[str, Tensor] = {}
    for component, layers in parts.items():
        places = {place(card, component, layer, modules[component]) for layer in layers}
        for where in sorted(places, key=lambda one: one.native):
            update = fused([layers.get(layer) for layer in where.ours], where, modules[component])
            key = stem(card, component, where.native)
            found |= {key + SUFFIXES.get(role, f".{role}"): value for role, value in written(update).items()}
    return found


def written(update: Update) -> dict[str, Tensor]:
    """The tensors of an update by role, as files have them: magnitudes as (n 1 ...)."""
    own = update.additive
    if isinstance(own, Rows):  # of a fused layer that was read, which has factors of its own no more
        own = Difference(own.change(torch.Size(own.sizes)))
    found = own.tensors() if own is not None else {}
    if update.bias is not None:
        found["bias"] = update.bias
    if update.magnitude is not None:
        kernel = isinstance(update.additive, LowRank) and update.additive.down.ndim == 4
        rows = (
            update.magnitude
            if update.by_columns
            else update.magnitude.reshape(-1, *[1] * (3 if kernel else 1))
        )
        found["magnitude"] = rows
    return found
