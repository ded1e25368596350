"""PEFT: base_model.model.<layer>, or the layer's name alone; a component in front where several were saved together."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.place import Place, with_clip
from studio.catalog.family import FamilyCard

START = "base_model.model."


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """The names of the model that was wrapped."""
    for layer in where.ours:
        for name in with_clip(component, layer):
            yield Stem(f"{START}{name}", (layer,))
            yield Stem(f"{component}.{START}{name}", (layer,))
            yield Stem(name, (layer,))


PEFT = Dialect("PEFT", spells)
