"""What a preset is chosen by: what a model is, and what of the method's settings is chosen. No torch."""

import fnmatch
from dataclasses import dataclass
from typing import Literal

Process = Literal["", "discrete", "flow"]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What is known of a model before it is loaded, and of the run that it is for.

    Attributes:
        name: As given, such as sdxl or a folder; of a run, the model that it started from.
        told: What it is, for people: "FLUX.1 dev is an 11.9B flow-matching transformer"; empty if nothing is known.
        small: Whether it is a small model of this project, embedded or tiny.
        fresh: Whether its weights start at random (`new:`).
        family: Name of the family's card; empty if it has none.
        process: How it was trained to draw; empty if that is not known.
        network: Of a classifier, the kind of network: vit, convnet; empty if its name does not tell.
        distilled: Whether it is a few-step model.
        billions: Weights of its denoiser in 1e9, where that number is known; else 0.
        chosen: The kind of each choice among the method's settings, such as lora, and what that comes to: adapter, whole.
    """

    name: str = ""
    told: str = ""
    small: bool = False
    fresh: bool = False
    family: str = ""
    process: Process = ""
    network: str = ""
    distilled: bool = False
    billions: float = 0.0
    chosen: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Suits:
    """For which models and choices a preset is taken by itself: all that is said here must hold."""

    small: bool | None = None
    """Whether it is for the small models of this project."""
    fresh: bool | None = None
    """Whether it is for random weights."""
    families: tuple[str, ...] = ()
    """Any of these families; none: of all."""
    process: Process = ""
    """discrete or flow."""
    networks: tuple[str, ...] = ()
    """Any of these kinds of classifiers."""
    distilled: bool | None = None
    """Whether it is for few-step models."""
    billions: float = 0.0
    """At least so many weights, in 1e9."""
    chosen: tuple[str, ...] = ()
    """Any of these is chosen: the kind of a setting (lora, coop), or adapter or whole."""
    names: tuple[str, ...] = ()
    """Patterns of names, for models of your own that no card describes."""

    def fits(self, traits: Traits) -> bool:
        """Whether a run's model and choices are meant."""
        return (
            self.small in (None, traits.small)
            and self.fresh in (None, traits.fresh)
            and self.distilled in (None, traits.distilled)
            and self.process in ("", traits.process)
            and traits.billions >= self.billions
            and (not self.families or traits.family in self.families)
            and (not self.networks or traits.network in self.networks)
            and (not self.chosen or not traits.chosen.isdisjoint(self.chosen))
            and (not self.names or any(fnmatch.fnmatch(traits.name, pattern) for pattern in self.names))
        )
