"""The set that a perturbation stays in. Axes: `b` pictures, `c h w` picture."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from studio.attacks.config import Norm

_TINY = 1e-12


@dataclass(frozen=True)
class Ball:
    """All pictures in [0, 1] within `radius` (in units of the pixel range) of a picture.

    `where` limits the change to a part of each picture: 1 may change, 0 may not.
    """

    norm: Norm
    radius: float
    where: Float[Tensor, "b 1 h w"] | None = None

    def project(
        self, moved: Float[Tensor, "b c h w"], images: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """The point of the ball around `images` nearest to `moved`, then clipped to [0, 1]."""
        change = moved - images
        if self.where is not None:
            change = change * self.where
        if self.norm == "linf":
            change = change.clamp(-self.radius, self.radius)
        else:
            change = change * (self.radius / _length(change).clamp_min(_TINY)).clamp(max=1)
        return (images + change).clamp(0, 1)

    def start(
        self, images: Float[Tensor, "b c h w"], uniform: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """A random point of the ball from uniform numbers in [0, 1)."""
        change = 2 * uniform - 1
        if self.norm == "l2":  # a random direction of random length
            change = change / _length(change).clamp_min(_TINY) * uniform[:, :1, :1, :1]
        return self.project(images + self.radius * change, images)

    def direction(self, gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Steepest ascent of unit length in this norm."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / _length(gradient).clamp_min(_TINY)

    def rows(self, index: Tensor) -> "Ball":
        """The ball of some of the pictures."""
        return self if self.where is None else Ball(self.norm, self.radius, self.where[index])


def _length(change: Tensor) -> Float[Tensor, "b 1 1 1"]:
    return torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
