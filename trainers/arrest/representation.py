"""ARREST's angle between representations, and its noisy replay. Axes: `b` pictures, `c h w` picture, `d` features."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from studio.attacks.ball import Ball
from trainers.arrest.config import Replay


def angle(one: Float[Tensor, "b d"], two: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Angle in radians between representations.

    arccos(<a, b> / |a||b|) has an infinite slope at equality, where training starts; 2 atan2(|a - b|, |a + b|) on unit
    vectors is the same angle with gradient 0 there.
    """
    a, b = F.normalize(one.float(), dim=1), F.normalize(two.float(), dim=1)
    return 2 * torch.atan2(_length(a - b), _length(a + b))


def _length(vector: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Norm with gradient 0 at 0."""
    squared = vector.square().sum(1)
    zero = squared == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


def drifted(settings: Replay, degrees: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Which pictures are replayed, by their angle to the teacher."""
    if not settings.on:
        return torch.zeros_like(degrees, dtype=torch.bool)
    over = degrees > settings.degrees
    if settings.scope == "batch":
        return (over.float().mean() > settings.share).expand_as(over)
    return over


def replayed(
    attacked: Float[Tensor, "b c h w"],
    images: Float[Tensor, "b c h w"],
    which: Bool[Tensor, " b"],
    ball: Ball,
    uniform: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """Attacked pictures, the drifted ones replaced by clean ones with noise of the ball."""
    return torch.where(which[:, None, None, None], ball.start(images, uniform), attacked)
