"""How much structure a picture kept, and how far its colors are from a style's. Axes: `h w` picture."""

import torch
from einops import rearrange
from jaxtyping import Float
from kornia.filters import sobel
from PIL.Image import Image
from torch import Tensor

from studio.metrics.images import stack

DIRECTIONS, SIZE = 64, 64


def structure(image: Image, content: Image) -> float:
    """Correlation of the strength of edges, in [-1, 1]."""
    edges = torch.stack([sobel(_gray(one)).flatten() for one in (image, content)])
    return float(torch.corrcoef(edges)[0, 1].nan_to_num())


def color_distance(image: Image, style: Image) -> float:
    """Sliced Wasserstein distance of the pixels' colors, in units of the color range."""
    return _sliced(*(rearrange(_pixels(one), "1 c h w -> (h w) c") for one in (image, style)))


def _pixels(image: Image) -> Float[Tensor, "1 3 h w"]:
    return (stack([image], SIZE) + 1) / 2


def _gray(image: Image) -> Float[Tensor, "1 1 h w"]:
    return _pixels(image).mean(1, keepdim=True)


def _sliced(a: Float[Tensor, "n k"], b: Float[Tensor, "n k"]) -> float:
    """Mean distance between sorted projections on fixed random directions (Rabin et al. 2012)."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(
        torch.randn(a.shape[1], DIRECTIONS, generator=generator), dim=0
    )
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).abs().mean())
