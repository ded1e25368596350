"""FLUX.1 Kontext: a picture to be changed follows the drawn one, its tokens one step away on the first position axis.

Batifol, Blattmann, Boesel et al. 2025, FLUX.1 Kontext, arXiv 2506.15742, section 3: positions (1, h, w) for the context.

Axes: `b` batch, `c h w` latent, `n` tokens of the drawn picture, `m` of the one looked at.
"""

from collections.abc import Sequence

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from einops import repeat
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.models.families.flux.model import Flux
from studio.models.packing import image_ids, pack


class FluxKontext(Flux):
    """FLUX.1 Kontext: FLUX.1 with the tokens of a picture behind its own."""

    @override
    def embed_with(
        self, prompts: Sequence[str], references: Sequence[Image.Image], height: int, width: int
    ) -> Condition:
        """The picture is brought to one of the sizes of the training, whatever size is drawn."""
        self.check_references(references, "the picture to be changed")
        width, height = preferred(*references[0].size)
        reader = VaeImageProcessor(vae_scale_factor=self.size_multiple)
        with torch.no_grad():
            latents = self.encode(reader.preprocess(references[0].convert("RGB"), height, width))
        ids = image_ids(latents.shape[-2] // 2, latents.shape[-1] // 2).to(latents)
        ids[:, 0] = 1
        rows = len(prompts)
        return self.embed(prompts).with_extra(
            reference=repeat(pack(latents), "1 m k -> b m k", b=rows),
            reference_ids=repeat(ids, "m three -> b m three", b=rows),
        )

    @override
    def _sequence(
        self, x_t: Float[Tensor, "b c h w"], cond: Condition
    ) -> tuple[Float[Tensor, "b n_m k"], Float[Tensor, "n_m three"]]:
        tokens, ids = super()._sequence(x_t, cond)
        if "reference" not in cond.extra:
            return tokens, ids
        seen, places = cond.extra["reference"].to(tokens), cond.extra["reference_ids"][0].to(ids)
        return torch.cat([tokens, seen], dim=1), torch.cat([ids, places])


def preferred(width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels of the training's size that is nearest in shape (as diffusers' pipeline chooses)."""
    shape = width / height
    _, width, height = min((abs(shape - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
    return width, height
