"""Drawing with InstantBooth: references in, the prompt names the subject by the placeholder.

Balanced sampling lowers beta, renormalization scales the concept token by alpha (section 3.4). The negative half of
guidance sees neither. Strength multiplies beta; 0 is the base model.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from typing_extensions import override

from studio.adapters.files import read
from studio.contracts.condition import Condition
from studio.contracts.sampling import Request
from studio.errors import StudioError
from studio.models.base import Family
from studio.models.language import tokenizer_of
from studio.models.tiled_tower import tiled
from studio.models.vision_tower import VisionTower, load_tower, squares
from studio.records.trained import CARD, Trained
from studio.same_subject.references import SeeingEdit
from trainers.instantbooth.networks import InstantNetwork, Subject, placed

FILE = "instantbooth.safetensors"


@dataclass(frozen=True)
class Instant:
    """A trained network, and how to sample with it.

    Attributes:
        placeholder: The word for the subject.
        ids: Its tokens.
        alpha, beta: Factor on the concept token, weight of the adapters.
    """

    network: InstantNetwork
    tower: VisionTower
    placeholder: str
    ids: list[int]
    alpha: float
    beta: float


class SubjectEdit(SeeingEdit):
    """Lets every picture show the subject of the request's references."""

    def __init__(self, instant: Instant, family: Family, strength: float = 1.0) -> None:
        super().__init__(family, strength)
        self.instant = instant
        self._subject: Subject

    @override
    def begin(self, request: Request, scheduler: Any) -> None:
        """Look at the references once.

        Raises:
            StudioError: There are none.
        """
        del scheduler
        pictures = squares(request.references, self.instant.tower)
        with torch.no_grad():
            self._subject = self.instant.network(self.instant.tower(pictures), len(pictures))

    @override
    def condition(self, cond: Condition) -> Condition:
        """The concept token in the placeholder's rows.

        Raises:
            StudioError: A prompt lacks the placeholder.
        """
        if self.strength == 0:
            return cond
        instant = self.instant
        concept = self._subject.concept.expand(len(cond), -1)
        found, there = placed(cond, instant.ids, concept, instant.alpha)
        if not bool(there.all()):
            raise StudioError(
                f"A prompt lacks {instant.placeholder!r}, the word for the subject of the references; write it before "
                f"its class, as in 'a photo of a {instant.placeholder} dog'.",
                field="prompt",
            )
        return found

    @override
    def seeing(self, rows: Bool[Tensor, " r"]) -> AbstractContextManager[None]:
        beta = rows.float() * self.instant.beta * self.strength
        patches = self._subject.patches.expand(len(rows), -1, -1)
        return self.instant.network.on(self.family, patches, beta)


def token_ids(family: Family, word: str) -> list[int]:
    """The tokens of a word."""
    return list(tokenizer_of(family.tokenizers["tokenizer"]).encode(word, add_special_tokens=False))


def instantbooth_edit(trained: Trained, family: Family, strength: float) -> SubjectEdit:
    """The edit of a trained folder.

    Raises:
        StudioError: It was made for another model, or is damaged.
    """
    told = trained.settings
    try:
        tower = load_tower(str(told["encoder"]), family.backend, layer=int(told["layer"]))
        tower = tiled(tower, int(told.get("tiles", 1)))
        network = InstantNetwork(family, tower, str(told["blocks"]), positions=bool(told.get("positions")))
        word = str(told["placeholder"])
        numbers = float(told["alpha"]), float(told["beta"])
    except (KeyError, ValueError) as error:
        raise StudioError(
            f"{trained.folder / CARD} is damaged ({type(error).__name__}: {error}); copy or export it again.",
            field="artifact",
        ) from error
    take_up(network, trained, family)
    network = family.backend.place(network).float()
    return SubjectEdit(Instant(network, tower, word, token_ids(family, word), *numbers), family, strength)


def take_up(network: InstantNetwork, trained: Trained, family: Family, field: str = "artifact") -> None:
    """Fill a network with the weights of a folder.

    Raises:
        StudioError: They are for another model or encoder, or damaged.
    """
    values, _ = read(trained.folder / FILE)
    try:
        network.load_state_dict(values)
    except RuntimeError as error:
        raise StudioError(
            f"{trained.folder} does not fit this {family.name} ({str(error).splitlines()[-1].strip()}); load it on "
            f"{trained.model}, the model it was trained on.",
            field=field,
        ) from error
