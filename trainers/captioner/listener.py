"""A second retriever, so that captions are not judged by the network that rewarded them.

Its eyes are the embedded EfficientNet-lite0 (real ImageNet weights, never trained on stickers) and the coarse colors of
the picture, its ear is a recurrent network over words; small heads learn to match both on captioned scenes. Nothing of
it is shared with the rewarding CLIP: neither weights, nor architecture, nor tokens. Axes: `b` pictures or texts, `d`
features.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from studio.backend.rng import mix
from studio.data.sticker_config import Stickers
from studio.data.stickers import compose, plan_scenes, write_captions
from studio.metrics.backbones import TimmBackbone, load_timm

NUM_SCENES, STEPS, BATCH, RATE = 1600, 200, 200, 3e-3
WIDTH, SIDE, SCALE = 96, 4, 20.0
"""Common features; side of the grid of colors; factor on cosines while it learns."""
_SEED = 77


class Listener(nn.Module):
    """Pictures and texts in one space, unit length."""

    def __init__(self, eyes: TimmBackbone, words: Sequence[str]) -> None:
        super().__init__()
        self.eyes, self.index = eyes, {word: place for place, word in enumerate(words, start=1)}
        width = eyes.model.num_features + 3 * SIDE**2
        self.image_head = nn.Sequential(nn.Linear(width, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.table = nn.Embedding(len(words) + 1, WIDTH)
        self.ear = nn.GRU(WIDTH, 2 * WIDTH, batch_first=True)
        self.text_head = nn.Linear(2 * WIDTH, WIDTH)

    @torch.no_grad()
    def look(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """What the heads get of pictures in [-1, 1]: the network's features, and colors on a grid."""
        parts = [
            torch.cat(
                [30 * self.eyes(part), rearrange(F.adaptive_avg_pool2d(part, SIDE), "b c h w -> b (c h w)")],
                1,
            )
            for part in images.split(100)
        ]
        return torch.cat(parts)

    def images(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Features of pictures."""
        return F.normalize(self.image_head(self.look(images)), dim=-1)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Features of texts; words it never heard are all the same one."""
        rows = [[self.index.get(word, 0) for word in text.replace(",", " ").split()] or [0] for text in texts]
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        return self._heard(tokens, torch.tensor([len(row) for row in rows]))

    def _heard(self, tokens: Int[Tensor, "b l"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        return F.normalize(self.text_head(self.ear(packed)[1][0]), dim=-1)


def train_listener(scenes: Stickers) -> Listener:
    """A listener that learned on captioned scenes; call it under a seeded generator.

    Every step writes new captions for scenes that are drawn once.
    """
    generator = torch.Generator().manual_seed(mix(_SEED))
    plans = [plan_scenes(scenes, BATCH, generator) for _ in range(NUM_SCENES // BATCH)]
    drawn = [compose(plan, scenes) for plan in plans]
    words = sorted(
        {word for each in drawn for text in each.captions for word in text.replace(",", " ").split()}
    )
    listener = Listener(load_timm("efficientnet-lite0", "cpu"), words)
    seen = [listener.look(each.images) for each in drawn]
    learned = [p for name, p in listener.named_parameters() if not name.startswith("eyes.")]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, STEPS)
    for step in range(STEPS):
        turn = step % len(plans)
        numbers = torch.rand(plans[turn].numbers.shape, generator=generator)
        told = replace(plans[turn], numbers=numbers)
        captions = write_captions(told, scenes, drawn[turn].places)
        images = F.normalize(listener.image_head(seen[turn]), dim=-1)
        logits = SCALE * images @ listener.texts(captions).mT
        target = torch.arange(len(logits))
        optimizer.zero_grad()
        (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)).backward()
        optimizer.step()
        schedule.step()
    return listener.eval().requires_grad_(False)
