"""FLUX.1 Fill: a token of the noisy latent has the masked picture's and the mask's beside it.

Without references, as in training on pictures alone, it looks at an empty picture whose mask is 1 everywhere: all is to be
painted (OneTrainer trains it so where a picture has no mask).

Axes: `b` batch, `c h w` latent, `H W` picture, `n` tokens, `k` their channels.
"""

from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from einops import rearrange, repeat
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from typing_extensions import override

from studio.backend.core import Backend
from studio.contracts.condition import Condition
from studio.models.families.flux.model import Flux
from studio.models.packing import pack
from studio.settings.sampling import Text

EMPTY = 0.0
"""Value of masked pixels, in [-1, 1]."""


class FluxFill(Flux):
    """FLUX.1 Fill: FLUX.1 with a wider first layer, which sees what is kept of a picture, and where it is not."""

    @override
    def __init__(self, parts: DiffusionPipeline, backend: Backend, text: Text = Text()) -> None:
        super().__init__(parts, backend, text)
        self._empty: dict[tuple[int, int], Tensor] = {}

    @override
    def embed_with(
        self, prompts: Sequence[str], references: Sequence[Image.Image], height: int, width: int
    ) -> Condition:
        """The references are a picture and its mask, white where it is painted; both are brought to the drawn size."""
        self.check_references(references, "a picture and its mask, white where it is to be painted")
        reader = VaeImageProcessor(vae_scale_factor=self.size_multiple)
        picture = reader.preprocess(references[0].convert("RGB"), height=height, width=width)
        mask_reader = VaeImageProcessor(
            vae_scale_factor=self.size_multiple,
            do_normalize=False,
            do_binarize=True,
            do_convert_grayscale=True,
        )
        mask = mask_reader.preprocess(references[1].convert("RGB"), height=height, width=width)
        kept = self._kept(picture, mask)
        return self.embed(prompts).with_extra(reference=repeat(kept, "1 n k -> b n k", b=len(prompts)))

    def _kept(
        self, picture: Float[Tensor, "1 C H W"], mask: Float[Tensor, "1 1 H W"]
    ) -> Float[Tensor, "1 n k"]:
        """What stands beside the noisy tokens: latents of the picture without the masked part, and the mask.

        Args:
            picture: In [-1, 1].
            mask: 1 where it is painted. The pixels of a latent are its channels.
        """
        with torch.no_grad():
            latents = self.encode(torch.where(mask > 0, EMPTY, picture))
        side = self.vae_scale
        folded = rearrange(mask, "b 1 (h p) (w q) -> b (p q) h w", p=side, q=side).to(latents)
        return torch.cat([pack(latents), pack(folded)], dim=-1)

    @override
    def _sequence(
        self, x_t: Float[Tensor, "b c h w"], cond: Condition
    ) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "n three"]]:
        tokens, ids = super()._sequence(x_t, cond)
        beside = cond.extra["reference"] if "reference" in cond.extra else self._nothing(x_t)
        return torch.cat([tokens, beside.to(tokens).expand(len(tokens), -1, -1)], dim=-1), ids

    def _nothing(self, x_t: Float[Tensor, "b c h w"]) -> Float[Tensor, "1 n k"]:
        """An empty picture of the latent's size, all of it masked; encoded once a size."""
        height, width = (side * self.vae_scale for side in x_t.shape[-2:])
        if (height, width) not in self._empty:
            picture = torch.full((1, 3, height, width), EMPTY, device=x_t.device)
            self._empty[height, width] = self._kept(picture, torch.ones_like(picture[:, :1]))
        return self._empty[height, width]
