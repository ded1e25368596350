"""Control signals taken from pictures, and how well a picture follows one.

Axes: `b` batch, `h w` picture. Pictures are in [-1, 1], signals in [0, 1] with three channels.
"""

from typing import assert_never

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from kornia.filters import canny, gaussian_blur2d
from torch import Tensor

from trainers.oft.config import Colors, Control, Edges, Regions


@torch.no_grad()
def signal(control: Control, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """What a picture that follows these pictures has to show."""
    pictures = (images.float() + 1) / 2
    match control:
        case Edges():
            _, edges = canny(pictures, low_threshold=control.low, high_threshold=control.high)
            return repeat(edges, "b 1 h w -> b c h w", c=3)
        case Colors():
            cells = F.adaptive_avg_pool2d(pictures, control.cells)
            return F.interpolate(cells, size=pictures.shape[-2:], mode="nearest")
        case Regions():
            smooth = gaussian_blur2d(pictures, (5, 5), (1.5, 1.5))
            return (smooth * (control.levels - 1)).round() / (control.levels - 1)
        case _:
            assert_never(control)


def agreement(
    control: Control, wanted: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """How well each picture follows a signal, in [0, 1]: F1 of edges that are a pixel apart at most, else 1 - mean error."""
    shown = signal(control, images)
    if not isinstance(control, Edges):
        return 1 - (shown - wanted).abs().flatten(1).mean(1)
    hit_shown = (shown * _grown(wanted)).flatten(1).sum(1) / shown.flatten(1).sum(1).clamp_min(1)
    hit_wanted = (wanted * _grown(shown)).flatten(1).sum(1) / wanted.flatten(1).sum(1).clamp_min(1)
    return 2 * hit_shown * hit_wanted / (hit_shown + hit_wanted).clamp_min(1e-6)


def _grown(edges: Tensor) -> Tensor:
    """Edges a pixel wider on every side."""
    return F.max_pool2d(edges, 3, stride=1, padding=1)
