"""studio-tiny-dit: a small transformer of Stable Diffusion 3's layout, trained by flow matching on the same scenes.

Esser et al., 2024, "Scaling Rectified Flow Transformers" (arXiv 2403.03206): joint attention over text and image rows,
a straight line from data to noise, logit-normal times. The modulations and the last layer start at zero (Peebles & Xie,
2023, arXiv 2212.09748). Departures: two small CLIP text encoders learn with the transformer; T5 is absent, and the rows
of zeros that stand for it are one instead of 256.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.trainer import Group, Loss
from studio.diffusion.process import NUM_TIMESTEPS, Flow
from studio.models.families.sd3.model import EMPTY_T5_ROWS_OF_SMALL_MODELS as T5_ROWS
from studio.models.files import from_folder
from trainers.pretrain import config
from trainers.pretrain.latents import LATENT_CHANNELS, LATENT_SIZE, LatentRecipe
from trainers.pretrain.text_to_image import text_config

TEXT_WIDTHS = (96, 32)
_ENCODERS = ("text_encoder", "text_encoder_2")


def build_transformer(width: int, depth: int, heads: int) -> SD3Transformer2DModel:
    """An untrained transformer whose tokens are single latents; every block starts as the identity."""
    model = SD3Transformer2DModel(
        sample_size=LATENT_SIZE, patch_size=1, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        num_layers=depth, attention_head_dim=width // heads, num_attention_heads=heads,
        joint_attention_dim=sum(TEXT_WIDTHS), pooled_projection_dim=sum(TEXT_WIDTHS), caption_projection_dim=width,
        pos_embed_max_size=2 * LATENT_SIZE, qk_norm="rms_norm",
    )  # fmt: skip
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and (name == "proj_out" or "norm" in name):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return model


class DitRecipe(LatentRecipe):
    """Learns the transformer and both text encoders."""

    name = "studio-tiny-dit"
    settings: config.Dit

    @override
    def networks(self, backend: Backend) -> list[Group]:
        wanted = self.settings
        if wanted.start:
            start = from_folder(Path(wanted.start), torch.float32)
            made = {name: start.components[name] for name in ("transformer", *_ENCODERS)}
        else:
            made = {"transformer": build_transformer(wanted.width, wanted.depth, wanted.heads)}
            for name, width in zip(_ENCODERS, TEXT_WIDTHS, strict=True):
                made[name] = CLIPTextModelWithProjection(text_config(width, layers=2))
        self.parts = {name: backend.place(module, trains=True) for name, module in made.items()}
        self.process = Flow()
        return [Group(name=name, module=module) for name, module in self.parts.items()]

    def _embed(self, tokens: Int[Tensor, "b l"]) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b d"]]:
        """Rows and pooled vectors as StableDiffusion3Pipeline makes them."""
        said = [self.parts[name](tokens, output_hidden_states=True) for name in _ENCODERS]
        rows = torch.cat([each.hidden_states[-2] for each in said], -1)
        return F.pad(rows, (0, 0, 0, T5_ROWS)), torch.cat([each.text_embeds for each in said], -1)

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Mean square error of the velocity from data to noise at logit-normal times."""
        clean = batch["latents"]
        t = self.process.sample_times(rng, len(clean))
        noise = rng.normal(*clean.shape)
        rows, pooled = self._embed(batch["tokens"])
        predicted = self.parts["transformer"](
            hidden_states=self.process.add_noise(clean, noise, t),
            timestep=t * NUM_TIMESTEPS,
            encoder_hidden_states=rows,
            pooled_projections=pooled,
        ).sample
        return Loss(F.mse_loss(predicted, self.process.target(clean, noise, t, "flow")))

    @override
    def pipeline(self) -> StableDiffusion3Pipeline:
        return StableDiffusion3Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=self.process.shift), vae=self.vae, **self.parts,
            tokenizer=self.tokenizer, tokenizer_2=self.tokenizer, text_encoder_3=None, tokenizer_3=None,
        )  # fmt: skip

    @override
    def options(self) -> dict[str, Any]:
        return {"max_sequence_length": T5_ROWS}
