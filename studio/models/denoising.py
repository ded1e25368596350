"""The denoising objective on a family: noise, target, one weighted error an example.

Axes: `b` batch, `c h w` latent, `H W` image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.condition import Condition
from studio.diffusion.config import Denoising
from studio.diffusion.objective import latent_mask, min_snr_weight, offset_noise, per_example
from studio.models.base import Family


@dataclass(frozen=True)
class Noised:
    """Latents with noise, and what the network should say of them."""

    x_t: Float[Tensor, "b c h w"]
    t: Float[Tensor, " b"]
    target: Float[Tensor, "b c h w"]

    def __len__(self) -> int:
        return len(self.t)

    def cat(self, other: "Noised") -> "Noised":
        """The rows of this, then the rows of another."""
        return Noised(
            torch.cat([self.x_t, other.x_t]),
            torch.cat([self.t, other.t]),
            torch.cat([self.target, other.target]),
        )


def latents_of(family: Family, batch: Batch, rng: Rng, prefix: str = "") -> Float[Tensor, "b c h w"]:
    """The latents of a batch: cached ones, or its images encoded."""
    if f"{prefix}latents" in batch:
        return batch[f"{prefix}latents"].float()
    with torch.no_grad():
        return family.encode(batch[f"{prefix}images"], rng)


def add_noise(family: Family, latents: Float[Tensor, "b c h w"], rng: Rng, settings: Denoising) -> Noised:
    """Latents at random noise levels, with the target of the family's own prediction kind."""
    t = family.process.sample_times(rng, len(latents), settings.times)
    eps = offset_noise(rng.normal(*latents.shape), strength=settings.noise_offset, rng=rng)
    x_t = family.process.add_noise(latents, eps, t)
    return Noised(x_t, t, family.process.target(latents, eps, t, family.prediction))


def errors(
    family: Family,
    prediction: Float[Tensor, "b c h w"],
    noised: Noised,
    settings: Denoising,
    mask: Float[Tensor, "b 1 H W"] | None = None,
) -> Float[Tensor, " b"]:
    """Error of each example, weighted by min-SNR where asked for; masked to what the mask keeps."""
    height, width = prediction.shape[-2:]
    small = None if mask is None else latent_mask(mask, (height, width))
    found = per_example(prediction, noised.target, error=settings.error, mask=small)
    if settings.min_snr:
        found = found * min_snr_weight(
            family.process.snr(noised.t), gamma=settings.min_snr, kind=family.prediction
        )
    return found


class Prompts:
    """Embeddings of captions: computed once each while no text encoder trains, anew each time when one does.

    What is kept was computed by itself: beside others its last bits can differ, and a resumed run meets other ones first.
    """

    def __init__(self, family: Family, *, trains: bool) -> None:
        self._family, self._trains = family, trains
        self._kept: dict[str, Condition] = {}

    def __call__(self, captions: Sequence[str]) -> Condition:
        """The condition of each caption, in order."""
        if self._trains:
            return self._family.embed(captions)
        for caption in dict.fromkeys(captions):
            if caption not in self._kept:
                with torch.no_grad():
                    self._kept[caption] = self._family.embed([caption]).to("cpu")
        rows = self._kept[captions[0]]
        for caption in captions[1:]:
            rows = rows.cat(self._kept[caption])
        return rows.to(self._family.backend.device)
