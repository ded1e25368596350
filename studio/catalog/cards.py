"""The card of a method: what it is, where its parts are, and the presets that suit some models. No torch."""

import importlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studio.catalog import parts
from studio.catalog.suits import Suits, Traits
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.catalog.run import Run
    from studio.contracts.sampling import Edit
    from studio.contracts.trainer import Trainer
    from studio.models.base import Family
    from studio.records.trained import Trained


@dataclass(frozen=True)
class Preset:
    """Values that suit some models: dotted names of settings (`optim.lr`, `method.adapter.rank`) to values."""

    values: Mapping[str, Any]
    suits: Suits | None = None
    """For which models and choices it is taken by itself; None: only by its name. The first that fits is taken."""
    note: str = ""
    """Where the values come from: a script with its file, a table of a paper, or a run of ours."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a method is and where its parts are."""

    name: str
    title: str
    summary: str
    paper: str
    config: type
    trainer: str = ""
    """`package.module:Class` of the trainer, imported only when a run starts; empty for an edit. `.module:Class` is beside
    the settings, `:Class` in the same file."""
    edit: str = ""
    artifact: str = ""
    """`package.module:Class` of the edit that a trained folder of this method is (see `studio.records.trained`), for methods
    whose weights no other program reads."""
    needs_references: bool = False
    """Whether sampling with a trained folder needs pictures of the subject."""
    offers: tuple[str, ...] = ()
    """What a finished run is good for; decides what the command proposes to do next."""
    presets: Mapping[str, Preset] = field(default_factory=dict[str, Preset])
    check: Callable[[Any], None] = lambda settings: None
    """Refuses settings that cannot work, before torch is imported."""
    follow: "Callable[[Run, Set[str]], Run]" = parts.follow
    """Lets settings follow those that a person gave, by dotted name, where they depend on each other; refuses given ones that do
    not go together."""
    rows: Callable[[Any], int] = lambda settings: 1
    """Rows that an example of `loop.batch_size` gives a batch, by which it can be cut into parts."""
    brief: "Callable[[Run], Run]" = lambda run: run
    """The run with as little to do as shows all the memory it needs: one class picture, one batch of a rollout."""
    upgrade: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    """Settings of a run that an earlier version wrote, in today's terms: the run resumes as it would have gone on."""
    hidden: bool = False
    """Left out of listings: used by other commands (pretraining of the embedded models)."""

    def load_trainer(self) -> "type[Trainer]":
        """The trainer class. Imports torch."""
        return self._load(self.trainer)

    def load_edit(self) -> "Callable[[Any, Family], Edit]":
        """The edit class, made as `Class(settings, family)`. Imports torch."""
        return self._load(self.edit)

    def load_artifact(self) -> "Callable[[Trained, Family, float], Edit]":
        """The class of a trained folder, made as `Class(trained, family, strength)`. Imports torch."""
        return self._load(self.artifact)

    def _load(self, place: str) -> Any:
        """What `package.module:Class` names; a module that begins with a dot, or is left out, stands beside the settings."""
        module, _, name = place.partition(":")
        beside, _, _ = self.config.__module__.rpartition(".")
        found_in = importlib.import_module(module or self.config.__module__, beside or None)
        try:
            return getattr(found_in, name)
        except AttributeError:
            raise StudioError(
                f"The card of {self.name} names {place!r}, and {found_in.__file__} has no {name!r}.",
                field="method",
            ) from None

    def preset_for(self, traits: Traits) -> str:
        """Name of the first preset that suits a run's model and choices; empty if none does."""
        fitting = (n for n, p in self.presets.items() if p.suits is not None and p.suits.fits(traits))
        return next(fitting, "")
