"""Sticker scenes, each with views of its sticker alone: training data of methods that look at references.

There are 1,404 stickers; turned hues and mirroring make as many identities as there are scenes. Some concepts are kept
out for validation: their scenes ask for objects that training has never shown. Axes: `b` scenes, `k` views of each.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data import stickers
from studio.data.view_config import Views
from studio.data.views import NUMBERS, fill, see, turn_hues

NUM_SCENES = 1_000_000
"""Scenes that count as an epoch; each step draws new ones."""
_KEPT_OUT = 16
"""One of so many concepts is only drawn for validation."""
_KNOWN = 40
"""Concepts that every embedded model knows, which all stay in training."""


def views_of(most: int, seed: int, step: int) -> int:
    """How many views the objects of a step have: 1 to `most`."""
    return 1 + mix(seed, step, NUMBERS) % most


def concepts(num_concepts: int, *, held_out: bool) -> Tensor:
    """Numbers of the concepts of training, or of validation (which takes all where none can be spared)."""
    every = torch.arange(num_concepts)
    out = (every >= _KNOWN) & (every % _KEPT_OUT == _KEPT_OUT - 1)
    chosen = every[out == held_out]
    return chosen if len(chosen) else every


class StickerViews:
    """New scenes in every step, a function of (seed, step): `images`, `captions`, `views` (b k 3 s s in [-1, 1])."""

    def __init__(
        self, settings: Views, size: int, *, placeholder: str = "", held_out: bool = False, num_views: int = 1
    ) -> None:
        """Scenes and views.

        Args:
            settings: What the scenes show, and how views are made.
            size: Side of a view, in pixels.
            placeholder: Word to put in front of the object's noun in captions; empty for none.
            held_out: Draw the concepts that training never shows.
            num_views: A step has 1 to so many views of each object (k).
        """
        self._settings, self._size = settings, size
        self._placeholder, self._held_out, self._num_views = placeholder, held_out, num_views
        self._concepts = concepts(settings.scenes.num_concepts, held_out=held_out)

    def __len__(self) -> int:
        return NUM_SCENES

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of the steps `first`, `first + 1`, ..."""
        step = first
        while True:
            generator = torch.Generator().manual_seed(mix(seed, step, int(self._held_out)))
            batch = self._draw(shard.total, views_of(self._num_views, seed, step), generator)
            yield {key: value[shard.start : shard.stop] for key, value in batch.items()}
            step += 1

    def _draw(self, count: int, num_views: int, generator: torch.Generator) -> Batch:
        scenes = self._settings.scenes
        plan = stickers.plan_scenes(scenes, count, generator)
        numbers = torch.rand(count, NUMBERS + 2, generator=generator)
        chosen = self._concepts[(plan.numbers[:, 0] * len(self._concepts)).long()]
        plan = dataclasses.replace(plan, concepts=chosen)
        sprites = stickers.load_sprites()[plan.styles, plan.concepts].float() / 255
        turns = numbers[:, NUMBERS] * (numbers[:, NUMBERS + 1] < self._settings.hue)
        sprites = turn_hues(sprites, turns)
        other_side = rearrange(stickers.mirrored(plan, scenes), "b -> b 1 1 1")
        sprites = torch.where(other_side, sprites.flip(-1), sprites)  # for picture and view alike
        canvas = stickers.paint_backgrounds(plan, scenes.color_jitter, torch.device("cpu"))
        maps, places = stickers.place_objects(plan, dataclasses.replace(scenes, mirrored=0.0))
        cutouts = torch.cat([2 * sprites[:, :3] - sprites[:, 3:], sprites[:, 3:]], dim=1)
        further = torch.rand(num_views - 1, count, NUMBERS, generator=generator)
        views = [self._view(cutouts, canvas.roll(i + 1, 0), u) for i, u in enumerate([numbers, *further])]
        return {
            "images": stickers.paste(canvas, sprites, maps),
            "captions": self._captions(plan, places),
            "views": torch.stack(views, dim=1),
        }

    def _view(self, cutouts: Tensor, behind: Tensor, numbers: Tensor) -> Float[Tensor, "b 3 s s"]:
        """A view of each object, some on a background in [0, 1] that belongs to another scene."""
        seen = see(cutouts, self._settings, numbers, self._size)
        behind = torch.nn.functional.interpolate(behind * 2 - 1, seen.shape[-2:], mode="bilinear")
        return fill(seen, behind, self._settings, numbers)

    def _captions(self, plan: stickers.Plan, places: list[str]) -> list[str]:
        captions = stickers.write_captions(plan, self._settings.scenes, places)
        if not self._placeholder:
            return captions
        rows = stickers.index()
        nouns = [(rows[concept]["name"], rows[concept]["group"]) for concept in plan.concepts.tolist()]
        return [
            named(caption, pair, self._placeholder) for caption, pair in zip(captions, nouns, strict=True)
        ]


def names(caption: str, nouns: Sequence[str]) -> re.Match[str] | None:
    """Where a caption names one of some nouns, with the article and "small" before it.

    The longest noun is looked for first, so that "ice cream" is not found as "ice".
    """
    for noun in sorted(nouns, key=len, reverse=True):
        found = re.search(rf"\b((?:an?) )?((?:small )?)({re.escape(noun)})\b", caption, re.IGNORECASE)
        if found:
            return found
    return None


def named(caption: str, nouns: Sequence[str], placeholder: str) -> str:
    """A caption with a word in front of the noun found in it, the article put right; as it was if there is none."""
    found = names(caption, nouns)
    if found is None:
        return caption
    article, small, noun = found.groups(default="")
    if article:
        article = "an " if not small and placeholder[0] in "aeiou" else "a "
    return f"{caption[: found.start()]}{article}{small}{placeholder} {noun}{caption[found.end() :]}"
