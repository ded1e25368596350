"""Same-subject sets of sticker scenes: one sticker, as many scenes as the set has members, a caption each.

A set has one sticker (of one drawing style, or the same emoji in several), with its own hues, mirroring and
proportions; its members differ in background, place, size and a slight rotation. All sets of a step have one size.
Axes: `b` sets, `n` members.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data import stickers
from studio.data.set_config import StickerSets
from studio.data.sticker_views import concepts
from studio.data.views import turn_hues

NUM_SETS = 1_000_000
"""Sets that count as an epoch; each step draws new ones."""
_SIZES = 5
"""Key of the numbers that choose a step's size."""


def size_of(sizes: Sequence[int], seed: int, step: int) -> int:
    """The size of all sets of a step."""
    return sizes[mix(seed, step, _SIZES) % len(sizes)]


class StickerSetSource:
    """New sets in every step, a function of (seed, step): `images` (b n 3 64 64 in [-1, 1]), `captions` (b lists of n)."""

    def __init__(self, settings: StickerSets, sizes: Sequence[int], *, held_out: bool = False) -> None:
        self._settings, self._sizes, self._held_out = settings, tuple(sizes), held_out
        self._concepts = concepts(settings.scenes.num_concepts, held_out=held_out)

    def __len__(self) -> int:
        return NUM_SETS

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of the steps `first`, `first + 1`, ..."""
        step = first
        while True:
            generator = torch.Generator().manual_seed(mix(seed, step, int(self._held_out)))
            batch = self._draw(shard.total, size_of(self._sizes, seed, step), generator)
            yield {key: value[shard.start : shard.stop] for key, value in batch.items()}
            step += 1

    def _draw(self, count: int, size: int, generator: torch.Generator) -> Batch:
        scenes = self._settings.scenes
        plan = stickers.plan_scenes(scenes, count * size, generator)
        of_set, own = torch.rand(count, 6, generator=generator), torch.rand(count * size, generator=generator)
        plan = self._one_subject(plan, of_set, size)
        sprites = stickers.load_sprites()[plan.styles, plan.concepts].float() / 255
        turns = of_set[:, 2] * (of_set[:, 3] < self._settings.hue)
        sprites = turn_hues(sprites, repeat(turns, "b -> (b n)", n=size))
        maps, places = stickers.place_objects(plan, scenes)
        maps = self._pose(of_set, own, size) @ maps
        canvas = stickers.paint_backgrounds(plan, scenes.color_jitter, torch.device("cpu"))
        images = stickers.paste(canvas, sprites, maps)
        captions = stickers.write_captions(plan, scenes, places)
        return {
            "images": rearrange(images, "(b n) c h w -> b n c h w", n=size),
            "captions": [captions[i * size : (i + 1) * size] for i in range(count)],
        }

    def _one_subject(self, plan: stickers.Plan, of_set: Tensor, size: int) -> stickers.Plan:
        """The plan with one concept a set, and one style but for the harder sets."""
        chosen = self._concepts[(of_set[:, 0] * len(self._concepts)).long()]
        first = rearrange(plan.styles, "(b n) -> b n", n=size)
        mixed = (of_set[:, 1] < self._settings.other_style)[:, None]
        styles = torch.where(mixed, first, first[:, :1])
        return dataclasses.replace(
            plan, concepts=repeat(chosen, "b -> (b n)", n=size), styles=rearrange(styles, "b n -> (b n)")
        )

    def _pose(self, of_set: Tensor, own: Tensor, size: int) -> Float[Tensor, "r 2 2"]:
        """What follows the map from picture to sticker: a member's rotation, then its set's proportions and mirror."""
        settings = self._settings
        angle = (2 * own - 1) * math.radians(settings.turn)
        cos, sin = angle.cos(), angle.sin()
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        mirror = torch.where(of_set[:, 4] < settings.mirror, -1.0, 1.0)
        stretch = torch.exp((2 * of_set[:, 5] - 1) * settings.stretch)
        shape = torch.diag_embed(torch.stack([mirror * stretch, 1 / stretch], 1))
        return repeat(shape, "b i j -> (b n) i j", n=size) @ rotation
