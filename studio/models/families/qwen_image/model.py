"""Qwen-Image: rows of Qwen2.5-VL precede the picture in joint attention.

Axes: `b` batch, `c h w` latent, `n` picture tokens.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.guidance import Guidance, classifier_free, keep_norm, rescale
from studio.diffusion.process import NUM_TIMESTEPS
from studio.models.base import Family
from studio.models.packing import pack, unpack
from studio.models.templated import Template, Tokens, last_rows, refuse_weights, templated

TEMPLATE = Template(
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
    dropped=34,
)


class QwenImage(Family):
    """Qwen-Image: rows of Qwen2.5-VL precede the picture in joint attention."""

    template = TEMPLATE

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
        refuse_weights(prompts, asked=self.text.weights, title=self.card.title)
        tokens = templated(self.tokenizers["tokenizer"], prompts, self.template, self.card.words.length)
        return self._read(tokens)

    def _read(self, tokens: Tokens, **pictures: Tensor) -> Condition:
        """What the denoiser is told of prompts in the template."""
        encoder, first = self.text_encoders["text_encoder"], self.template.dropped
        with self.present(encoder), self.backend.autocast():
            rows = last_rows(encoder, tokens, **pictures)[:, first:]
        mask, kinds = tokens.mask[:, first:].to(rows.device), tokens.kinds[:, first:].to(rows.device)
        return Condition(rows * mask.unsqueeze(-1), None, {"kinds": kinds, "mask": mask})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        height, width = x_t.shape[-2] // 2, x_t.shape[-1] // 2
        tokens, sizes = pack(x_t), [(1, height, width)]
        mask = cond.extra["mask"]
        packed = self.denoiser(
            hidden_states=tokens,
            timestep=timestep / NUM_TIMESTEPS,
            encoder_hidden_states=cond.tokens,
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[sizes] * len(x_t),
        ).sample
        return unpack(packed[:, : tokens.shape[1]], height)

    @override
    def guide(
        self,
        conditional: Float[Tensor, "b c h w"],
        unconditional: Float[Tensor, "b c h w"],
        guidance: Guidance,
    ) -> Float[Tensor, "b c h w"]:
        height = conditional.shape[-2] // 2
        guided = pack(classifier_free(conditional, unconditional, guidance.scale))
        kept = unpack(keep_norm(guided, pack(conditional)), height)
        return rescale(kept, conditional, guidance.phi)
