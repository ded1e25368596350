"""Pictures to the latents that a denoiser wants, and back: one codec a kind of autoencoder.

Axes: `b` pictures, `C H W` picture in [-1, 1], `c h w` latent as the denoiser sees it, `k` channels of the autoencoder.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers import AutoencoderTiny
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from studio.models.moments import Moments

PIXELS = 1024 * 1024
"""Of pictures decoded at once: an autoencoder's activations are the largest of all, 1.5 GiB a megapixel of SDXL's."""


class Codec(ABC):
    """What an autoencoder's latents are scaled by, and their shape.

    Attributes:
        vae: The autoencoder.
        scale: Pixels a latent, along a side.
        channels: Of a latent.
    """

    scale: int
    channels: int

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        config = vae.config
        self.scale = 2 ** (len(config.block_out_channels) - 1)
        self.channels = int(config.latent_channels)

    def moments(self, images: Float[Tensor, "b C H W"]) -> Moments:
        """The distribution of the scaled latents of images."""
        found = self.vae.encode(self._picture(images)).latent_dist
        return Moments(
            self._scaled(self._flat(found.mode()).float()), self._spread(self._flat(found.std).float())
        )

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b C H W"]:
        """Images of scaled latents, not clamped."""
        own = self._unscaled(latents).to(self.vae.dtype)
        height, width = latents.shape[-2:]
        rows = max(1, PIXELS // (height * width * self.scale**2))
        parts = [self._still(self.vae.decode(self._clip(part)).sample) for part in own.split(rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @abstractmethod
    def _scaled(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents as the denoiser wants them."""

    @abstractmethod
    def _unscaled(self, latents: Tensor) -> Tensor:
        """The inverse."""

    @abstractmethod
    def _spread(self, std: Tensor) -> Tensor:
        """`_scaled` of a standard deviation."""

    def _picture(self, images: Tensor) -> Tensor:
        return images.to(self.vae.dtype)

    def _flat(self, latents: Tensor) -> Tensor:
        return latents

    def _clip(self, latents: Tensor) -> Tensor:
        return latents

    def _still(self, images: Tensor) -> Tensor:
        return images


class Scaled(Codec):
    """z = (latent - shift) * scale: SD, SDXL, SD3, FLUX.1, Z-Image."""

    @override
    def _scaled(self, latents: Tensor) -> Tensor:
        return (latents - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    @override
    def _unscaled(self, latents: Tensor) -> Tensor:
        return latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)

    @override
    def _spread(self, std: Tensor) -> Tensor:
        return std * self.vae.config.scaling_factor


class Tiny(Scaled):
    """AutoencoderTiny: scaled as the model that it was distilled from, and without a distribution."""

    @override
    def moments(self, images: Float[Tensor, "b C H W"]) -> Moments:
        return Moments(self._scaled(self.vae.encode(self._picture(images)).latents.float()))


class Standardized(Codec):
    """z = (latent - mean) / std, by channel; the autoencoder is one of films (Qwen-Image, Krea 2)."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.scale = 2 ** len(vae.config.temperal_downsample)
        self.channels = int(vae.config.z_dim)

    def _statistic(self, name: str, like: Tensor) -> Float[Tensor, "1 c 1 1"]:
        values = torch.tensor(self.vae.config[name], dtype=torch.float32, device=like.device)
        return rearrange(values, "c -> 1 c 1 1")

    @override
    def _scaled(self, latents: Tensor) -> Tensor:
        return (latents - self._statistic("latents_mean", latents)) / self._statistic("latents_std", latents)

    @override
    def _unscaled(self, latents: Tensor) -> Tensor:
        return latents * self._statistic("latents_std", latents) + self._statistic("latents_mean", latents)

    @override
    def _spread(self, std: Tensor) -> Tensor:
        return std / self._statistic("latents_std", std)

    @override
    def _picture(self, images: Tensor) -> Tensor:
        return rearrange(images.to(self.vae.dtype), "b c h w -> b c 1 h w")

    @override
    def _flat(self, latents: Tensor) -> Tensor:
        return rearrange(latents, "b c 1 h w -> b c h w")

    @override
    def _clip(self, latents: Tensor) -> Tensor:
        return rearrange(latents, "b c h w -> b c 1 h w")

    @override
    def _still(self, images: Tensor) -> Tensor:
        return images[:, :, 0]


class Opaque(Standardized):
    """The same for pictures with a fourth channel, how opaque they are: all of ours is (Qwen-Image-2.1)."""

    @override
    def _picture(self, images: Tensor) -> Tensor:
        return torch.nn.functional.pad(super()._picture(images), (0, 0, 0, 0, 0, 0, 0, 1), value=1.0)

    @override
    def _still(self, images: Tensor) -> Tensor:
        return super()._still(images)[:, :3]


class Patched(Codec):
    """2 x 2 latents side by side, normalized by the statistics of a batch norm that the autoencoder carries (FLUX.2)."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.scale, self.channels = 2 * self.scale, 4 * self.channels

    def _norm(self, like: Tensor) -> tuple[Float[Tensor, "1 c 1 1"], Float[Tensor, "1 c 1 1"]]:
        bn: Any = self.vae.bn
        mean, variance = (
            rearrange(one.float().to(like.device), "c -> 1 c 1 1")
            for one in (bn.running_mean, bn.running_var)
        )
        return mean, (variance + self.vae.config.batch_norm_eps).sqrt()

    @override
    def _scaled(self, latents: Tensor) -> Tensor:
        mean, std = self._norm(latents)
        return (rearrange(latents, "b k (h p) (w q) -> b (k p q) h w", p=2, q=2) - mean) / std

    @override
    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, std = self._norm(latents)
        return rearrange(latents * std + mean, "b (k p q) h w -> b k (h p) (w q)", p=2, q=2)

    @override
    def _spread(self, std: Tensor) -> Tensor:
        return rearrange(std, "b k (h p) (w q) -> b (k p q) h w", p=2, q=2) / self._norm(std)[1]


_CODECS: dict[str, type[Codec]] = {
    "AutoencoderKLFlux2": Patched,
    "AutoencoderKLQwenImage": Standardized,
    "AutoencoderKLQwenImage21": Opaque,
}
"""By class of the autoencoder; the others are scaled by their settings."""


def codec_of(vae: nn.Module) -> Codec:
    """The codec of an autoencoder."""
    if isinstance(vae, AutoencoderTiny):
        return Tiny(vae)
    return _CODECS.get(type(vae).__name__, Scaled)(vae)
