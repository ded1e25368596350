"""Denoising objectives, one number an example; the caller weights and averages.

Axes: `b` batch, `c h w` latent, `...` any others.
"""

from typing import assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.backend.rng import Rng
from studio.diffusion.config import Error, Huber, Mse, Prediction, SmoothL1
from studio.diffusion.own import own_error
from studio.settings.custom import Custom


def per_example(
    prediction: Float[Tensor, "b ..."],
    target: Float[Tensor, "b ..."],
    *,
    error: Error = Mse(),
    mask: Float[Tensor, "b 1 ..."] | None = None,
) -> Float[Tensor, " b"]:
    """Mean error of each example, in float32; with a mask (weights in [0, 1]) the mean over what it keeps.

    An example whose mask keeps nothing has error 0.
    """
    errors = _errors(prediction.float(), target.float(), error)
    if mask is None:
        return errors.flatten(1).mean(1)
    weights = mask.float().expand_as(errors).flatten(1)
    return (errors.flatten(1) * weights).sum(1) / weights.sum(1).clamp_min(torch.finfo(torch.float32).tiny)


def _errors(prediction: Tensor, target: Tensor, error: Error) -> Tensor:
    match error:
        case Mse():
            return F.mse_loss(prediction, target, reduction="none")
        case Huber(delta=delta):
            return F.huber_loss(prediction, target, reduction="none", delta=delta)
        case SmoothL1(beta=beta):
            return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta)
        case Custom():
            return own_error(error)(prediction, target)
        case _:
            assert_never(error)


def min_snr_weight(snr: Float[Tensor, " b"], *, gamma: float, kind: Prediction) -> Float[Tensor, " b"]:
    """Min-SNR-gamma weight (Hang et al. 2023, section 3.4): min(snr, gamma) on the x0 error.

    An error of another kind is the x0 error times a factor, and the weight is divided by it: 1 / snr for
    eps, 1 / (snr + 1) for v, and 1 / (1 + sqrt(snr))^2 for flow, where x0 = x_t - sigma * prediction.
    """
    match kind:
        case "x0":
            return snr.clamp(max=gamma)
        case "eps":
            return (gamma / snr).clamp(max=1)
        case "v":
            return snr.clamp(max=gamma) / (snr + 1)
        case "flow":
            return snr.clamp(max=gamma) / (1 + snr.sqrt()) ** 2
        case _:
            assert_never(kind)


def offset_noise(eps: Float[Tensor, "b c h w"], *, strength: float, rng: Rng) -> Float[Tensor, "b c h w"]:
    """Noise with a random constant a channel added, so that overall brightness is learned too (Guttenberg 2023).

    At strength 0 nothing is drawn.
    """
    if strength == 0:
        return eps
    return eps + strength * rng.normal(eps.shape[0], eps.shape[1], 1, 1)


def latent_mask(mask: Float[Tensor, "b 1 H W"], size: tuple[int, int]) -> Float[Tensor, "b 1 h w"]:
    """A mask of pixels as the share that each latent cell keeps."""
    return F.interpolate(mask, size=size, mode="area")
