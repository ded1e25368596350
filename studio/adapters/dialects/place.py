"""Where a layer of ours is in the original checkpoint, and what LoRA files of other tools call it.

diffusers renamed the layers of the original checkpoints and split their fused attention; sd-scripts, musubi-tuner, A1111,
Forge and ComfyUI keep the original names (for SD 1.x and 2.x, diffusers' names are the common ones). Which layer is which
is a fact of the family (`studio.catalog.family.Names`).
"""

from dataclasses import dataclass

from torch import nn

from studio.catalog.family import FamilyCard
from studio.errors import StudioError
from studio.models.checkpoints.sgm import sgm_name


@dataclass(frozen=True)
class Place:
    """A layer of the original model: its name there, and the layers of ours that it is made of, in order."""

    native: str
    ours: tuple[str, ...]
    swapped: bool = False
    """The halves of its rows stand the other way round there."""


def place(card: FamilyCard, component: str, layer: str, module: nn.Module) -> Place:
    """Where a layer is in the original model.

    Raises:
        StudioError: The layer has no place there.
    """
    if component.startswith("text_encoder"):
        _require_named(card, component)
        return Place(file_name(layer), (layer,))
    match card.names.scheme:
        case "sgm":
            return Place(sgm_name(layer, module.config), (layer,))
        case "blocks":
            return _in_blocks(card, layer, module)
        case "same":
            return Place(layer, (layer,))


def kohya_stem(card: FamilyCard, component: str, native: str) -> str:
    """Start of the keys of a layer in a file of sd-scripts or musubi-tuner."""
    text = card.names.text.get(component)
    return (text[0] if text else "lora_unet_") + native.replace(".", "_")


def comfy_stem(card: FamilyCard, component: str, native: str) -> str:
    """Start of the keys of a layer in ComfyUI's own naming."""
    text = card.names.text.get(component)
    return (text[1] if text else "diffusion_model.") + native


def clip_name(layer: str) -> str:
    """Name of a CLIP layer with `text_model.`, which files have and newer transformers left out of CLIPTextModel."""
    return layer if layer.startswith(("text_model.", "text_projection")) else f"text_model.{layer}"


def file_name(layer: str) -> str:
    """Name of a text encoder's layer in files: CLIP's with `text_model.`, others' as they are."""
    return (
        clip_name(layer)
        if layer.startswith(("encoder.layers.", "embeddings.", "final_layer_norm"))
        else layer
    )


def with_clip(component: str, layer: str) -> tuple[str, ...]:
    """A layer's name as files of a component spell it: of text encoders with and without `text_model.`."""
    return (file_name(layer), layer) if component.startswith("text_encoder") else (layer,)


def _in_blocks(card: FamilyCard, layer: str, module: nn.Module) -> Place:
    swapped = _shift_first(layer, module)
    if layer in card.names.top:
        return Place(card.names.top[layer], (layer,), swapped)
    for blocks, (native, table) in card.names.blocks.items():
        index, _, rest = layer.removeprefix(f"{blocks}.").partition(".")
        for theirs, ours in table.items() if layer.startswith(f"{blocks}.") else ():
            if rest in ours:
                return Place(
                    f"{native}.{index}.{theirs}", tuple(f"{blocks}.{index}.{one}" for one in ours), swapped
                )
    raise StudioError(
        f"Layer {layer} of {card.name} has no name in kohya or comfy files; export diffusers or peft instead."
    )


def _shift_first(layer: str, module: nn.Module) -> bool:
    """Whether a layer gives scale and shift to diffusers' class, and shift and scale in the original."""
    return type(module.get_submodule(layer.rpartition(".")[0])).__name__ == "AdaLayerNormContinuous"


def _require_named(card: FamilyCard, component: str) -> None:
    if component not in card.names.text:
        raise StudioError(
            f"kohya and comfy files do not hold {component} of {card.name}; export peft instead."
        )
