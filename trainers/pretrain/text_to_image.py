"""studio-tiny: a latent diffusion model of captioned sticker scenes.

Rombach et al., 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752), with
v-prediction (Salimans & Ho, 2022, arXiv 2202.00512) and a noise schedule that ends in pure noise (Lin et al., 2024,
arXiv 2305.08891: without it the flat background colors come out gray). Departure: the text encoder is not a frozen CLIP but learns
together with the U-Net, since 64-pixel scenes need few words.
"""

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel
from typing_extensions import override

from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.trainer import Group, Loss
from studio.diffusion.process import NUM_TIMESTEPS, Discrete
from trainers.pretrain import config
from trainers.pretrain.latents import LATENT_CHANNELS, LATENT_SIZE, LatentRecipe
from trainers.pretrain.tokens import LENGTH, VOCABULARY

TEXT_WIDTH = 192


def noise_scheduler() -> DDIMScheduler:
    """The sampler, and with it the noise: Stable Diffusion's schedule, rescaled to end in pure noise."""
    return DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=True, prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )  # fmt: skip


def build_unet(widths: tuple[int, int]) -> UNet2DConditionModel:
    """An untrained U-Net with self- and cross-attention at both resolutions and in the middle."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
        block_out_channels=widths, down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2, cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


def text_config(width: int, layers: int) -> CLIPTextConfig:
    """A small CLIP text encoder over the embedded models' tokenizer."""
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
    )


class TextToImageRecipe(LatentRecipe):
    """Learns the U-Net and the text encoder."""

    name = "studio-tiny"
    settings: config.TextToImage

    @override
    def networks(self, backend: Backend) -> list[Group]:
        wanted = self.settings
        if wanted.start:
            unet = UNet2DConditionModel.from_pretrained(
                wanted.start, subfolder="unet", torch_dtype=torch.float32
            )
            text = CLIPTextModel.from_pretrained(
                wanted.start, subfolder="text_encoder", torch_dtype=torch.float32
            )
        else:
            unet, text = build_unet(wanted.widths), CLIPTextModel(text_config(TEXT_WIDTH, layers=2))
        self.unet, self.text_encoder = backend.place(unet, trains=True), backend.place(text, trains=True)
        self.process = Discrete(noise_scheduler().alphas_cumprod)
        return [Group(name="unet", module=self.unet), Group(name="text_encoder", module=self.text_encoder)]

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Mean square error of the velocity at uniformly drawn times."""
        clean = batch["latents"]
        t = self.process.sample_times(rng, len(clean))
        noise = rng.normal(*clean.shape)
        noisy = self.process.add_noise(clean, noise, t).contiguous(memory_format=torch.channels_last)
        states = self.text_encoder(batch["tokens"]).last_hidden_state
        predicted = self.unet(noisy, t * NUM_TIMESTEPS, states).sample
        return Loss(F.mse_loss(predicted, self.process.target(clean, noise, t, "v")))

    @override
    def pipeline(self) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            vae=self.vae, text_encoder=self.text_encoder, tokenizer=self.tokenizer, unet=self.unet,
            scheduler=noise_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
