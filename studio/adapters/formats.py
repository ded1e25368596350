"""LoRA files as other tools name them: diffusers, kohya (A1111, Forge, ComfyUI), Comfy.

`Factors` is the neutral form: for each component (unet, transformer, text_encoder ...) and layer, the two factors.
The scale alpha / rank is folded into the up factor where a format has no place for alpha that all its readers look
at: diffusers reads it from the file's metadata, ComfyUI does not.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from studio.adapters.dialects.place import clip_name, comfy_stem, kohya_stem, place
from studio.adapters.targets import root
from studio.catalog.family import FamilyCard
from studio.errors import StudioError


@dataclass(frozen=True)
class LowRank:
    """One layer's update: alpha / rank * up @ down, and DoRA's magnitudes if it has them."""

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """Number of directions."""
        return self.down.shape[0]

    def folded(self) -> "LowRank":
        """The same update with alpha = rank."""
        return replace(self, up=self.up * (self.alpha / self.rank), alpha=float(self.rank))


Factors = dict[str, dict[str, LowRank]]
Stem = Callable[[FamilyCard, str, str], str]


def factors(modules: Mapping[str, nn.Module], name: str) -> Factors:
    """The LoRA of that name on each module, at strength 1, in CPU memory.

    Raises:
        StudioError: The adapter is of another kind.
    """
    found: Factors = {}
    for key, module in modules.items():
        layers = {path: layer for path, layer in module.named_modules() if isinstance(layer, LoraLayer)}
        chosen = {path: layer for path, layer in layers.items() if name in layer.lora_A}
        if chosen:
            found[key] = {
                path.replace(".base_layer", ""): _factors(layer, name) for path, layer in chosen.items()
            }
    if not found:
        raise StudioError(
            f"Adapter {name!r} is not a LoRA, so it has no LoRA file; export peft or merged instead."
        )
    return found


def to_diffusers(parts: Factors) -> dict[str, Tensor]:
    """Keys that `load_lora_weights` reads: unet.<layer>.lora_A.weight; alpha = rank."""
    found: dict[str, Tensor] = {}
    for component, layers in parts.items():
        for layer, low in layers.items():
            clip = component.startswith("text_encoder") and ".self_attn." in layer
            stem = f"{component}.{clip_name(layer) if clip else layer}"
            found[f"{stem}.lora_A.weight"] = low.down
            found[f"{stem}.lora_B.weight"] = low.folded().up
            if low.magnitude is not None:
                ending = (
                    ".weight" if component.startswith("text_encoder") else ""
                )  # as each library's reader wants it
                found[f"{stem}.lora_magnitude_vector{ending}"] = low.magnitude
    return found


def lora_metadata(parts: Factors, modules: Mapping[str, nn.Module], name: str) -> dict[str, str]:
    """Diffusers' own entry of a file's metadata: rank, alpha and layers of each component."""
    told: dict[str, object] = {}
    for component, layers in parts.items():
        ranks = {low.rank for low in layers.values()}
        if len(ranks) > 1:  # one number cannot say it; diffusers then reads the tensors
            return {}
        config = modules[component].peft_config[name]
        values = {"r": min(ranks), "lora_alpha": min(ranks), "target_modules": sorted(config.target_modules)}
        told |= {
            f"{component}.{key}": value for key, value in {**values, "use_dora": config.use_dora}.items()
        }
    return {"lora_adapter_metadata": json.dumps(told, indent=2, sort_keys=True)}


def to_kohya(parts: Factors, card: FamilyCard, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Keys of sd-scripts: lora_unet_<layer>.lora_down.weight, .lora_up.weight, .alpha; text encoders lora_te...

    SDXL's U-Net takes the names of the original checkpoint (input_blocks ...), transformers their original fused
    layers (double_blocks_0_img_attn_qkv ...): that is what A1111, Forge and ComfyUI look for.

    Raises:
        StudioError: DoRA, or a layer that has no name there.
    """
    return _to_native(parts, card, modules, kohya_stem)


def to_comfy(parts: Factors, card: FamilyCard, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """ComfyUI's own keys: diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight ...

    Raises:
        StudioError: A family that it has none for, DoRA, or a layer that has no name there.
    """
    require_named(card, ("comfy",))
    return _to_native(parts, card, modules, comfy_stem)


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


def from_native(tensors: Mapping[str, Tensor], card: FamilyCard, modules: Mapping[str, nn.Module]) -> Factors:
    """Read kohya or Comfy keys, for a model of any width (diffusers reads FLUX at full width only, SD3 not at all).

    Raises:
        StudioError: A key that belongs to no layer of the model.
    """
    found: Factors = {}
    rest = set(tensors)
    for stem, (component, layers) in _stems(card, modules).items():
        if f"{stem}.lora_down.weight" not in tensors:
            continue
        down, up = tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"]
        alpha = float(tensors.get(f"{stem}.alpha", torch.tensor(len(down))))
        found.setdefault(component, {}).update(_split(LowRank(down, up, alpha), layers, modules[component]))
        rest -= {f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"}
    if rest:
        raise StudioError(
            f"{len(rest)} tensors of the LoRA file belong to no layer of the {card.name} model, first {min(rest)!r}; "
            "it was made for another model family or holds more than a LoRA."
        )
    return found


def _factors(layer: LoraLayer, name: str) -> LowRank:
    down, up = layer.lora_A[name].weight.detach().cpu(), layer.lora_B[name].weight.detach().cpu()
    rank = int(layer.r[name])
    magnitudes = layer.lora_magnitude_vector
    magnitude = magnitudes[name].weight.detach().cpu() if name in magnitudes else None
    scale = layer.lora_alpha[name] / (rank**0.5 if layer.use_rslora[name] else rank)
    return LowRank(down, up, float(scale * rank), magnitude)


def _to_native(
    parts: Factors, card: FamilyCard, modules: Mapping[str, nn.Module], stem: Stem
) -> dict[str, Tensor]:
    """Tensors under a tool's own layer names, fused where its model has one layer for several of ours."""
    found: dict[str, Tensor] = {}
    for component, layers in parts.items():
        if any(low.magnitude is not None for low in layers.values()):
            raise StudioError(
                "diffusers drops DoRA's magnitudes from kohya and comfy files; export diffusers or peft."
            )
        places = {place(card, component, layer, modules[component]) for layer in layers}
        for where in sorted(places, key=lambda one: one.native):
            low = _fuse([layers.get(layer) for layer in where.ours], where.ours, modules[component])
            key = stem(card, component, where.native)
            found[f"{key}.lora_down.weight"], found[f"{key}.lora_up.weight"] = low.down, low.up
            found[f"{key}.alpha"] = torch.tensor(low.alpha)
    return found


def _fuse(pieces: list[LowRank | None], layers: tuple[str, ...], module: nn.Module) -> LowRank:
    """One update for a layer that stacks the outputs of several; block-diagonal, zero where there is no piece."""
    there = [piece for piece in pieces if piece is not None]
    if len(pieces) == 1:
        return there[0]
    rank = max(piece.rank for piece in there)
    widths = [_width(module, layer) for layer in layers]
    down = there[0].down.new_zeros(rank * len(pieces), there[0].down.shape[1])
    up = there[0].up.new_zeros(sum(widths), rank * len(pieces))
    for i, piece in enumerate(pieces):
        if piece is not None:
            rows, columns = sum(widths[:i]), i * rank
            down[columns : columns + piece.rank] = piece.down
            scale = piece.alpha / piece.rank
            up[rows : rows + widths[i], columns : columns + piece.rank] = piece.up * (
                scale / _scale(there[0])
            )
    return LowRank(down, up, _scale(there[0]) * rank * len(pieces))


def _split(low: LowRank, layers: tuple[str, ...], module: nn.Module) -> dict[str, LowRank]:
    """The pieces of a fused update; those that are zero are left out."""
    if len(layers) == 1:
        return {layers[0]: low}
    rank, widths = low.rank // len(layers), [_width(module, layer) for layer in layers]
    ups = dict(zip(layers, low.up.split(widths), strict=True))
    found = {layer: LowRank(low.down, up, low.alpha) for layer, up in ups.items()}
    if low.rank % len(layers) == 0:
        columns = {layer: slice(i * rank, (i + 1) * rank) for i, layer in enumerate(layers)}
        inside = {layer: ups[layer][:, columns[layer]] for layer in layers}
        if all(torch.count_nonzero(ups[layer]) == torch.count_nonzero(inside[layer]) for layer in layers):
            alpha = low.alpha / len(layers)
            found = {layer: LowRank(low.down[columns[layer]], inside[layer], alpha) for layer in layers}
    return {layer: piece for layer, piece in found.items() if piece.up.any() or piece.down.any()}


def _scale(low: LowRank) -> float:
    return low.alpha / low.rank


def _width(module: nn.Module, layer: str) -> int:
    """Outputs of a linear layer."""
    return int(root(module.get_submodule(layer)).weight.shape[0])


def _stems(card: FamilyCard, modules: Mapping[str, nn.Module]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every start of keys, kohya's and Comfy's, and the component and layers it stands for."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for component, module in modules.items():
        for layer, one in module.named_modules():
            if (
                not isinstance(root(one), (nn.Linear, nn.Conv2d))
                or ".base_layer" in layer
                or ".lora_" in layer
            ):
                continue
            try:
                where = place(card, component, layer, module)
            except StudioError:  # a layer that those files have no name for
                continue
            for stem in (kohya_stem, comfy_stem):
                found[stem(card, component, where.native)] = (component, where.ours)
    return found
