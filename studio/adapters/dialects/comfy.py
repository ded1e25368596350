"""ComfyUI, ai-toolkit and diffusion-pipe: diffusion_model.<original name>; the original names alone (BFL's own)."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect
from studio.adapters.dialects.place import Place, comfy_stem
from studio.catalog.family import FamilyCard


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[tuple[str, tuple[str, ...]]]:
    """By the original name, and by diffusers' behind the same start."""
    if where.native:
        yield comfy_stem(card, component, where.native), where.ours
        if not component.startswith("text_encoder"):
            yield f"model.diffusion_model.{where.native}", where.ours
            yield where.native, where.ours
    if component.startswith("text_encoder"):
        if where.ours[0].startswith("encoder.block."):
            yield f"text_encoders.t5xxl.transformer.{where.ours[0]}", where.ours
    else:
        for layer in where.ours:
            yield f"diffusion_model.{layer}", (layer,)


COMFY = Dialect("ComfyUI", spells)
