"""Objectives of the policy gradient, one number a transition.

Axes: `b` transitions, `...` latent.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from studio.diffusion.prediction import expand


def ppo_clip(
    logp: Float[Tensor, " b"], logp_old: Float[Tensor, " b"], advantage: Float[Tensor, " b"], *, clip: float
) -> Float[Tensor, " b"]:
    """The clipped surrogate (Schulman et al. 2017, eq. 7; DDPO, section 4.3), to be minimized."""
    ratio = (logp - logp_old).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def gaussian_kl(
    mean: Float[Tensor, "b ..."], reference: Float[Tensor, "b ..."], std: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Divergence of two Gaussians of the same spread, as a mean over elements: ||mean - reference||^2 / (2 std^2).

    Flow-GRPO's code leaves the step size out of std^2: its weights times the mean step size, about 1 / steps, are ours.
    """
    return ((mean - reference) ** 2 / (2 * expand(std, mean) ** 2)).flatten(1).mean(1)
