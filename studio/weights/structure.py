"""The layers of the model that an adapter's file is for, without its weights: from a given model, or told by the file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from studio.adapters.dialects.reading import Reading, read_updates
from studio.adapters.files import read
from studio.adapters.loading import is_adapter
from studio.backend.core import Backend
from studio.catalog import families
from studio.catalog.family import FamilyCard, Part
from studio.catalog.recognize import recognize, usable
from studio.errors import StudioError
from studio.models.build import architecture_of, load
from studio.models.checkpoints.fill import empty
from studio.settings.run import Hardware
from studio.weights.made_for import families_of


@dataclass(frozen=True)
class Structure:
    """A model's parts that adapters sit on, by component; their weights may be absent.

    Attributes:
        card: The family.
        title: What it is called in a sentence.
        modules: Denoiser and the text encoders that are trained.
    """

    card: FamilyCard
    title: str
    modules: Mapping[str, nn.Module]


@dataclass(frozen=True)
class Opened:
    """A file of an adapter: its tensors, its metadata, the model that it is for, and what it holds."""

    path: Path
    values: Mapping[str, Tensor]
    header: Mapping[str, str]
    structure: Structure
    reading: Reading

    @property
    def line(self) -> str:
        """What it is, in one line."""
        return self.reading.told(self.structure.title)


def opened(path: Path, model: str = "") -> Opened:
    """A file of an adapter, read against the layers of its model.

    Args:
        path: The file.
        model: The model: a short name, a folder, a file; empty finds the published one that it fits.

    Raises:
        StudioError: It is none, is damaged, or fits no model that is known.
    """
    values, header = read(path)
    if not is_adapter(values):
        raise StudioError(f"{path} is no adapter's file; `studio models inspect` says what a checkpoint is.")
    refused: StudioError | None = None
    for structure in [of_model(model)] if model else candidates(values, header):
        try:
            found = read_updates(values, header, structure.card, structure.modules)
        except StudioError as error:
            refused = refused or error
            continue
        return Opened(path, values, header, structure, found)
    advice = "" if model else " No published model fits it; name the one it was trained on with --model."
    raise StudioError(f"{path}: {refused}{advice}")


def of_model(model: str, *, weights: bool = False) -> Structure:
    """The parts of a model, without weights unless they are wanted.

    Raises:
        StudioError: The model cannot be told.
    """
    known = usable(model)
    if weights or known.small or known.card is None:
        family = load(model, Backend(Hardware(device="cpu", precision="fp32")))
        return Structure(family.card, family.card.title, family.modules())
    return _empty(known.card, known.card.title, architecture_of(recognize(model)))


def candidates(values: Mapping[str, Tensor], header: Mapping[str, str]) -> Iterator[Structure]:
    """Published models that a file can be for: those of the families that its keys tell first, then all."""
    told = families_of(values, header)
    names = [*told, *(name for name in families.cards() if name not in told)]
    for name in names:
        card, seen = families.cards()[name], list[Part]()
        for variant in card.variants:
            if (part := variant.architecture[card.denoiser]) not in seen:
                seen.append(part)
                yield _empty(
                    card, variant.title if len(card.variants) > 1 else card.title, variant.architecture
                )


def _empty(card: FamilyCard, title: str, architecture: Mapping[str, Part]) -> Structure:
    wanted = {
        key: part for key, part in architecture.items() if key == card.denoiser or key in card.words.trains
    }
    return Structure(card, title, {key: empty(part) for key, part in wanted.items()})
