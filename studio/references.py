"""Pictures of a subject that a request brings along as tensors, for methods that look at them; and those of previews.

Axes: `n` pictures, `h w` pixels.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from studio.backend.rng import Rng
from studio.batch import Batch, Shard, Source
from studio.models.base import Family
from studio.models.draw import as_pictures, draw
from studio.models.seeing import gain
from studio.trainer import Edit, Loss, Output, Request

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
