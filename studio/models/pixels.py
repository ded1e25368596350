"""Pictures of any size as a square that a model takes. Axes: `b` pictures, `c h w` image."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def fit(images: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c s s"]:
    """Short side to `size` (bicubic, antialiased), then the middle square: the usual input of CLIP and DINO.

    Pictures are in [-1, 1].
    """
    height, width = images.shape[-2:]
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    if shape != (height, width):
        images = F.interpolate(images, shape, mode="bicubic", antialias=True, align_corners=False).clamp(
            -1, 1
        )
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return images[..., top : top + size, left : left + size]
