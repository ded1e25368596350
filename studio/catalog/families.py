"""Where the cards of model families are found: `studio/models/families/<name>/card.py`, each with a `FAMILY`. No torch."""

import functools
import importlib
import pkgutil
from collections.abc import Iterator

from studio.catalog.family import FamilyCard, Layers, Variant


@functools.cache
def cards() -> dict[str, FamilyCard]:
    """All cards by the family's name."""
    package = importlib.import_module("studio.models.families")
    folders = sorted(found.name for found in pkgutil.iter_modules(package.__path__) if found.ispkg)
    found = [importlib.import_module(f"studio.models.families.{name}.card").FAMILY for name in folders]
    return {card.name: card for card in found}


def variants() -> Iterator[tuple[FamilyCard, Variant]]:
    """Every published model, with its family."""
    return ((card, variant) for card in cards().values() for variant in card.variants)


def short_names() -> dict[str, str]:
    """Names that people type, to the repositories they mean."""
    found = {variant.name: variant.hub for _, variant in variants()}
    return found | {
        name: variant.hub for _, variant in variants() for name in variant.also if "/" not in name
    }


def by_name(name: str) -> tuple[FamilyCard, Variant] | None:
    """The published model of a short name or a repository."""
    return next(((card, found) for card, _ in variants() if (found := card.variant(name))), None)


def pipelines() -> list[str]:
    """Classes of pipelines that are built."""
    return sorted({card.pipeline for card in cards().values()})


def of_pipeline(name: str) -> list[FamilyCard]:
    """Families whose models are of a class of pipelines."""
    return [card for card in cards().values() if name in card.recognize.pipelines]


def denoisers() -> dict[str, Layers]:
    """Layers of the families' denoisers, by class."""
    return {variant.architecture[card.denoiser].cls: card.layers for card, variant in variants()}


def layers_of(denoiser: str) -> Layers | None:
    """Layers of a denoiser by its class, where a family has it."""
    return denoisers().get(denoiser)
