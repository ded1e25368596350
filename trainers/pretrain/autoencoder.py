"""The autoencoder of the embedded models.

Encoder and decoder learn together from pixel differences alone: absolute, squared and between neighbors. There is no
adversarial term; 64-pixel stickers are flat enough to do without.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor

from studio.backend.core import Backend
from studio.backend.rng import Rng, mix
from studio.backend.shard import Shard
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss
from studio.data.sticker_config import Stickers
from studio.data.stickers import draw_scenes
from trainers.pretrain import config
from trainers.pretrain.pca import NUM_COMPONENTS, PatchPca, psnr, start_encoder
from trainers.pretrain.pictures import to_pictures

NUM_UNSEEN = 256
_UNSEEN_SEED = 10_000_019
"""Seed of the scenes that judge; training seeds are small numbers."""


class SceneSource:
    """Scenes composed on the fly: batch `n` is a function of (seed, n)."""

    def __init__(self, scenes: Stickers, length: int = 1 << 20) -> None:
        self.scenes, self.length = scenes, length

    def __len__(self) -> int:
        return self.length

    def stream(self, seed: int, first: int, shard: Shard) -> Iterator[Batch]:
        """Batches from step `first` on."""
        step = first
        while True:
            rng = torch.Generator().manual_seed(mix(seed, step, len("scenes")))
            drawn = draw_scenes(self.scenes, shard.total, rng)
            rows = slice(shard.start, shard.stop)
            yield {
                "images": drawn.images[rows],
                "labels": drawn.concepts[rows],
                "captions": drawn.captions[rows],
            }
            step += 1


def unseen_images(scenes: Stickers, count: int = NUM_UNSEEN) -> Float[Tensor, "b 3 64 64"]:
    """Scenes that no training run draws."""
    return draw_scenes(scenes, count, torch.Generator().manual_seed(_UNSEEN_SEED)).images


def fit_pca(scenes: Stickers, count: int = 2048) -> PatchPca:
    """The patch PCA of scenes of this kind."""
    images = draw_scenes(scenes, count, torch.Generator().manual_seed(_UNSEEN_SEED + 1)).images
    return PatchPca(((images + 1) * 127.5).round().to(torch.uint8))


class AutoencoderRecipe:
    """Learns `AutoencoderTiny` on sticker scenes."""

    def __init__(self, settings: config.Autoencoder) -> None:
        self.settings = settings

    def setup(self, backend: Backend) -> list[Group]:
        """Builds the autoencoder, or loads the one to go on from."""
        wanted = self.settings
        if wanted.start:
            model = AutoencoderTiny.from_pretrained(wanted.start, torch_dtype=torch.float32)
        else:
            model = build(wanted)
            start_encoder(model, fit_pca(wanted.scenes))
            start_gray(model)
        self.model = backend.place(model, trains=True)
        if wanted.train_encoder:
            return [Group(name="autoencoder", module=self.model)]
        self.model.encoder.requires_grad_(False)
        return [
            Group(name="encoder", module=self.model.encoder, trains=False),
            Group(name="decoder", module=self.model.decoder),
        ]

    def source(self) -> Source:
        """Scenes composed on the fly."""
        return SceneSource(self.settings.scenes)

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Absolute, squared and edge differences, and a pull of the latents towards zero."""
        images = batch["images"].contiguous(memory_format=torch.channels_last)
        latents = self.model.encoder(images)
        noisy = latents + self.settings.latent_noise * rng.normal(*latents.shape)
        error = self.model.decoder(noisy) - images
        across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
        edges = across.abs().mean() + down.abs().mean()
        squared = error.square().mean()
        total = (
            error.abs().mean()
            + 2 * squared
            + self.settings.edge_weight * edges
            + 1e-3 * latents.square().mean()
        )
        return Loss(total, {"psnr": -10 * (squared / 4).log10(), "latents": latents.square().mean().sqrt()})

    def prompts(self) -> list[str]:
        """One word: the preview shows unseen scenes above what comes back."""
        return ["unseen scenes"]

    def sample(self, request: Request, rng: Rng) -> Output:
        """Unseen scenes, first as they are and then through the autoencoder."""
        del rng
        images = unseen_images(self.settings.scenes, 16).to(next(self.model.parameters()).device)
        if request.batch is not None:
            images = request.batch["images"]
        return Output(images=to_pictures(torch.cat([images, self.reconstruct(images)])))

    @torch.no_grad()
    def reconstruct(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] through the autoencoder."""
        parts = [self.model.decoder(self.model.encoder(part)) for part in images.split(64)]
        return torch.cat(parts).clamp(-1, 1)

    def score(self) -> dict[str, float]:
        """PSNR on unseen scenes, beside that of the patch PCA of equal size."""
        images = unseen_images(self.settings.scenes)
        device = next(self.model.parameters()).device
        learned = psnr(self.reconstruct(images.to(device)).cpu(), images).mean().item()
        linear = psnr(fit_pca(self.settings.scenes).reconstruct(images), images).mean().item()
        return {"quality": learned, "psnr": learned, "pca_psnr": linear}

    def export(self, folder: Path) -> list[Path]:
        """Writes `vae/` in the diffusers layout, half precision, with its scores.

        A new encoder gets the scaling factor that brings its latents to unit variance.
        """
        copy = AutoencoderTiny.from_config(self.model.config)
        copy.load_state_dict(self.model.state_dict())
        if self.settings.train_encoder:
            images = unseen_images(self.settings.scenes).to(next(self.model.parameters()).device)
            with torch.no_grad():
                copy.register_to_config(scaling_factor=round(1 / self.model.encoder(images).std().item(), 3))
        copy.half().save_pretrained(folder / "vae")
        (folder / "scores.json").write_text(json.dumps(self.score(), indent=2) + "\n", "utf-8")
        return [folder / "vae", folder / "scores.json"]


@torch.no_grad()
def start_gray(model: AutoencoderTiny) -> None:
    """Lets the decoder start near mid-gray instead of far outside the range of pictures."""
    model.decoder.layers[-1].weight.mul_(0.3)
    model.decoder.layers[-1].bias.fill_(0.5)


def build(wanted: config.Autoencoder) -> AutoencoderTiny:
    """An untrained autoencoder of the wanted size."""
    return AutoencoderTiny(
        encoder_block_out_channels=(wanted.width,) * 4,
        decoder_block_out_channels=(wanted.width,) * 4,
        latent_channels=NUM_COMPONENTS,
        num_encoder_blocks=wanted.encoder_blocks,
        num_decoder_blocks=wanted.decoder_blocks,
        scaling_factor=1.0,
    )
