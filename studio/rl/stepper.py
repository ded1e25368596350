"""Sampler steps as a Gaussian policy: x_{k+1} ~ N(mean(prediction, x_k), std^2).

Axes: `b` transitions, `n` sampler steps, `c h w` latent. `k` counts sampler steps from 0 (noise).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.diffusion.config import Prediction
from studio.diffusion.prediction import expand, to_eps, to_x0
from studio.diffusion.process import NUM_TIMESTEPS
from studio.diffusion.sampling import ddim_step, flow_sde_step
from studio.errors import StudioError
from studio.models.base import Family
from studio.rl.config import Sampler

MIN_STD = 1e-3
"""A step with less noise is taken as it is and never learned from: its log-density would have no bound."""


@dataclass(frozen=True, eq=False)
class Ddim:
    """DDIM with noise eta, for models of eps and v (Song et al. 2021, eq. 12 and 16).

    Attributes:
        times: Time of each step's input, in [0, 1].
        alphas_cumprod: Level of each step's input, then of the last output.
    """

    times: Float[Tensor, " n"]
    alphas_cumprod: Float[Tensor, " m"]
    kind: Prediction
    eta: float = 1.0

    def gaussian(
        self, prediction: Float[Tensor, "b c h w"], x_t: Float[Tensor, "b c h w"], k: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        """Mean and standard deviation of the next latent."""
        levels = self.alphas_cumprod.to(x_t.device)
        now, then = ((level.sqrt(), (1 - level).sqrt()) for level in (levels[k], levels[k + 1]))
        alpha, sigma = now
        x0 = to_x0(prediction, x_t, alpha=alpha, sigma=sigma, kind=self.kind)
        eps = to_eps(prediction, x_t, alpha=alpha, sigma=sigma, kind=self.kind)
        return ddim_step(x0, eps, now=now, then=then, eta=self.eta)

    def clean(
        self, prediction: Float[Tensor, "b c h w"], x_t: Float[Tensor, "b c h w"], k: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The clean latent that a prediction at sampler steps `k` implies."""
        level = self.alphas_cumprod.to(x_t.device)[k]
        return to_x0(prediction, x_t, alpha=level.sqrt(), sigma=(1 - level).sqrt(), kind=self.kind)

    def noised(
        self, x0: Float[Tensor, "b c h w"], eps: Float[Tensor, "b c h w"], k: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """A clean latent with the noise that sampler steps `k` start from."""
        level = self.alphas_cumprod.to(x0.device)[k]
        return expand(level.sqrt(), x0) * x0 + expand((1 - level).sqrt(), x0) * eps

    def stds(self) -> Float[Tensor, " n"]:
        """Standard deviation of each step."""
        zero = torch.zeros(len(self.times), 1, 1, 1)
        return self.gaussian(zero, zero, torch.arange(len(self.times)))[1]


@dataclass(frozen=True, eq=False)
class FlowSde:
    """The stochastic flow sampler (Liu et al. 2025, Flow-GRPO, eq. 9), for models of flow.

    Attributes:
        times: Time of each step's input, in [0, 1].
        levels: The same, then the time of the last output.
    """

    times: Float[Tensor, " n"]
    levels: Float[Tensor, " m"]
    noise: float = 0.7

    def gaussian(
        self, prediction: Float[Tensor, "b c h w"], x_t: Float[Tensor, "b c h w"], k: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        """Mean and standard deviation of the next latent."""
        levels = self.levels.to(x_t.device)
        return flow_sde_step(x_t, prediction, t=levels[k], s=levels[k + 1], noise=self.noise)

    def clean(
        self, prediction: Float[Tensor, "b c h w"], x_t: Float[Tensor, "b c h w"], k: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The clean latent that a prediction at sampler steps `k` implies."""
        return x_t - expand(self.levels.to(x_t.device)[k], x_t) * prediction

    def noised(
        self, x0: Float[Tensor, "b c h w"], eps: Float[Tensor, "b c h w"], k: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """A clean latent with the noise that sampler steps `k` start from."""
        t = expand(self.levels.to(x0.device)[k], x0)
        return (1 - t) * x0 + t * eps

    def stds(self) -> Float[Tensor, " n"]:
        """Standard deviation of each step."""
        zero = torch.zeros(len(self.times), 1, 1, 1)
        return self.gaussian(zero, zero, torch.arange(len(self.times)))[1]


Stepper = Ddim | FlowSde


def stepper(family: Family, steps: int, *, noise: float, size: int = 0) -> Stepper:
    """The stochastic sampler that suits a family.

    Args:
        family: The model; its own schedule decides the levels.
        steps: Sampler steps.
        noise: Eta of DDIM, or a of the flow sampler.
        size: Height and width in pixels; 0 is the model's own.
    """
    scheduler: Any = family.scheduler("", steps, height=size, width=size)
    if family.prediction == "flow":
        levels = scheduler.sigmas.float().cpu()
        return FlowSde(levels[:-1], levels, noise)
    timesteps = scheduler.timesteps.long().cpu()
    last = torch.as_tensor(scheduler.final_alpha_cumprod).reshape(1)
    levels = torch.cat([scheduler.alphas_cumprod[timesteps].cpu(), last.cpu()]).float()
    return Ddim(timesteps / NUM_TIMESTEPS, levels, family.prediction, noise)


def learnable(family: Family, sampler: Sampler, *, last: bool) -> list[int]:
    """Numbers of the sampler steps to learn from: all, or all but the last.

    Raises:
        StudioError: One of them has too little noise; says what to choose.
    """
    if not (silent := _silent(family, sampler, last=last)):
        return list(range(sampler.steps - (not last)))
    number, std = silent
    low = f"of {family.name} has too little noise to learn from (standard deviation {std:.2g}, needed: {MIN_STD:g})"
    if number == sampler.steps - 1 > 0:
        raise StudioError(
            f"The last sampler step {low}; leave it out: --no-ppo.last-step.", field="ppo.last_step"
        )
    better = replace(sampler, noise=max(sampler.noise, 1.0), steps=max(sampler.steps, 2))
    while better.steps > 2 and _silent(family, better, last=False):
        better = replace(better, steps=better.steps // 2)
    raise StudioError(
        f"Sampler step {number + 1} of {sampler.steps} {low}, at rollouts.noise {sampler.noise:g}; choose "
        f"--rollouts.noise {better.noise:g} --rollouts.steps {better.steps} --no-ppo.last-step.",
        field="rollouts.noise",
    )


def _silent(family: Family, sampler: Sampler, *, last: bool) -> tuple[int, float] | None:
    """The first sampler step to learn from with too little noise, and how much it has."""
    stds = stepper(family, sampler.steps, noise=sampler.noise, size=sampler.size).stds().tolist()
    return next(((k, std) for k, std in enumerate(stds if last else stds[:-1]) if std < MIN_STD), None)
