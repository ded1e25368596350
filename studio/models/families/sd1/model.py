"""Stable Diffusion 1.x and 2.x: a U-Net with cross-attention to one CLIP text encoder."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.models.base import Family
from studio.models.chain import on_grid
from studio.models.text import encode_clip


class StableDiffusion(Family):
    """SD 1.x and 2.x (eps or v-prediction)."""

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        encoder = self.text_encoders["text_encoder"]
        with self.present(encoder), self.backend.autocast():
            found = encode_clip(
                encoder, self.tokenizers["tokenizer"], prompts, text=self.text, penultimate=False
            )
        return Condition(found.tokens, None, {"kinds": found.kinds, "ids": found.ids})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        return self.denoiser(x_t, on_grid(timestep), encoder_hidden_states=cond.tokens).sample
