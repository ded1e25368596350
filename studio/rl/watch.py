"""What is watched besides the reward: how alike pictures are, and how far the text encoder has moved.

Axes: `b` pictures, `H W` image.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from studio.adapters.strength import detached
from studio.models.base import Family

THUMBNAIL = 8
"""Side in pixels at which pictures are compared: layout and color, not texture."""


def thumbnails(images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c h w"]:
    """Small copies, on the CPU."""
    return F.adaptive_avg_pool2d(images, THUMBNAIL).cpu()


def diversity(small: Float[Tensor, "b c h w"], prompts: Sequence[str]) -> Float[Tensor, ""]:
    """Spread of the pictures of one prompt, as a mean over pixels and prompts; over all where none repeats."""
    rows = [[i for i, p in enumerate(prompts) if p == prompt] for prompt in dict.fromkeys(prompts)]
    groups = [small[same] for same in rows if len(same) > 1] or [small]
    return torch.stack([group.std(dim=0, correction=0).mean() for group in groups]).mean()


class Similarity:
    """Mean cosine between the embeddings of fixed prompts now and in the base model."""

    def __init__(self, family: Family, trained: Mapping[str, nn.Module], prompts: Sequence[str]) -> None:
        """Embed the prompts with the base model."""
        self._family, self._prompts = family, list(prompts)
        with torch.no_grad(), detached(trained):
            self._base = family.embed(self._prompts).tokens.float()

    @torch.no_grad()
    def __call__(self) -> float:
        """1 for the base model."""
        return float(
            F.cosine_similarity(self._family.embed(self._prompts).tokens.float(), self._base, dim=-1).mean()
        )
