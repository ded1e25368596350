"""studio-tiny: a latent diffusion model of captioned sticker scenes.

Rombach et al., 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752), with
v-prediction (Salimans & Ho, 2022, arXiv 2202.00512) and a noise schedule that ends in pure noise (Lin et al., 2024,
arXiv 2305.08891: without it the flat background colors come out gray). Departure: the text encoder is not a frozen CLIP but learns
together with the U-Net, since 64-pixel scenes need few words.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.backend.core import Backend
from studio.backend.rng import Rng, mix
from studio.data.cache import Cache, digest
from studio.data.sticker_config import Stickers
from studio.data.stickers import Plan, compose, plan_scenes, write_captions
from studio.diffusion.process import NUM_TIMESTEPS, Discrete
from studio.models.base import weights_fingerprint
from studio.trainer import Batch, Group, Loss, Output, Request, Shard, Source
from trainers.pretrain import config
from trainers.pretrain.tokens import LENGTH, VOCABULARY, build_tokenizer

LATENT_CHANNELS = 16
LATENT_SIZE = 8
TEXT_WIDTH = 192
_CAPTIONS_EACH = 4
"""Wordings of each scene; one of them is drawn whenever the scene is."""
_POOL_SEED = 20_000_003
_PROMPTS = (
    "a sticker of a fox on a green background", "a sticker of a panda on a cloudy blue sky",
    "a 3d sticker of a car on a yellow background", "a flat sticker of a strawberry on a wooden table",
    "a sticker of a penguin on a red background", "a sticker of a cactus on sand",
    "a 3d sticker of a rocket on a starry night sky", "a sticker of a guitar on a blue background",
    "a sticker of an owl on green grass", "a sticker of a pizza on a purple background",
    "a flat sticker of a sailboat on blue water", "a sticker of a hamburger on a white background",
    "a sticker of a frog on a pink background", "a sticker of a crown on a brick wall",
    "a sticker of an animal on a teal background", "a sticker of a food on an orange background",
)  # fmt: skip


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


def build_text_encoder() -> CLIPTextModel:
    """An untrained two-layer CLIP text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=VOCABULARY - 2,
            eos_token_id=VOCABULARY - 1,
            pad_token_id=VOCABULARY - 1,
        )
    )


class LatentSource:
    """A fixed pool of scenes, each encoded once, with several captions; batch `n` is a function of (seed, n)."""

    def __init__(
        self,
        latents: Float[Tensor, "n c h w"],
        tokens: Int[Tensor, "n k l"],
        empty: Int[Tensor, " l"],
        dropout: float,
    ) -> None:
        self.latents, self.tokens, self.empty, self.dropout = latents, tokens, empty, dropout

    def __len__(self) -> int:
        return len(self.latents)

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on; some captions are empty."""
        step = first
        while True:
            rng = torch.Generator().manual_seed(mix(seed, step, len("latents")))
            rows = torch.randint(len(self), (shard.total,), generator=rng)
            wording = torch.randint(self.tokens.shape[1], (shard.total,), generator=rng)
            silent = torch.rand(shard.total, generator=rng) < self.dropout
            tokens = torch.where(silent[:, None], self.empty, self.tokens[rows, wording])
            part = slice(shard.start, shard.stop)
            yield {"latents": self.latents[rows[part]], "tokens": tokens[part]}
            step += 1


@torch.no_grad()
def encode_pool(
    vae: AutoencoderTiny, tokenizer: CLIPTokenizer, scenes: Stickers, count: int, device: torch.device
) -> dict[str, Tensor]:
    """Draws and encodes `count` scenes: their scaled latents, and the tokens of several captions of each."""
    rng = torch.Generator().manual_seed(_POOL_SEED)
    latents, tokens = [], []
    for first in range(0, count, 128):
        plan = plan_scenes(scenes, min(128, count - first), rng)
        drawn = compose(plan, scenes, device)
        latents.append(vae.encode(drawn.images).latents.float().cpu() * vae.config.scaling_factor)
        wordings = [_reworded(plan, scenes, drawn.places, rng) for _ in range(_CAPTIONS_EACH)]
        tokens.append(torch.stack([tokenize(tokenizer, captions) for captions in wordings], 1))
    return {"latents": torch.cat(latents), "tokens": torch.cat(tokens)}


def _reworded(plan: Plan, scenes: Stickers, places: list[str], rng: torch.Generator) -> list[str]:
    numbers = plan.numbers.clone()
    numbers[:, 17:19] = torch.rand(len(numbers), 2, generator=rng)
    return write_captions(replace(plan, numbers=numbers), scenes, places)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Int[Tensor, "b l"]:
    """Token numbers, padded to the fixed length."""
    return tokenizer(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


class TextToImageRecipe:
    """Learns the U-Net and the text encoder on the latents of a finished autoencoder."""

    def __init__(self, settings: config.TextToImage) -> None:
        self.settings = settings

    def setup(self, backend: Backend) -> list[Group]:
        """Loads the autoencoder; builds the rest or loads what to go on from."""
        wanted = self.settings
        self.vae = backend.place(
            AutoencoderTiny.from_pretrained(wanted.autoencoder, torch_dtype=torch.float32)
        )
        self.device = backend.device
        if wanted.start:
            unet = UNet2DConditionModel.from_pretrained(
                wanted.start, subfolder="unet", torch_dtype=torch.float32
            )
            text = CLIPTextModel.from_pretrained(
                wanted.start, subfolder="text_encoder", torch_dtype=torch.float32
            )
        else:
            unet, text = build_unet(wanted.widths), build_text_encoder()
        self.unet, self.text_encoder = backend.place(unet, trains=True), backend.place(text, trains=True)
        self.tokenizer = build_tokenizer()
        self.process = Discrete(noise_scheduler().alphas_cumprod)
        return [Group(name="unet", module=self.unet), Group(name="text_encoder", module=self.text_encoder)]

    def source(self) -> Source:
        """A pool of encoded scenes, kept on disk for the next time."""
        wanted = self.settings
        key = digest(
            weights_fingerprint(self.vae),
            self.tokenizer.backend_tokenizer.to_str(),
            repr(wanted.scenes),
            str(wanted.num_scenes),
        )
        pool = Cache(Path(wanted.cache)).get(
            key, lambda: encode_pool(self.vae, self.tokenizer, wanted.scenes, wanted.num_scenes, self.device)
        )
        return LatentSource(
            pool["latents"], pool["tokens"], tokenize(self.tokenizer, [""])[0], wanted.caption_dropout
        )

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Mean square error of the velocity at uniformly drawn times."""
        clean = batch["latents"]
        t = self.process.sample_times(rng, len(clean))
        noise = rng.normal(*clean.shape)
        noisy = self.process.add_noise(clean, noise, t).contiguous(memory_format=torch.channels_last)
        states = self.text_encoder(batch["tokens"]).last_hidden_state
        predicted = self.unet(noisy, t * NUM_TIMESTEPS, states).sample
        return Loss(F.mse_loss(predicted, self.process.target(clean, noise, t, "v")))

    def prompts(self) -> list[str]:
        """Prompts of the fixed previews."""
        return list(_PROMPTS)

    def pipeline(self) -> StableDiffusionPipeline:
        """A plain diffusers pipeline around the modules as they are."""
        return StableDiffusionPipeline(
            vae=self.vae, text_encoder=self.text_encoder, tokenizer=self.tokenizer, unet=self.unet,
            scheduler=noise_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip

    def sample(self, request: Request, rng: Rng) -> Output:
        """One picture a prompt."""
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        shape = (len(request.prompts), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        latents = torch.randn(shape, generator=rng.generator).to(self.device)
        drawn = pipeline(
            list(request.prompts),
            latents=latents,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
        )
        return Output(images=drawn.images)

    def score(self) -> dict[str, float]:
        """No score while training: `trainers.pretrain.evaluate` judges the exported model."""
        return {}

    def export(self, folder: Path) -> list[Path]:
        """Writes the whole pipeline in the diffusers layout, half precision."""
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.backend_tokenizer.no_truncation()
        self.pipeline().save_pretrained(folder / "studio-tiny")
        half = StableDiffusionPipeline.from_pretrained(folder / "studio-tiny", torch_dtype=torch.float16)
        half.save_pretrained(folder / "studio-tiny")
        return [folder / "studio-tiny"]
