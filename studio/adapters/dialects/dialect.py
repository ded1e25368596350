"""What a dialect is: how one tool, or several, spell the layers of a model in the keys of an adapter's file."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from studio.adapters.dialects.place import Place, place
from studio.adapters.targets import root
from studio.catalog.family import FamilyCard
from studio.errors import StudioError


@dataclass(frozen=True)
class Spot:
    """A component, and the layers of it that a start of keys stands for, in the order of their rows there."""

    component: str
    layers: tuple[str, ...]
    swapped: bool = False
    """The halves of its rows stand the other way round there."""
    dialect: str = ""


class Stem(NamedTuple):
    """A start of keys, the layers of ours that it stands for, and whether the halves of their rows are turned there."""

    start: str
    layers: tuple[str, ...]
    swapped: bool = False


@dataclass(frozen=True)
class Dialect:
    """One spelling.

    Attributes:
        name: What the dialect is called in a sentence: kohya, OneTrainer.
        spells: Starts of keys of one place of a component.
    """

    name: str
    spells: Callable[[FamilyCard, str, Place], Iterator[Stem]]


def places(card: FamilyCard, component: str, module: nn.Module) -> list[Place]:
    """Every layer with weights of a component, by its place in the original model; alone where it has none there."""
    found: dict[tuple[str, ...], Place] = {}
    for layer, one in module.named_modules():
        if not layer or inside(layer) or not _has_weight(root(one)):
            continue
        try:
            where = place(card, component, layer, module)
        except StudioError:  # a layer that those files have no name for
            where = Place("", (layer,))
        found[where.ours] = where
    return list(found.values())


def _has_weight(layer: nn.Module) -> bool:
    """Whether an adapter can sit on a layer; a quantized one makes its weight when it is read."""
    return isinstance(layer, nn.Linear) or "weight" in dict(layer.named_parameters(recurse=False))


def inside(layer: str) -> bool:
    """Whether a module is a part of an adapter."""
    return any(part in layer for part in (".base_layer", ".lora_", ".hada_", ".lokr_", ".patch"))


def table(
    card: FamilyCard, modules: Mapping[str, nn.Module], dialects: tuple[Dialect, ...]
) -> dict[str, Spot]:
    """Every start of keys in every dialect, and what it stands for; of two, the first dialect's holds."""
    found: dict[str, Spot] = {}
    order = sorted(modules, key=lambda name: name.startswith("text_encoder"))  # a bare name is the denoiser's
    everywhere = [
        (component, where) for component in order for where in places(card, component, modules[component])
    ]
    for (component, where), dialect in itertools.product(everywhere, dialects):
        for stem in dialect.spells(card, component, where):
            found.setdefault(stem.start, Spot(component, stem.layers, stem.swapped, dialect.name))
    return found
