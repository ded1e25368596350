"""ComfyUI, ai-toolkit and diffusion-pipe: diffusion_model.<original name>; the original names alone (BFL's own)."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.place import Place, comfy_stem
from studio.catalog.family import FamilyCard


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """By the original name, and by diffusers' behind the same start."""
    if where.native:
        yield Stem(comfy_stem(card, component, where.native), where.ours, where.swapped)
        if not component.startswith("text_encoder"):
            yield Stem(f"model.diffusion_model.{where.native}", where.ours, where.swapped)
            yield Stem(where.native, where.ours, where.swapped)
    if component.startswith("text_encoder"):
        if where.ours[0].startswith("encoder.block."):
            yield Stem(f"text_encoders.t5xxl.transformer.{where.ours[0]}", where.ours, where.swapped)
    else:
        for layer in where.ours:
            yield Stem(f"diffusion_model.{layer}", (layer,))


COMFY = Dialect("ComfyUI", spells)
