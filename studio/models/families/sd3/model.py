"""SD3 and SD3.5: two CLIP encoders and, if present, T5; text rows follow the picture in joint attention.

Axes: `b` batch, `c h w` latent.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.models.base import Family
from studio.models.text import encode_clip, encode_t5

CLIP_LENGTH = 77
"""Tokens that the CLIP encoders of SD3 read."""
EMPTY_T5_ROWS = 256
"""Rows of zeros where SD3 is used without T5 (diffusers' default)."""
EMPTY_T5_ROWS_OF_SMALL_MODELS = 1
"""The same in models whose CLIP encoders read less: they are ours, and trained with it (`trainers/pretrain/dit.py`)."""
NO_ID = -1
"""Stands for the numbers of T5's tokens, which are not CLIP's, in a condition's ids."""


class StableDiffusion3(Family):
    """SD3 and SD3.5: two CLIP encoders and, if present, T5; text rows follow the image in joint attention."""

    @property
    @override
    def patch(self) -> int:
        return int(self.denoiser_config.patch_size)

    @override
    def embed(self, prompts: Sequence[str]) -> Condition:
        clips = []
        for suffix in ("", "_2"):
            encoder = self.text_encoders[f"text_encoder{suffix}"]
            with self.present(encoder), self.backend.autocast():
                tokenizer = self.tokenizers[f"tokenizer{suffix}"]
                clips.append(encode_clip(encoder, tokenizer, prompts, text=self.text, penultimate=True))
        width = int(self.denoiser_config.joint_attention_dim)
        rows = torch.cat([clip.tokens for clip in clips], dim=-1)
        rows = F.pad(rows, (0, width - rows.shape[-1]))
        t5, t5_kinds = self._t5(prompts, rows)
        pooled = torch.cat([clip.pooled for clip in clips], dim=-1)
        kinds = torch.cat([clips[0].kinds, t5_kinds], dim=1)
        ids = torch.cat([clips[0].ids, torch.full_like(t5_kinds, NO_ID)], dim=1)
        return Condition(torch.cat([rows, t5], dim=1), pooled, {"kinds": kinds, "ids": ids})

    def _t5(self, prompts: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor]:
        if "text_encoder_3" not in self.text_encoders:
            small = int(self.tokenizers["tokenizer"].model_max_length) < CLIP_LENGTH
            length = self.text.t5_tokens or (EMPTY_T5_ROWS_OF_SMALL_MODELS if small else EMPTY_T5_ROWS)
            zeros = like.new_zeros(len(prompts), length, like.shape[-1])
            return zeros, torch.zeros(zeros.shape[:2], dtype=torch.long, device=like.device)
        length = self.text.t5_tokens or self.card.words.length
        encoder = self.text_encoders["text_encoder_3"]
        with self.present(encoder), self.backend.exact():
            found = encode_t5(
                encoder, self.tokenizers["tokenizer_3"], prompts, length=length, weighted=self.text.weights
            )
        return found.tokens.to(like), found.kinds

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        return self.denoiser(
            hidden_states=x_t,
            timestep=timestep,
            encoder_hidden_states=cond.tokens,
            pooled_projections=cond.pooled,
        ).sample
