"""Control signals taken from pictures, and how well a picture follows one.

Axes: `b` batch, `h w` picture. Pictures are in [-1, 1], signals in [0, 1] with three channels.
"""

from collections.abc import Iterator
from typing import assert_never

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float, Int
from kornia.filters import canny, gaussian_blur2d
from torch import Tensor

from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from trainers.oft.config import Colors, Control, Edges, Regions

EVEN = 1e-4
"""Variance below which a layout counts as one even color."""


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


class Signalled:
    """A source whose batches hold the `signal` of their `images`: taken on the CPU, since canny asks for values in every pass."""

    def __init__(self, pictures: Source, control: Control) -> None:
        self._pictures, self._control = pictures, control

    def __len__(self) -> int:
        return len(self._pictures)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """The batches of the pictures, with their signals."""
        for batch in self._pictures.stream(seed, first, shard):
            yield {**batch, "signal": signal(self._control, batch["images"])}


def agreement(
    control: Control, wanted: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """How well each picture follows a signal, in [0, 1]; 1 for the picture that the signal was taken from.

    Edges: F1, where edges that are a pixel apart meet (paper: F1). Regions: mean intersection over union of the colors that
    the signal has (paper: mIoU). Colors: share of the layout's variation that the picture's layout explains, 0 for no
    better than one even color. A mean difference would not do: most of a picture is background, whose color the caption
    names, so that the base model alone comes to 0.92.
    """
    shown = signal(control, images)
    match control:
        case Edges():
            return _edges_f1(wanted, shown)
        case Colors():
            return _explained(wanted, shown)
        case Regions():
            return torch.stack(
                [
                    _mean_iou(*pair)
                    for pair in zip(_labels(control, wanted), _labels(control, shown), strict=True)
                ]
            )
        case _:
            assert_never(control)


def _edges_f1(wanted: Float[Tensor, "b 3 h w"], shown: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    hit_shown = (shown * _grown(wanted)).flatten(1).sum(1) / shown.flatten(1).sum(1).clamp_min(1)
    hit_wanted = (wanted * _grown(shown)).flatten(1).sum(1) / wanted.flatten(1).sum(1).clamp_min(1)
    return 2 * hit_shown * hit_wanted / (hit_shown + hit_wanted).clamp_min(1e-6)


def _explained(wanted: Float[Tensor, "b 3 h w"], shown: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    error = (shown - wanted).square().flatten(1).mean(1)
    variation = (wanted - wanted.mean((2, 3), keepdim=True)).square().flatten(1).mean(1)
    return (1 - error / variation.clamp_min(EVEN)).clamp_min(0)


def _labels(control: Regions, levels: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b h w"]:
    """A number for each color of a signal of regions."""
    red, green, blue = (levels * (control.levels - 1)).round().long().unbind(1)
    return (red * control.levels + green) * control.levels + blue


def _mean_iou(wanted: Int[Tensor, "h w"], shown: Int[Tensor, "h w"]) -> Float[Tensor, ""]:
    found = [
        ((wanted == label) & (shown == label)).sum() / ((wanted == label) | (shown == label)).sum()
        for label in wanted.unique()
    ]
    return torch.stack(found).mean()


def _grown(edges: Tensor) -> Tensor:
    """Edges a pixel wider on every side."""
    return F.max_pool2d(edges, 3, stride=1, padding=1)
