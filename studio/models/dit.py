"""SD3, SD3.5 and FLUX.1: transformers with joint attention over text and image, trained by flow matching.

Axes: `b` batch, `c h w` latent, `l` text tokens, `n` image tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.process import NUM_TIMESTEPS, Flow
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
TRAINING_GUIDANCE = 1.0
"""What FLUX.1 dev's guidance input reads when a condition names none (diffusers' README trains with 1)."""


class StableDiffusion3(Family):
    """SD3 and SD3.5: two CLIP encoders and, if present, T5; text rows follow the image in joint attention."""

    name = "sd3"
    denoiser_name = "transformer"
    prediction = "flow"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.process = Flow(float(self.scheduler_base.config.shift))

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
        length = self.text.t5_tokens or 256
        encoder = self.text_encoders["text_encoder_3"]
        with self.present(encoder), self.backend.autocast():
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


class Flux(Family):
    """FLUX.1 dev and schnell: CLIP's pooled vector and T5 rows, which precede the image in joint attention."""

    name = "flux"
    denoiser_name = "transformer"
    prediction = "flow"
    distilled = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        base = self.scheduler_base.config
        self.process = Flow(1.0 if base.use_dynamic_shifting else float(base.shift))

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
        with self.present(t5), self.backend.autocast():
            tokenizer = self.tokenizers["tokenizer_2"]
            length = self.text.t5_tokens or 512
            found = encode_t5(t5, tokenizer, prompts, length=length, weighted=self.text.weights)
        return Condition(found.tokens, pooled, {"kinds": found.kinds})

    @override
    def _predict(
        self, x_t: Float[Tensor, "b c h w"], timestep: Float[Tensor, " b"], cond: Condition
    ) -> Float[Tensor, "b k h w"]:
        height, width = x_t.shape[-2] // 2, x_t.shape[-1] // 2
        packed = self.denoiser(
            hidden_states=pack(x_t),
            timestep=timestep / NUM_TIMESTEPS,
            guidance=self._guidance(x_t, cond),
            pooled_projections=cond.pooled,
            encoder_hidden_states=cond.tokens,
            txt_ids=x_t.new_zeros(cond.tokens.shape[1], 3),
            img_ids=cond.extra["img_ids"][0] if "img_ids" in cond.extra else image_ids(height, width).to(x_t),
        ).sample
        return unpack(packed, height)

    def _guidance(self, x_t: Tensor, cond: Condition) -> Tensor | None:
        if not self.denoiser_config.guidance_embeds:
            return None  # schnell: one guidance is built in
        return cond.extra.get("guidance", x_t.new_full((len(x_t),), TRAINING_GUIDANCE)).to(x_t)

    @override
    def _default_size(self) -> int:
        return int(self.vae.config.sample_size)


def pack(latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
    """2 x 2 patches as tokens."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpack(tokens: Float[Tensor, "b n k"], height: int) -> Float[Tensor, "b c h w"]:
    """Tokens back to a latent of `height` patches."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=2, q=2)


def image_ids(height: int, width: int) -> Float[Tensor, "n three"]:
    """Row and column of every image token; the first of the three axes is 0."""
    rows = repeat(torch.arange(height), "h -> (h w)", w=width)
    columns = repeat(torch.arange(width), "w -> (h w)", h=height)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).float()
