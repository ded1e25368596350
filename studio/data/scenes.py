"""The embedded sticker scenes as a source of pictures with captions."""

from collections.abc import Iterator

import torch

from studio.backend.rng import mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch
from studio.data.sticker_config import Stickers
from studio.data.stickers import draw_scenes

NUM_SCENES = 1_000_000
"""Scenes that count as an epoch; each step draws new ones."""


class SceneSource:
    """New scenes in every step, a function of (seed, step)."""

    def __init__(self, settings: Stickers, *, held_out: bool = False) -> None:
        self._settings, self._held_out = settings, held_out

    def __len__(self) -> int:
        return NUM_SCENES

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches of `images` (64 px) and `captions`."""
        step = first
        while True:
            generator = torch.Generator().manual_seed(mix(seed, step, int(self._held_out)))
            drawn = draw_scenes(self._settings, shard.total, generator, held_out=self._held_out)
            rows = slice(shard.start, shard.stop)
            yield {"images": drawn.images[rows], "captions": drawn.captions[rows]}
            step += 1
