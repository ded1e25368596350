"""What is watched besides the reward: how alike pictures are, and how far the text encoder has moved.

Axes: `b` pictures, `H W` image.
"""

import logging
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from studio.adapters.strength import detached
from studio.models.base import Family

log = logging.getLogger(__name__)
NUM_WATCHED = 16
"""Prompts whose embeddings are watched."""
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


class Drift:
    """Mean cosine between the embeddings of fixed prompts now and in the base model."""

    def __init__(
        self, family: Family, trained: Mapping[str, nn.Module], prompts: Sequence[str], floor: float = 0.0
    ) -> None:
        """Embed the prompts with the base model.

        Args:
            family: The model.
            trained: Modules with adapters, by component name.
            prompts: Prompts of the run; the first ones are watched.
            floor: Lowest cosine that is not too far.
        """
        self._family, self._prompts, self._floor = family, list(prompts[:NUM_WATCHED]), floor
        self._moves = any(key in family.text_encoders for key in trained)
        if self._moves:
            with torch.no_grad(), detached(trained):
                self._base = self._tokens()

    def similarity(self) -> float:
        """1 for the base model, and where no text encoder trains."""
        if not self._moves:
            return 1.0
        with torch.no_grad():
            return float(F.cosine_similarity(self._tokens(), self._base, dim=-1).mean())

    def too_far(self, similarity: float) -> bool:
        """Whether a run should end there."""
        if similarity < self._floor:
            log.warning("Stopped: the prompts' embeddings have a cosine of %.3f to the base model's (at least "
                        "%.3f was asked for).", similarity, self._floor)  # fmt: skip
        return similarity < self._floor

    def _tokens(self) -> Float[Tensor, "b l d"]:
        return self._family.embed(self._prompts).tokens.float()
