"""What text-to-image models learn from: a pool of scenes, encoded once, with several captions each.

`LatentRecipe` is what every such model has in common: the finished autoencoder, the pool, the prompts of its previews
and how it is written. The networks, the loss and the pipeline are the model's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTokenizer

from studio.backend.core import Backend
from studio.backend.rng import Rng, mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss
from studio.data.cache import Cache, digest
from studio.data.sticker_config import Stickers
from studio.data.stickers import Plan, compose, plan_scenes, write_captions
from studio.models.files import from_folder
from studio.models.fingerprint import fingerprint
from trainers.pretrain import config
from trainers.pretrain.tokens import LENGTH, build_tokenizer

LATENT_CHANNELS = 16
LATENT_SIZE = 8
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


class LatentRecipe(ABC):
    """Learns a denoiser and its text encoders on the latents of a finished autoencoder."""

    name: str
    """Of the folder that the pipeline is written to."""

    def __init__(self, settings: config.Latents) -> None:
        self.settings = settings

    def setup(self, backend: Backend) -> list[Group]:
        """Loads the autoencoder; builds the rest or loads what to go on from."""
        self.vae = backend.place(
            AutoencoderTiny.from_pretrained(self.settings.autoencoder, torch_dtype=torch.float32)
        )
        self.backend = backend
        self.tokenizer = build_tokenizer()
        return self.networks(backend)

    @abstractmethod
    def networks(self, backend: Backend) -> list[Group]:
        """Builds what learns, or loads it."""

    @abstractmethod
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """The objective."""

    @abstractmethod
    def pipeline(self) -> DiffusionPipeline:
        """A plain diffusers pipeline around the modules as they are."""

    def options(self) -> dict[str, Any]:
        """Arguments that the pipeline needs besides the usual ones."""
        return {}

    def source(self) -> Source:
        """A pool of encoded scenes, kept on disk for the next time."""
        wanted = self.settings
        key = digest(
            fingerprint(self.vae),
            fingerprint(self.tokenizer),
            repr(wanted.scenes),
            str(wanted.num_scenes),
        )
        pool = Cache(Path(wanted.cache)).get(
            key,
            lambda: encode_pool(
                self.vae, self.tokenizer, wanted.scenes, wanted.num_scenes, self.backend.device
            ),
        )
        return LatentSource(
            pool["latents"], pool["tokens"], tokenize(self.tokenizer, [""])[0], wanted.caption_dropout
        )

    def prompts(self) -> list[str]:
        """Prompts of the fixed previews."""
        return list(_PROMPTS)

    def sample(self, request: Request, rng: Rng) -> Output:
        """One picture a prompt."""
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        shape = (len(request.prompts), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        latents = torch.randn(shape, generator=rng.generator).to(self.backend.device)
        drawn = pipeline(
            list(request.prompts),
            latents=latents,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            **self.options(),
        )
        return Output(images=drawn.images)

    def score(self) -> dict[str, float]:
        """No score while training: `trainers.pretrain.evaluate` judges the exported model."""
        return {}

    def export(self, folder: Path) -> list[Path]:
        """Writes the whole pipeline in the diffusers layout, half precision."""
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.backend_tokenizer.no_truncation()
        self.pipeline().save_pretrained(folder / self.name)
        from_folder(folder / self.name, torch.float16).save_pretrained(folder / self.name)
        return [folder / self.name]
