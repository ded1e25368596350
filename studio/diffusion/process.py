"""Noise processes x_t = alpha(t) x0 + sigma(t) eps, with t in [0, 1] and 1 = noise.

`Discrete`: the variance-preserving chain of DDPM (Ho et al. 2020), given as alphas_cumprod; also with zero
terminal SNR (Lin et al. 2024). `Flow`: rectified flow (Liu et al. 2022; Esser et al. 2024, section 2).
The timestep a network sees is t * 1000 for every family. Axes: `b` batch, `...` any others.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, assert_never, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.backend.rng import Rng
from studio.diffusion.config import LogitNormalTimes, ModeTimes, NativeTimes, Prediction, Times, UniformTimes
from studio.diffusion.own import own_times
from studio.diffusion.prediction import combine, expand, to_eps, to_x0
from studio.settings.custom import Custom

NUM_TIMESTEPS = 1000


@runtime_checkable
class Process(Protocol):
    """What a family says about its noise."""

    def alpha(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Factor of the clean latent."""
        ...

    def sigma(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Factor of the noise."""
        ...

    def snr(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Signal-to-noise ratio alpha^2 / sigma^2."""
        ...

    def sample_times(self, rng: Rng, b: int, times: Times = NativeTimes()) -> Float[Tensor, " b"]:
        """Training times."""
        ...

    def add_noise(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """The noisy latent x_t."""
        ...

    def target(
        self,
        x0: Float[Tensor, "b ..."],
        eps: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        kind: Prediction,
    ) -> Float[Tensor, "b ..."]:
        """What a network of this kind should predict."""
        ...

    def x0(
        self,
        prediction: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        kind: Prediction,
    ) -> Float[Tensor, "b ..."]:
        """The clean latent that a prediction implies."""
        ...

    def eps(
        self,
        prediction: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        kind: Prediction,
    ) -> Float[Tensor, "b ..."]:
        """The noise that a prediction implies."""
        ...


class _Affine(ABC):
    """What follows from alpha and sigma alone."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Factor of the clean latent."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Factor of the noise."""

    def snr(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        return (self.alpha(t) / self.sigma(t)) ** 2

    def add_noise(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def target(
        self,
        x0: Float[Tensor, "b ..."],
        eps: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        kind: Prediction,
    ) -> Float[Tensor, "b ..."]:
        return combine(x0, eps, alpha=self.alpha(t), sigma=self.sigma(t), kind=kind)

    def x0(
        self,
        prediction: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        kind: Prediction,
    ) -> Float[Tensor, "b ..."]:
        return to_x0(prediction, x_t, alpha=self.alpha(t), sigma=self.sigma(t), kind=kind)

    def eps(
        self,
        prediction: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        kind: Prediction,
    ) -> Float[Tensor, "b ..."]:
        return to_eps(prediction, x_t, alpha=self.alpha(t), sigma=self.sigma(t), kind=kind)


@dataclass(frozen=True, eq=False)
class Discrete(_Affine):
    """A chain of T steps; t = k / T is step k, and t = 1 its last."""

    alphas_cumprod: Float[Tensor, " steps"]

    def index(self, t: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The step that a time belongs to."""
        steps = len(self.alphas_cumprod)
        return (t * steps).round().long().clamp(0, steps - 1)

    def _alphas_cumprod(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        return self.alphas_cumprod.to(t.device)[self.index(t)]

    def alpha(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Square root of alphas_cumprod."""
        return self._alphas_cumprod(t).sqrt()

    def sigma(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Square root of 1 - alphas_cumprod."""
        return (1 - self._alphas_cumprod(t)).sqrt()

    def sample_times(self, rng: Rng, b: int, times: Times = NativeTimes()) -> Float[Tensor, " b"]:
        """Times on the grid k / T; native is uniform."""
        steps = len(self.alphas_cumprod)
        u = _draw(rng, b, UniformTimes() if isinstance(times, NativeTimes) else times)
        return (u * steps).floor().clamp(0, steps - 1) / steps


@dataclass(frozen=True, eq=False)
class Flow(_Affine):
    """A straight line from data to noise; `shift` moves drawn times towards noise (Esser et al. 2024, eq. 23)."""

    shift: float = 1.0

    def alpha(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """1 - t."""
        return 1 - t

    def sigma(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The time itself."""
        return t

    def sample_times(self, rng: Rng, b: int, times: Times = NativeTimes()) -> Float[Tensor, " b"]:
        """Shifted times; native is logit-normal (0, 1)."""
        u = _draw(rng, b, LogitNormalTimes() if isinstance(times, NativeTimes) else times)
        return (self.shift * u / (1 + (self.shift - 1) * u)).clamp(1 / NUM_TIMESTEPS, 1)


def _draw(
    rng: Rng, b: int, times: UniformTimes | LogitNormalTimes | ModeTimes | Custom
) -> Float[Tensor, " b"]:
    match times:
        case UniformTimes():
            return rng.uniform(b)
        case LogitNormalTimes(mean=mean, std=std):
            return torch.sigmoid(mean + std * rng.normal(b))
        case ModeTimes(scale=scale):
            u = rng.uniform(b)
            return 1 - u - scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
        case Custom():
            return own_times(times)(rng.uniform(b))
        case _:
            assert_never(times)
