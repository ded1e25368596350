"""OneTrainer: lora_transformer_<diffusers' name with _>, lora_te2_ for FLUX.1's T5."""

from collections.abc import Iterator

from studio.adapters.dialects.dialect import Dialect, Stem
from studio.adapters.dialects.kohya import flat
from studio.adapters.dialects.place import Place, with_clip
from studio.catalog.family import FamilyCard


def spells(card: FamilyCard, component: str, where: Place) -> Iterator[Stem]:
    """Diffusers' names; its text encoders are counted from 1."""
    for layer in where.ours:
        if not component.startswith("text_encoder"):
            yield Stem(f"lora_transformer_{flat(layer)}", (layer,))
            continue
        number = component.removeprefix("text_encoder").removeprefix("_") or "1"
        for name in with_clip(component, layer):
            yield Stem(f"lora_te{number}_{flat(name)}", (layer,))


ONETRAINER = Dialect("OneTrainer", spells)
