"""Conversions between what a network may predict: eps, v, flow and x0.

With x_t = alpha x0 + sigma eps: v = alpha eps - sigma x0 (Salimans & Ho 2022, app. D) and
flow = eps - x0 (Liu et al. 2022). Nothing assumes alpha^2 + sigma^2 = 1 or alpha + sigma = 1.
Axes: `b` batch, `...` any others.
"""

from typing import assert_never

from jaxtyping import Float
from torch import Tensor

from studio.diffusion.config import Prediction


def expand(value: Float[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """One number an example, shaped to multiply `like`."""
    return value[(..., *(None,) * (like.ndim - 1))]


def to_x0(
    prediction: Float[Tensor, "b ..."],
    x_t: Float[Tensor, "b ..."],
    *,
    alpha: Float[Tensor, " b"],
    sigma: Float[Tensor, " b"],
    kind: Prediction,
) -> Float[Tensor, "b ..."]:
    """The clean latent that a prediction implies (eps: undefined where alpha = 0)."""
    a, s = expand(alpha, x_t), expand(sigma, x_t)
    match kind:
        case "eps":
            return (x_t - s * prediction) / a
        case "v":
            return (a * x_t - s * prediction) / (a**2 + s**2)
        case "flow":
            return (x_t - s * prediction) / (a + s)
        case "x0":
            return prediction
        case _:
            assert_never(kind)


def to_eps(
    prediction: Float[Tensor, "b ..."],
    x_t: Float[Tensor, "b ..."],
    *,
    alpha: Float[Tensor, " b"],
    sigma: Float[Tensor, " b"],
    kind: Prediction,
) -> Float[Tensor, "b ..."]:
    """The noise that a prediction implies (x0: undefined where sigma = 0)."""
    a, s = expand(alpha, x_t), expand(sigma, x_t)
    match kind:
        case "eps":
            return prediction
        case "v":
            return (s * x_t + a * prediction) / (a**2 + s**2)
        case "flow":
            return (x_t + a * prediction) / (a + s)
        case "x0":
            return (x_t - a * prediction) / s
        case _:
            assert_never(kind)


def combine(
    x0: Float[Tensor, "b ..."],
    eps: Float[Tensor, "b ..."],
    *,
    alpha: Float[Tensor, " b"],
    sigma: Float[Tensor, " b"],
    kind: Prediction,
) -> Float[Tensor, "b ..."]:
    """The quantity of one kind that belongs to a clean latent and its noise: the training target."""
    match kind:
        case "eps":
            return eps
        case "v":
            return expand(alpha, x0) * eps - expand(sigma, x0) * x0
        case "flow":
            return eps - x0
        case "x0":
            return x0
        case _:
            assert_never(kind)
