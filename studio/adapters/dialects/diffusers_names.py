"""diffusers: unet.<layer> or transformer.<layer>, text_encoder.<layer> (SimpleTuner, ai-toolkit for FLUX.1, its scripts)."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.place import Place, with_clip
from studio.catalog.family import FamilyCard


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """A component and a layer's name; CLIP's with and without `text_model.`."""
    for layer in where.ours:
        for name in with_clip(component, layer):
            yield Stem(f"{component}.{name}", (layer,))


DIFFUSERS = Dialect("diffusers", spells)
