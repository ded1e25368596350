"""An image encoder that looks closer: every picture also tile by tile, so that patches are finer than its own.

Frozen encoders see at 64 to 336 pixels, and small things drown in their patches. Tiles at the encoder's own size are what
"Scaling on Scales" (Shi et al. 2024, arXiv 2403.13043) splits larger pictures into; here the patches of the tiles are laid
out as one finer grid, and what stands for the whole picture comes from the picture as a whole. Axes: see `vision_tower`.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.models.vision_tower import Seen, VisionTower


class TiledTower(VisionTower):
    """An encoder whose patches come from `tiles` x `tiles` parts of a picture."""

    def __init__(self, tower: VisionTower, tiles: int) -> None:
        """Take an encoder that was measured.

        Args:
            tower: The encoder. Its tokens are a square of patches, and before it those that stand for the whole.
            tiles: Along each side.
        """
        super().__init__(
            tower.name, tower.size * tiles, tower.mean.flatten().tolist(), tower.std.flatten().tolist()
        )
        self.tower, self.tiles = tower, tiles

    @override
    def look(self, pixels: Float[Tensor, "b 3 s s"]) -> Seen:
        own = self.tower.size
        whole = self.tower.look(F.interpolate(pixels, (own, own), mode="bicubic", antialias=True))
        parts = rearrange(pixels, "b c (i h) (j w) -> (b i j) c h w", i=self.tiles, j=self.tiles)
        side = math.isqrt(self.tower.num_tokens)
        apart = self.tower.num_tokens - side**2
        patches = rearrange(
            self.tower.tokens(parts)[:, apart:],
            "(b i j) (h w) d -> b (i h j w) d", i=self.tiles, j=self.tiles, h=side,
        )  # fmt: skip
        return Seen(torch.cat([whole.tokens[:, :apart], patches], dim=1), whole.pooled)


def tiled(tower: VisionTower, tiles: int) -> VisionTower:
    """An encoder as it is, or by tiles where there are more than one."""
    if tiles == 1:
        return tower
    found = TiledTower(tower, tiles).to(tower.mean.device).eval()
    found.measure()
    return found
