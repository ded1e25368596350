"""Z-Image: one stream over the picture and, after it, Qwen3's rows; each prompt has as many rows as tokens.

The network takes lists, its time is 1 - t (1 = data), and what it gives is x0 - eps. Axes: `b` batch, `c h w` latent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.process import NUM_TIMESTEPS
from studio.models.base import Family
from studio.models.language import Reading, chat, encode_chat, told_of_weights

LAYER = -2
"""The hidden state that it reads: the last but one."""


class ZImage(Family):
    """Z-Image and Z-Image-Turbo."""

    @property
    @override
    def patch(self) -> int:
        return 2

    @property
    @override
    def spare_axis(self) -> int:
        return int(self.denoiser_config.axes_dims[0])

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        told_of_weights(self.card.title, prompts, self.text)
        encoder, tokenizer = self.text_encoders["text_encoder"], self.tokenizers["tokenizer"]
        reading = Reading(
            render=chat(tokenizer, add_generation_prompt=True, enable_thinking=True),
            layers=(LAYER,),
            length=min(self.card.words.length, int(tokenizer.model_max_length)),
            padding="longest",
        )
        with self.present(encoder), self.backend.autocast():
            found, there = encode_chat(encoder, tokenizer, prompts, reading)
        return Condition(found.tokens, None, {"kinds": found.kinds, "mask": there})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        rows = [tokens[there] for tokens, there in zip(cond.tokens, cond.extra["mask"], strict=True)]
        pictures = list(x_t.unsqueeze(2))  # one frame each
        found = self.denoiser(x=pictures, t=1 - timestep / NUM_TIMESTEPS, cap_feats=rows).sample
        return -torch.stack(found).squeeze(2)

    @override
    def _text_length(self, call: Mapping[str, Any]) -> int:
        multiple = self.card.layers.entry_multiple
        return max(len(rows) + -len(rows) % multiple for rows in call["cap_feats"])
