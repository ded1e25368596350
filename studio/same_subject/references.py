"""What methods share that draw what references show: references as tensors, a trainer on views, an edit that looks.

Axes: `n` pictures, `h w` pixels; `b` pictures to draw, `r` rows of one pass of the denoiser, `c h w` latent.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from typing_extensions import override

from studio.backend.rng import Rng
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.condition import Condition
from studio.contracts.sampling import Edit, Output, PlainEdit, Request
from studio.contracts.trainer import Loss, Trainer
from studio.data.masked import Wanted, view_source
from studio.data.view_config import STICKERS, Views
from studio.diffusion.guidance import Guidance
from studio.models.base import Family
from studio.models.draw import draw
from studio.models.pictures import as_pictures
from studio.models.seeing import Passes, gain, guided_seeing
from studio.models.vision_tower import VisionTower

_SHOWN_SEED, _SCORED = 7, 64


def tensors(pictures: Sequence[Image.Image], height: int, width: int) -> Float[Tensor, "n 3 h w"]:
    """The middle of each picture at one size, in [-1, 1]."""
    fitted = [ImageOps.fit(one.convert("RGB"), (width, height), Image.Resampling.BICUBIC) for one in pictures]
    return torch.stack([pil_to_tensor(one).float() / 127.5 - 1 for one in fitted])


class Shown:
    """Rows that previews of a method with views are drawn for, held-out ones where there are any."""

    def __init__(self, training: Source, held_out: Source | None, number: int) -> None:
        """Take `number` rows of the held-out data, or of the training data where there is none."""
        source = held_out or training
        count = min(number, len(source))
        self._held_out = held_out
        self.batch: Batch = next(iter(source.stream(_SHOWN_SEED, 0, Shard(count, 0, count))))

    def draw(self, family: Family, request: Request, edits: Sequence[Edit], rng: Rng) -> Output:
        """Pictures of the request's references; without any, each prompt has views of its own to look at."""
        given = (
            [request.references]
            if request.references
            else [as_pictures(views) for views in self.batch["views"]]
        )
        pictures: list[Image.Image] = []
        for index, prompt in enumerate(request.prompts):
            references = given[index % len(given)]
            one = dataclasses.replace(request, prompts=[prompt], references=references, edits=edits)
            pictures += draw(family, one, rng)
        return Output(images=pictures)

    def score(self, loss: Callable[[Batch, Rng], Loss], device: torch.device) -> dict[str, float]:
        """What true views are worth against those of other rows, on held-out rows; nothing where there are none."""
        if self._held_out is None:
            return {}
        batch = next(iter(self._held_out.stream(_SHOWN_SEED, 1, Shard(_SCORED, 0, _SCORED))))
        return gain(lambda one: loss(one, Rng.single(0, 1, _SCORED, device)).total, batch)


class SeeingEdit(PlainEdit, ABC):
    """Guidance whose conditional half alone looks at the references of the request."""

    takes_references = True

    def __init__(self, family: Family, strength: float) -> None:
        self.family, self.strength = family, strength

    @abstractmethod
    def seeing(self, rows: Bool[Tensor, " r"]) -> AbstractContextManager[None]:
        """Lets the rows that are True look at the references, while the context is open."""

    @override
    def predict(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        *,
        cond: Condition,
        uncond: Condition | None,
        guidance: Guidance,
    ) -> Float[Tensor, "b c h w"]:
        """The guided native prediction."""
        passes = Passes(self.family, self.seeing)
        return guided_seeing(passes, x_t, t, cond=cond, uncond=uncond, guidance=guidance)


@runtime_checkable
class ViewSettings(Protocol):
    """Settings that every method has which learns from views."""

    @property
    def data(self) -> str:
        """A folder, or stickers."""
        ...

    @property
    def views(self) -> Views:
        """How views are made."""
        ...

    @property
    def num_shown(self) -> int:
        """References drawn in previews."""
        ...


C = TypeVar("C", bound=ViewSettings)


class ViewTrainer(Trainer, Generic[C]):
    """Learns from pictures and views of their objects; `setup` loads the model and the image encoder."""

    config: C
    family: Family
    tower: VisionTower

    @override
    def __init__(self, config: C) -> None:
        """Keep the settings."""
        self.config = config

    def wanted(self) -> Wanted:
        """What the method wants of pictures."""
        return Wanted(self.tower.size, self.family.default_size, self.family.size_multiple)

    @abstractmethod
    def edit(self) -> Edit:
        """What draws with the weights as they are."""

    @override
    def source(self) -> Source:
        return view_source(self.config.data, self.config.views, self.wanted(), held_out=False)

    @override
    def held_out(self) -> Source | None:
        """Objects that training never shows; a folder has none."""
        if self.config.data != STICKERS:
            return None
        return view_source(self.config.data, self.config.views, self.wanted(), held_out=True)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        """Pictures of the request's references; without any, prompt by prompt those of held-out views."""
        return self._shown.draw(self.family, request, [self.edit(), *request.edits], rng)

    @cached_property
    def _shown(self) -> Shown:
        return Shown(self.source(), self.held_out(), self.config.num_shown)

    @override
    def prompts(self) -> Sequence[str]:
        return self._shown.batch["captions"]

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        """The share of the held-out loss that true views take away, which names the best checkpoint."""
        return self._shown.score(self.loss, self.backend.device)
