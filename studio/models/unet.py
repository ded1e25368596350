"""Stable Diffusion 1.x, 2.x (eps or v-prediction) and SDXL: a U-Net with cross-attention.

Axes: `b` batch, `c h w` latent.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from studio.contracts.condition import Condition
from studio.diffusion.config import Prediction
from studio.diffusion.process import Discrete
from studio.errors import unknown
from studio.models.base import Family
from studio.models.text import encode_clip

_KINDS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}


def discrete_process(base: SchedulerMixin) -> tuple[Discrete, Prediction]:
    """Noise process and prediction kind that a model's scheduler settings describe."""
    kind = base.config.prediction_type
    if kind not in _KINDS:
        raise unknown("prediction type of the model's scheduler", kind, _KINDS)
    chain: Any = DDIMScheduler.from_config(base.config)
    return Discrete(chain.alphas_cumprod), _KINDS[kind]


class StableDiffusion(Family):
    """SD 1.x and 2.x: one CLIP text encoder."""

    denoiser_name = "unet"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.process, self.prediction = discrete_process(self.scheduler_base)
        encoder: Any = self.text_encoders["text_encoder"]
        self.name = "sd2" if encoder.config.hidden_act == "gelu" else "sd1"

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


class StableDiffusionXL(Family):
    """SDXL: two CLIP encoders side by side, a pooled vector, and the picture's size as an input."""

    name = "sdxl"
    denoiser_name = "unet"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.process, self.prediction = discrete_process(self.scheduler_base)
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


def on_grid(timestep: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Timesteps that rounding moved off a whole number, put back on it."""
    whole = timestep.round()
    return torch.where((timestep - whole).abs() < 1e-3, whole, timestep).clamp(max=999)
