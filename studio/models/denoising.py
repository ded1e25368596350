"""The denoising objective on a family: noise, target, one weighted error an example.

Axes: `b` batch, `c h w` latent, `H W` image.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.backend.progress import tell
from studio.backend.rng import Rng
from studio.contracts.batch import Batch
from studio.contracts.condition import Condition
from studio.diffusion.config import Denoising
from studio.diffusion.objective import latent_mask, min_snr_weight, offset_noise, per_example
from studio.models.base import Family
from studio.models.moments import Moments


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


def latents_of(
    family: Family, batch: Batch, rng: Rng, prefix: str = "", *, kind: Literal["sample", "mode"] = "sample"
) -> Float[Tensor, "b c h w"]:
    """The latents of a batch: a sample of what the autoencoder says of its images, now or when it was cached.

    Args:
        family: The model.
        batch: With `images`, or with `latents` and, of an autoencoder with a distribution, `latents_std`.
        rng: Of this part of the batch.
        prefix: In front of the names in the batch.
        kind: The mode takes no numbers from `rng`.
    """
    if f"{prefix}latents" in batch:
        std = batch.get(f"{prefix}latents_std")
        found = Moments(batch[f"{prefix}latents"].float(), None if std is None else std.float())
    else:
        with torch.no_grad():
            found = family.moments(batch[f"{prefix}images"])
    return found.sample(rng if kind == "sample" else None)


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


Store = Callable[[str, Callable[[], Mapping[str, Tensor]]], Mapping[str, Tensor]]
"""Where a caption's embedding is looked for, and kept once it is made."""


class Prompts:
    """Embeddings of captions: computed once each while no text encoder trains, anew each time when one does.

    What is kept was computed by itself: beside others its last bits can differ, and a resumed run meets other ones first.
    """

    def __init__(self, family: Family, *, trains: bool, store: Store | None = None) -> None:
        """Take a model.

        Args:
            family: The model.
            trains: Whether one of its text encoders, or a word of theirs, trains.
            store: Keeps embeddings beyond this run; not asked while a text encoder trains.
        """
        self._family, self._trains, self._store = family, trains, store
        self._kept: dict[str, Condition] = {}

    def __call__(self, captions: Sequence[str], sizes: Int[Tensor, "b 6"] | None = None) -> Condition:
        """The condition of each caption, in order, with the sizes of its picture where the family reads them."""
        cond = self._family.embed(captions) if self._trains else self._looked_up(captions)
        return self._family.with_sizes(cond, sizes)

    def _looked_up(self, captions: Sequence[str]) -> Condition:
        distinct = list(dict.fromkeys(captions))
        self._keep([caption for caption in distinct if caption not in self._kept])
        found = [self._kept[caption] for caption in distinct]
        if len({one.tokens.shape[1] for one in found}) > 1:  # long prompts: all get the parts of the longest
            rows = self._embed(distinct)
        else:
            rows = functools.reduce(Condition.cat, found)
        return rows.rows([distinct.index(caption) for caption in captions]).to(self._family.backend.device)

    def ready(self, captions: Iterable[str]) -> None:
        """Embed captions before the first step where the encoders rest, so that none of them comes back for it."""
        if self._trains or not self._family.backend.hardware.offload:
            return
        self._family.make_room()
        self._keep([caption for caption in dict.fromkeys(captions) if caption not in self._kept])

    def _keep(self, captions: Sequence[str]) -> None:
        """Embed captions, each by itself; encoders stay called until all are."""
        with contextlib.ExitStack() as called:
            for done, caption in enumerate(captions):
                tell("captions", done, len(captions))
                make = functools.partial(self._made, caption, called)
                self._kept[caption] = Condition.of(self._store(caption, make) if self._store else make())

    def _made(self, caption: str, called: contextlib.ExitStack) -> Mapping[str, Tensor]:
        """What is kept of a caption."""
        called.enter_context(self._family.present(*self._family.text_encoders.values()))
        return self._embed([caption]).tensors()

    @torch.no_grad()
    def _embed(self, captions: Sequence[str]) -> Condition:
        """Embeddings on the CPU."""
        return self._family.embed(captions).to("cpu")
