"""Features of pictures, computed once a picture.

Axes: `b` pictures or texts, `d` features.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from studio.metrics.backbones import ClipBackbone, TimmBackbone
from studio.metrics.images import content_key, stack


class Judge:
    """A backbone that remembers what it has seen, by content, on the CPU."""

    def __init__(self, backbone: TimmBackbone, batch_size: int = 32) -> None:
        self.backbone, self.batch_size = backbone, batch_size
        self._seen: dict[str, Tensor] = {}

    @property
    def name(self) -> str:
        """Which model judges, for the report."""
        return self.backbone.name

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Image]) -> Float[Tensor, "b d"]:
        """Unit-length features of pictures of any sizes."""
        keys = [content_key(picture) for picture in pictures]
        new = list({key: p for key, p in zip(keys, pictures, strict=True) if key not in self._seen}.items())
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            images = stack([picture for _, picture in part], self.backbone.size)
            found = self.backbone(images.to(self.backbone.mean.device)).cpu()
            self._seen |= {key: row for (key, _), row in zip(part, found, strict=True)}
        return torch.stack([self._seen[key] for key in keys])


class TextJudge(Judge):
    """A judge of pictures and texts."""

    def __init__(self, backbone: ClipBackbone, batch_size: int = 32) -> None:
        super().__init__(backbone, batch_size)
        self._clip = backbone

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit-length features of texts."""
        new = [text for text in dict.fromkeys(prompts) if f"text:{text}" not in self._seen]
        if new:
            self._seen |= {f"text:{t}": row for t, row in zip(new, self._clip.texts(new).cpu(), strict=True)}
        return torch.stack([self._seen[f"text:{text}"] for text in prompts])
