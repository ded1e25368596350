"""sd-scripts, musubi-tuner and LyCORIS beside them: lora_unet_<original name with _>, lora_te1_<CLIP layer>."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.place import Place, kohya_stem
from studio.catalog.family import FamilyCard


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """By the original name; diffusers' name of a U-Net's layer is read too (sd-scripts' first SDXL files)."""
    if where.native:
        yield Stem(kohya_stem(card, component, where.native), where.ours, where.swapped)
        if component == "text_encoder":
            yield Stem(f"lora_te1_{flat(where.native)}", where.ours, where.swapped)
    if component.startswith("text_encoder"):
        if where.ours[0].startswith("encoder.block."):  # T5's
            yield Stem(f"lora_te3_{flat(where.ours[0])}", where.ours, where.swapped)
    else:
        for layer in where.ours:
            yield Stem(f"lora_unet_{flat(layer)}", (layer,))


def flat(name: str) -> str:
    """A name without dots."""
    return name.replace(".", "_")


KOHYA = Dialect("kohya", spells)
