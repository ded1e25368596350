"""Qwen-Image: rows of Qwen2.5-VL precede the picture in joint attention.

Axes: `b` batch, `c h w` latent, `n` picture tokens.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.guidance import Guidance, classifier_free, keep_norm, rescale
from studio.diffusion.process import NUM_TIMESTEPS
from studio.models.base import Family
from studio.models.language import Reading, encode_chat, told_of_weights
from studio.models.packing import pack, unpack

BEFORE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
"""What stands before a prompt."""
AFTER = "<|im_end|>\n<|im_start|>assistant\n"


class QwenImage(Family):
    """Qwen-Image: rows of Qwen2.5-VL precede the picture in joint attention.

    Attributes:
        before: What stands before a prompt.
        dropped: Rows of it, which the denoiser does not see.
    """

    before, dropped = BEFORE, 34

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
        return self._read(prompts)

    def _read(self, prompts: Sequence[str], seen: str = "", **pictures: Tensor) -> Condition:
        """Prompts in the template, behind the tokens of pictures."""
        told_of_weights(self.card.title, prompts, self.text)
        encoder, tokenizer = self.text_encoders["text_encoder"], self.tokenizers["tokenizer"]
        reading = Reading(
            render=lambda prompt: f"{self.before}{seen}{prompt}{AFTER}",
            layers=(-1,),
            length=self.dropped + self.card.words.length,
            padding="longest",
            dropped=self.dropped,
        )
        with self.present(encoder), self.backend.autocast():
            found, there = encode_chat(encoder, tokenizer, prompts, reading, **pictures)
        return Condition(found.tokens, None, {"kinds": found.kinds, "mask": there})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        height, width = x_t.shape[-2] // 2, x_t.shape[-1] // 2
        tokens, mask = pack(x_t), cond.extra["mask"]
        looked, sizes = _looked_at(cond)
        packed = self.denoiser(
            hidden_states=torch.cat([tokens, *looked], dim=1),
            timestep=timestep / NUM_TIMESTEPS,
            encoder_hidden_states=cond.tokens,
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height, width), *sizes]] * len(x_t),
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


def _looked_at(cond: Condition) -> tuple[list[Tensor], list[tuple[int, int, int]]]:
    """Tokens of the pictures that a condition looks at, and their sizes: frames, rows, columns."""
    if "reference" not in cond.extra:
        return [], []
    sizes = [(1, int(height), int(width)) for height, width in cond.extra["reference_sizes"][0].tolist()]
    return [cond.extra["reference"].to(cond.tokens)], sizes
