"""LyCORIS around a model of diffusers, as SimpleTuner writes it: lycoris_<diffusers' name with _>."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.kohya import flat
from studio.adapters.dialects.place import Place, with_clip
from studio.catalog.family import FamilyCard


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """Diffusers' names."""
    for layer in where.ours:
        for name in with_clip(component, layer):
            yield Stem(f"lycoris_{flat(name)}", (layer,))


LYCORIS = Dialect("LyCORIS", spells)
