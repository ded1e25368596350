"""The hint encoder, and where its output enters a denoiser (Qiu et al. 2023, section 3.5 and appendix).

Eight 3x3 convolutions (16, 16, 32, 32, 96, 96, 256 channels, then the denoiser's first width), SiLU between them, the
last one zero at first, so that training starts at the base model. The others keep the signal's size (He et al. 2015):
with the official code's initial values (torch's own) the features of two pictures differ by 4e-5 around a constant of
9e-3 behind the seventh layer, and a run of some hundred steps learns the constant alone. Their output is added to what the denoiser makes of
the noisy latent first: a U-Net's conv_in, a transformer's embedding of patches.

Axes: `b` batch, `H W` picture, `c h w` first features of the denoiser.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from studio.errors import unknown
from studio.models.base import Family, unwrap

CHANNELS = (16, 16, 32, 32, 96, 96, 256)
HALVING = (2, 4, 6, 5, 3)
"""Layers that halve the size, the official code's three first; families with patches need a fourth."""
ENTRIES = {
    "UNet2DConditionModel": "conv_in",
    "SD3Transformer2DModel": "pos_embed",
    "FluxTransformer2DModel": "x_embedder",
}
"""By class of the denoiser: the layer that embeds the noisy latent."""


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
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]  # these layers have one
        for parameter in final.parameters():
            nn.init.zeros_(parameter)

    @override
    def forward(self, signal: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        return self.layers(signal)


def entry(denoiser: nn.Module) -> nn.Module:
    """The layer of a denoiser that hints are added after.

    Raises:
        StudioError: The denoiser is of a class that we do not know.
    """
    kind = type(denoiser).__name__
    if kind not in ENTRIES:
        raise unknown("denoiser", kind, ENTRIES, field="model")
    return denoiser.get_submodule(ENTRIES[kind])


def hint_encoder(family: Family) -> HintEncoder:
    """A fresh hint encoder that fits a family."""
    first = entry(unwrap(family.denoiser))
    widths = [p.shape[0] for name, p in first.named_parameters() if name.endswith("weight")]
    return HintEncoder(widths[0], family.size_multiple)


@contextlib.contextmanager
def hinted(family: Family, features: Float[Tensor, "b c h w"]) -> Iterator[None]:
    """Add features to the denoiser's first ones while the context is open.

    A batch that is a multiple of b (guidance puts the unconditional half first) takes the features again for each part.
    """

    def add(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        del layer, args
        given = features if output.ndim == 4 else rearrange(features, "b c h w -> b (h w) c")
        times = len(output) // len(given)
        return output + given.repeat(times, *[1] * (given.ndim - 1)).to(output.dtype)

    hook = entry(unwrap(family.denoiser)).register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
