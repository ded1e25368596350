"""What a model drew, as pictures."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from studio.errors import RunFailed


def as_pictures(images: Float[Tensor, "b c h w"]) -> list[Image.Image]:
    """Images in [-1, 1] as 8-bit pictures.

    Raises:
        RunFailed: One is not finite.
    """
    if not bool(torch.isfinite(images).all()):
        raise RunFailed(
            "The model drew a picture that is not finite; likely causes are half precision (try --hardware.precision fp32), "
            "weights that are not finite, or epsilon prediction with zero terminal SNR, which needs v-prediction."
        )
    levels = rearrange((images / 2 + 0.5) * 255, "b c h w -> b h w c").round().to(torch.uint8)
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in levels.cpu().numpy()]
