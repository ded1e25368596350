"""FLUX.1 dev and schnell: CLIP's pooled vector and T5 rows, which precede the picture in joint attention.

Axes: `b` batch, `c h w` latent, `n` image tokens.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.process import NUM_TIMESTEPS
from studio.models.base import Family
from studio.models.packing import image_ids, pack, unpack
from studio.models.text import encode_clip, encode_t5

TRAINING_GUIDANCE = 1.0
"""What FLUX.1 dev's guidance input reads when a condition names none (diffusers' README trains with 1)."""


class Flux(Family):
    """FLUX.1 dev and schnell: CLIP's pooled vector and T5 rows, which precede the image in joint attention."""

    @property
    @override
    def patch(self) -> int:
        return 2

    @property
    @override
    def spare_axis(self) -> int:
        return int(self.denoiser_config.axes_dims_rope[0])

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        clip, t5 = self.text_encoders["text_encoder"], self.text_encoders["text_encoder_2"]
        with self.present(clip), self.backend.autocast():
            pooled = encode_clip(
                clip, self.tokenizers["tokenizer"], prompts, text=self.text, penultimate=False
            ).pooled
        with self.present(t5), self.backend.exact():
            tokenizer = self.tokenizers["tokenizer_2"]
            length = self.text.t5_tokens or self.card.words.length
            found = encode_t5(t5, tokenizer, prompts, length=length, weighted=self.text.weights)
        return Condition(found.tokens, pooled, {"kinds": found.kinds})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        tokens, ids = self._sequence(x_t, cond)
        packed = self.denoiser(
            hidden_states=tokens,
            timestep=timestep / NUM_TIMESTEPS,
            guidance=self._guidance(x_t, cond),
            pooled_projections=cond.pooled,
            encoder_hidden_states=cond.tokens,
            txt_ids=x_t.new_zeros(cond.tokens.shape[1], 3),
            img_ids=ids,
        ).sample
        height, width = x_t.shape[-2] // 2, x_t.shape[-1] // 2
        return unpack(packed[:, : height * width], height)

    def _sequence(
        self, x_t: Float[Tensor, "b c h w"], cond: Condition
    ) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "n three"]]:
        """Tokens that the denoiser sees, those of the picture first, and where they stand."""
        own = image_ids(x_t.shape[-2] // 2, x_t.shape[-1] // 2).to(x_t)
        return pack(x_t), cond.extra["img_ids"][0] if "img_ids" in cond.extra else own

    def _guidance(self, x_t: Tensor, cond: Condition) -> Tensor | None:
        if not self.denoiser_config.guidance_embeds:
            return None  # schnell: one guidance is built in
        return cond.extra.get("guidance", x_t.new_full((len(x_t),), TRAINING_GUIDANCE)).to(x_t)
