"""SDXL: two CLIP encoders side by side, a pooled vector, and the picture's size as an input.

Axes: `b` batch, `c h w` latent.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.models.base import Family
from studio.models.chain import on_grid
from studio.models.text import encode_clip


class StableDiffusionXL(Family):
    """SDXL: two CLIP encoders side by side, a pooled vector, and the picture's size as an input."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.zeros_for_empty = bool(self.pipeline_config["force_zeros_for_empty_prompt"])

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        """Embedded prompts; an empty prompt is all zeros where the model was trained so."""
        both = []
        for suffix in ("", "_2"):
            encoder = self.text_encoders[f"text_encoder{suffix}"]
            with self.present(encoder), self.backend.autocast():
                tokenizer = self.tokenizers[f"tokenizer{suffix}"]
                both.append(encode_clip(encoder, tokenizer, prompts, text=self.text, penultimate=True))
        tokens, pooled = torch.cat([one.tokens for one in both], dim=-1), both[1].pooled
        if self.zeros_for_empty:
            filled = torch.tensor([prompt != "" for prompt in prompts], device=tokens.device)
            tokens = tokens * filled[:, None, None]
            pooled = pooled * filled[:, None]
        return Condition(tokens, pooled, {"kinds": both[0].kinds, "ids": both[0].ids})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        added = {"text_embeds": cond.pooled, "time_ids": self._time_ids(x_t, cond)}
        return self.denoiser(
            x_t, on_grid(timestep), encoder_hidden_states=cond.tokens, added_cond_kwargs=added
        ).sample

    @override
    def with_sizes(self, cond: Condition, sizes: Int[Tensor, "b 6"] | None) -> Condition:
        return cond if sizes is None else cond.with_extra(time_ids=sizes)

    def _time_ids(self, x_t: Float[Tensor, "b c h w"], cond: Condition) -> Float[Tensor, "b six"]:
        if "time_ids" in cond.extra:
            return cond.extra["time_ids"].to(x_t)
        size = [x_t.shape[-2] * self.vae_scale, x_t.shape[-1] * self.vae_scale]
        return repeat(torch.tensor([*size, 0, 0, *size]).to(x_t), "six -> b six", b=len(x_t))
