"""Single sampling steps as Gaussians (mean, std), for methods that need their log-probability or inverse.

Axes: `b` batch, `...` any others. Indices: `t` the present level, `s` the next one.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from studio.diffusion.prediction import expand


def ddim_step(
    x0: Float[Tensor, "b ..."],
    eps: Float[Tensor, "b ..."],
    *,
    now: tuple[Float[Tensor, " b"], Float[Tensor, " b"]],
    then: tuple[Float[Tensor, " b"], Float[Tensor, " b"]],
    eta: float = 0.0,
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
    """One DDIM step (Song et al. 2021, eq. 12 and 16); with `then` noisier than `now` and eta 0, its inversion.

    Args:
        x0: Clean latent implied by the prediction.
        eps: Noise implied by the prediction.
        now: (alpha, sigma) of the present level.
        then: (alpha, sigma) of the next level.
        eta: 0 is deterministic, 1 is DDPM's variance.

    Returns:
        Mean of the next latent and its standard deviation.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = now, then
    std = eta * (sigma_s / sigma_t) * (1 - (alpha_t / alpha_s) ** 2).clamp_min(0).sqrt()
    direction = (sigma_s**2 - std**2).clamp_min(0).sqrt()
    return expand(alpha_s, x0) * x0 + expand(direction, x0) * eps, std


def flow_sde_step(
    x_t: Float[Tensor, "b ..."],
    flow: Float[Tensor, "b ..."],
    *,
    t: Float[Tensor, " b"],
    s: Float[Tensor, " b"],
    noise: float = 0.7,
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
    """One step of the stochastic flow sampler (Liu et al. 2025, Flow-GRPO, eq. 9); noise 0 is Euler.

    At t = 1 the spread is taken at `s`, since it is infinite at 1.
    """
    dt = s - t
    at = torch.where(t >= 1, s, t)
    spread = noise * (at / (1 - at)).sqrt()
    drift = spread**2 / (2 * t)
    x, v = x_t.float(), flow.float()
    mean = x * expand(1 + drift * dt, x) + v * expand((1 + drift * (1 - t)) * dt, x)
    return mean, spread * (-dt).sqrt()


def log_probability(
    x: Float[Tensor, "b ..."], mean: Float[Tensor, "b ..."], std: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Mean over elements of the Gaussian log-density (the mean, as in DDPO: clip ranges are tied to it)."""
    std_like = expand(std, mean)
    density = -((x - mean) ** 2) / (2 * std_like**2) - std_like.log() - 0.5 * math.log(2 * math.pi)
    return density.flatten(1).mean(1)
