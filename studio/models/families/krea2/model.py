"""Krea 2: one stream over rows of Qwen3-VL, each from several of its layers, and after them the picture.

Words stand at the origin of all position axes, so that padding between a prompt and what follows it in the pipeline's
template moves nothing: here there is none. Axes: `b` batch, `c h w` latent, `l` rows, `k` layers read, `d` width.
"""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.process import NUM_TIMESTEPS
from studio.models.base import Family
from studio.models.families.qwen_image.model import AFTER, BEFORE
from studio.models.language import Reading, encode_chat, told_of_weights
from studio.models.packing import image_ids, pack, unpack

DROPPED = 34
"""Rows of the template that the denoiser does not see."""
DISTILLED_MU = 1.15
"""Logarithm of the shift of the distilled model, whatever the size."""


class Krea2(Family):
    """Krea 2 Raw and Turbo."""

    @property
    @override
    def patch(self) -> int:
        return int(self.pipeline_config["patch_size"])

    @property
    @override
    def spare_axis(self) -> int:
        return int(self.denoiser_config.axes_dims_rope[0])

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        told_of_weights(self.card.title, prompts, self.text)
        encoder, tokenizer = self.text_encoders["text_encoder"], self.tokenizers["tokenizer"]
        reading = Reading(
            render=lambda prompt: f"{BEFORE}{prompt}{AFTER}",
            layers=self.pipeline_config["text_encoder_select_layers"],
            length=DROPPED + self.card.words.length,
            padding="longest",
            dropped=DROPPED,
            keeps_end=True,
        )
        with self.present(encoder), self.backend.autocast():
            found, there = encode_chat(encoder, tokenizer, prompts, reading)
        return Condition(found.tokens, None, {"kinds": found.kinds, "mask": there})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        height, width = x_t.shape[-2] // 2, x_t.shape[-1] // 2
        rows = rearrange(cond.tokens, "b l (k d) -> b l k d", k=self.denoiser_config.num_text_layers)
        packed = self.denoiser(
            hidden_states=pack(x_t),
            encoder_hidden_states=rows,
            timestep=timestep / NUM_TIMESTEPS,
            position_ids=F.pad(image_ids(height, width), (0, 0, rows.shape[1], 0)).to(x_t),
            encoder_attention_mask=cond.extra["mask"],
        ).sample
        return unpack(packed, height)

    @override
    def _mu(self, tokens: int, steps: int) -> float:
        return DISTILLED_MU if self.pipeline_config["is_distilled"] else super()._mu(tokens, steps)
