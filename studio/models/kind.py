"""Which family a pipeline of diffusers is of."""

from diffusers import DiffusionPipeline

from studio.catalog import families
from studio.catalog.family import FamilyCard
from studio.errors import unknown


def card_of(parts: DiffusionPipeline) -> FamilyCard:
    """The card of a pipeline's family, by its class and by what tells it from others of that class.

    Raises:
        StudioError: No family has such pipelines.
    """
    kind = type(parts).__name__
    found = [card for card in families.of_pipeline(kind) if _agrees(parts, card)]
    if not found:
        raise unknown("kind of pipeline", kind, families.pipelines(), field="model")
    return found[0]


def _agrees(parts: DiffusionPipeline, card: FamilyCard) -> bool:
    told = (name.split(".", 1) for name in card.recognize.tells)
    values = (getattr(parts.components[part].config, setting) for part, setting in told)
    return all(value == wanted for value, wanted in zip(values, card.recognize.tells.values(), strict=True))
