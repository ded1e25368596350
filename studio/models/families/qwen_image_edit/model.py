"""Qwen-Image-Edit (2509): Qwen-Image that looks at up to three pictures, as tokens of the prompt and of the latent.

Without a picture it reads the prompt alone, as musubi-tuner trains it where there is none.
Axes: `b` batch, `n` picture tokens, `r` pictures, `C H W` picture.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.errors import StudioError
from studio.models.families.qwen_image.model import QwenImage
from studio.models.packing import pack

BEFORE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n"
)
SIDE_READ = 384
"""Side of a square with as many pixels as a picture has beside the prompt."""
STEP = 32
"""Sides are multiples of it."""


class QwenImageEdit(QwenImage):
    """Qwen-Image-Edit 2509."""

    before, dropped = BEFORE, 64

    @override
    def embed_with(
        self, prompts: Sequence[str], references: Sequence[Image.Image], height: int, width: int
    ) -> Condition:
        if len(references) > self.card.references:
            raise StudioError(
                f"{len(references)} reference pictures were given, and {self.card.title} looks at "
                f"{self.card.references} at most; leave some out.",
                field="reference",
            )
        cond = self._seen(prompts, references)
        pictures = [_resized(one, self.default_size) for one in references]
        with torch.no_grad():
            latents = [self.encode(_values(one).to(self.backend.device)) for one in pictures]
        sizes = torch.tensor([[one.shape[-2] // 2, one.shape[-1] // 2] for one in latents])
        tokens = torch.cat([pack(one) for one in latents], dim=1)
        b = len(prompts)
        return cond.with_extra(
            reference=repeat(tokens, "1 n k -> b n k", b=b),
            reference_sizes=repeat(sizes.to(tokens.device), "r two -> b r two", b=b),
        )

    def _seen(self, prompts: Sequence[str], references: Sequence[Image.Image]) -> Condition:
        """Prompts behind the pictures, as the vision-language model reads both."""
        processor: Any = self._components["processor"].image_processor
        found = processor(images=[_resized(one, SIDE_READ) for one in references], return_tensors="pt")
        grid: Int[Tensor, "r three"] = found["image_grid_thw"]
        counts = (grid.prod(-1) // processor.merge_size**2).tolist()
        seen = "".join(
            f"Picture {number}: <|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
            for number, count in enumerate(counts, start=1)
        )
        b = len(prompts)
        return self._read(
            prompts,
            seen,
            pixel_values=found["pixel_values"].repeat(b, 1),
            image_grid_thw=grid.repeat(b, 1),
        )


def _resized(picture: Image.Image, side: int) -> Image.Image:
    """A picture of about as many pixels as a square of that side, its shape kept as far as multiples allow."""
    ratio = picture.width / picture.height
    width = math.sqrt(side * side * ratio)
    sides = (round(width / STEP) * STEP, round(width / ratio / STEP) * STEP)
    return picture.resize(sides, Image.Resampling.LANCZOS)


def _values(picture: Image.Image) -> Float[Tensor, "1 C H W"]:
    """A picture in [-1, 1]."""
    return (pil_to_tensor(picture).float() / 127.5 - 1).unsqueeze(0)
