"""The layer of a denoiser that takes the noisy latent: its place, its shape, and how to add to what it makes.

A wider input is a sum: the kernel over [z; more] is a kernel over z plus a kernel over what was added, so a second layer
beside the first one stands for the same widened layer, and the first one keeps its name and weights.

Axes: `b` batch, `c h w` first features of the denoiser.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from studio.catalog import families
from studio.catalog.family import FamilyCard
from studio.errors import unknown
from studio.models.base import Family
from studio.models.presence import unwrap


def entry(denoiser: nn.Module) -> nn.Module:
    """The layer of a denoiser that embeds the noisy latent.

    Raises:
        StudioError: The denoiser is of a class that we do not know.
    """
    layers = families.layers_of(kind := type(denoiser).__name__)
    if layers is None:
        raise unknown("denoiser", kind, families.denoisers(), field="model")
    return denoiser.get_submodule(layers.entry)


def width(family: Family) -> int:
    """Channels of the denoiser's first features."""
    first = entry(unwrap(family.denoiser))
    return next(p.shape[0] for name, p in first.named_parameters() if name.endswith("weight"))


def more_channels(family: Family, channels: int) -> nn.Conv2d:
    """What widens the first layer by `channels`: of the same reach, zero at first, without a second bias."""
    first, side = entry(unwrap(family.denoiser)), family.patch
    if isinstance(first, nn.Conv2d):  # a U-Net's
        shape: dict[str, Any] = {"kernel_size": first.kernel_size, "padding": first.padding}
    else:
        shape = {"kernel_size": side, "stride": side}
    layer = nn.Conv2d(channels, width(family), bias=False, **shape)
    nn.init.zeros_(layer.weight)
    return layer


@contextlib.contextmanager
def hinted(family: Family, features: Float[Tensor, "b c h w"]) -> Iterator[None]:
    """Add features to the denoiser's first ones while the context is open.

    A batch that is a multiple of b (guidance puts the unconditional half first) takes the features again for each part.
    """

    def add(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        del layer, args
        given = features if output.ndim == 4 else _as_entered(features, family.card, output)
        times = len(output) // len(given)
        return output + given.repeat(times, *[1] * (given.ndim - 1)).to(output.dtype)

    hook = entry(unwrap(family.denoiser)).register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _as_entered(features: Float[Tensor, "b c h w"], card: FamilyCard, output: Tensor) -> Tensor:
    """Features as a transformer's first layer gives its tokens: (b n c), or ((b n) c) with padding where it packs pictures.

    Behind the picture's tokens stand those of what the family looks at, which take none.
    """
    tokens = rearrange(features, "b c h w -> b (h w) c")
    if multiple := card.layers.entry_multiple:
        return rearrange(F.pad(tokens, (0, 0, 0, -tokens.shape[1] % multiple)), "b n c -> (b n) c")
    return F.pad(tokens, (0, 0, 0, output.shape[1] - tokens.shape[1]))
