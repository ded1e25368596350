"""What a dual encoder is measured on, prepared once for the model before and after finetuning.

Pictures are in [-1, 1]. Axes: `n` pictures, `m` texts, `c h w` picture.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.data.config import Labelled
from studio.data.labelled import LabelledPhotos
from studio.data.order import spread
from studio.data.pools import Pool, open_pool, split
from studio.data.sticker_captions import with_article
from studio.data.sticker_concepts import COLORS
from studio.data.sticker_config import Stickers
from studio.data.stickers import compose, draw_scenes, names, plan_scenes
from studio.errors import StudioError
from studio.matching.config import Captioned, VlmEval
from studio.matching.data import Labels, captioned
from studio.models.dual import DualEncoder

log = logging.getLogger(__name__)

SCENES = Stickers()
"""Scenes that the embedded CLIP knows: 40 objects, two styles."""


@dataclass(frozen=True)
class Named:
    """Labelled pictures and the names of their classes."""

    classes: tuple[str, ...]
    images: list[Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Paired:
    """Pictures with captions; equal captions count as the same one."""

    images: list[Tensor]
    captions: list[str]


@dataclass(frozen=True)
class Swaps:
    """Pairs of scenes of one object that differ in one attribute: pictures and captions stand in turn, pair by pair."""

    images: list[Tensor]
    captions: list[str]


@dataclass(frozen=True)
class Examined:
    """Everything that is measured on."""

    held_out: Named
    shots: dict[int, Named]
    shifts: dict[str, Named]
    pairs: Paired
    swaps: Swaps | None


def prepare(request: VlmEval, model: DualEncoder) -> Examined:
    """Read and draw what is measured on.

    Raises:
        StudioError: If something named cannot be read.
    """
    pools = split(request.data)
    shots = {count: _named(request, split(_few(request, count)).train, model, 0) for count in request.shots}
    shifts = {
        where: _named(request, open_pool(where, request.data, held_out=True), model, request.num_images)
        for where in request.shifts
    }
    held_out = _named(request, pools.test, model, request.num_images)
    for where, shift in shifts.items():
        if strange := set(shift.classes) - set(held_out.classes):
            raise StudioError(
                f"{where} has the class {min(strange)!r}, which the data lacks; name its classes as the data does.",
                field="shifts",
            )
    return Examined(held_out, shots, shifts, _pairs(request, model), _swaps(request))


def _few(request: VlmEval, count: int) -> Labelled:
    return replace(request.data, shots=count, shots_seed=request.seed)


def _named(request: VlmEval, pool: Pool, model: DualEncoder, most: int) -> Named:
    """Pictures spread over the classes; asked among all names of the data, whichever happen to be in the sample."""
    part = pool.subset(spread(pool.labels, most or len(pool)))
    source = Labels(LabelledPhotos(request.data, part, model.data_config(), trains=False))
    batches = list(source.ordered(request.batch_size))
    return Named(
        tuple(pool.classes), [b["images"] for b in batches], torch.cat([b["labels"] for b in batches])
    )


def _pairs(request: VlmEval, model: DualEncoder) -> Paired:
    """Pictures with captions, of a folder or drawn."""
    if request.pairs:
        source = captioned(Captioned(folder=request.pairs), model.size)
        count = min(request.num_pairs, len(source))
        batch = next(source.stream(request.seed, 0, Shard(count, 0, count)))
        images, captions = batch["images"], batch["captions"]
    else:
        generator = torch.Generator().manual_seed(mix(request.seed, 1))
        drawn = draw_scenes(SCENES, request.num_pairs, generator, held_out=True)
        images, captions = drawn.images, drawn.captions
    return Paired(list(images.split(request.batch_size)), list(captions))


def _swaps(request: VlmEval) -> Swaps | None:
    """Scenes of one object on two colors, and their captions."""
    if not request.num_swaps:
        return None
    scenes = replace(SCENES, textured=0.0, gradient=0.0)
    plan = plan_scenes(scenes, request.num_swaps, torch.Generator().manual_seed(mix(request.seed, 2)))
    colors = list(COLORS)
    sides: list[Tensor] = []
    for side in (0, 1):
        own = plan.colors if side == 0 else plan.colors.flip(1)
        sides.append(compose(replace(plan, colors=own), scenes).images)
    captions = [
        f"a sticker of {with_article(names(scenes.num_concepts)[concept])} on a {colors[color]} background"
        for concept, pair in zip(plan.concepts.tolist(), plan.colors.tolist(), strict=True)
        for color in pair
    ]
    images = torch.stack(sides, 1).flatten(0, 1)
    return Swaps(list(images.split(request.batch_size)), captions)


def as_sentences(words: Sequence[str]) -> list[str]:
    """Distinct texts, in order."""
    return list(dict.fromkeys(words))
