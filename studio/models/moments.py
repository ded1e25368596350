"""What an autoencoder says of a picture: a Gaussian over latents, of which training takes a sample and drawing the mode.

Axes: `b` pictures, `c h w` latent.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from studio.backend.rng import Rng


@dataclass(frozen=True)
class Moments:
    """Mean, which is the mode, and standard deviation of latents, scaled as the denoiser wants them.

    An autoencoder without a distribution (AutoencoderTiny) has no deviation.
    """

    mean: Float[Tensor, "b c h w"]
    std: Float[Tensor, "b c h w"] | None = None

    def sample(self, rng: Rng | None = None) -> Float[Tensor, "b c h w"]:
        """Latents: a sample with `rng`, the mode without."""
        if rng is None or self.std is None:
            return self.mean
        return self.mean + self.std * rng.normal(*self.mean.shape)
