"""The hint encoder (Qiu et al. 2023, section 3.5 and appendix).

Eight 3x3 convolutions (16, 16, 32, 32, 96, 96, 256 channels, then the denoiser's first width), SiLU between them, the
last one zero at first, so that training starts at the base model. Their output is added to what the denoiser makes of the
noisy latent first: a U-Net's conv_in, a transformer's embedding of patches (`studio.models.entry`).

Departures: signals enter as [-1, 1], and the first weights keep their size through the layers. With the official code's
(torch's own, and signals in [0, 1]) the features of two pictures differ by 4e-5 around a constant of 9e-3 behind the seventh
layer, with He's (for ReLU) by 2e-2 of 4e-2, and a run learns slowly or the constant alone; now they differ by 0.5 of 1.

Axes: `b` batch, `H W` picture, `c h w` first features of the denoiser.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from studio.models.base import Family
from studio.models.entry import hinted, width

__all__ = ["HintEncoder", "hint_encoder", "hinted"]

CHANNELS = (16, 16, 32, 32, 96, 96, 256)
HALVING = (2, 4, 6, 5, 3)
"""Layers that halve the size, the official code's three first; families with patches need a fourth."""
GAIN = 1.8
"""Of the first weights: SiLU keeps a size of 1 with 1.68 and small values with 2; this one gives 0.3 to 3.7 at the end."""


class HintEncoder(nn.Module):
    """A signal of the picture's size as features of the denoiser's first width."""

    def __init__(self, width: int, shrink: int) -> None:
        """Start with an output of zero.

        Args:
            width: Channels of the output.
            shrink: How many times smaller the output is; a power of two up to 32.
        """
        super().__init__()
        halving = HALVING[: shrink.bit_length() - 1]
        sizes = [3, *CHANNELS, width]
        layers: list[nn.Module] = []
        for index in range(len(sizes) - 1):
            stride = 2 if index in halving else 1
            layers += [nn.Conv2d(sizes[index], sizes[index + 1], 3, stride=stride, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])
        *inner, final = (layer for layer in self.layers if isinstance(layer, nn.Conv2d))
        for layer in inner:
            nn.init.normal_(layer.weight, std=GAIN / math.sqrt(layer.weight[0].numel()))
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]  # these layers have one
        for parameter in final.parameters():
            nn.init.zeros_(parameter)

    @override
    def forward(self, signal: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """Features of signals in [0, 1]."""
        return self.layers(2 * signal - 1)


def hint_encoder(family: Family) -> HintEncoder:
    """A fresh hint encoder that fits a family."""
    return HintEncoder(width(family), family.size_multiple)
