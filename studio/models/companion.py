"""Pictures that run beside the drawn ones so that these can look at them: inversion, and attention as it happens.

DDIM inversion solves each sampler step for its input (Song et al. 2021, eq. 14 read backwards; with fixed-point
refinement as in Pan et al. 2023, AIDI), so that drawing from the result gives the picture back. For flow matching the
same formula is Euler's method backwards. Axes: `b` pictures, `c h w` latent, `n` tokens, `d` width of a head.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from studio.contracts.condition import Condition
from studio.diffusion.prediction import to_eps, to_x0
from studio.diffusion.process import NUM_TIMESTEPS
from studio.errors import StudioError
from studio.models.attention import Ordinary
from studio.models.base import Family

Level = tuple[Tensor, Tensor]
"""(alpha, sigma) of a noise level."""


@dataclass(frozen=True)
class Features:
    """What one attention layer computed: queries, keys and values of every row."""

    query: Float[Tensor, "b heads n d"]
    key: Float[Tensor, "b heads n d"]
    value: Float[Tensor, "b heads n d"]


@torch.no_grad()
def features(
    family: Family, x_t: Float[Tensor, "b c h w"], t: float, cond: Condition, layers: Collection[str]
) -> dict[str, Features]:
    """Queries, keys and values of some layers for a noisy latent."""
    found: dict[str, Features] = {}

    def keep(
        query: Tensor, key: Tensor, value: Tensor, *, layer: str, ordinary: Ordinary, **about: object
    ) -> Tensor:
        del about
        found[layer] = Features(query, key, value)
        return ordinary(query, key, value)

    with family.attending_where(lambda name: keep if name in layers else None):
        family.predict(x_t, torch.full((len(x_t),), t, device=x_t.device), cond)
    return found


@torch.no_grad()
def image_layers(family: Family, x_t: Float[Tensor, "b c h w"], cond: Condition) -> list[str]:
    """Names of the layers in which the picture attends to itself, in the order in which they run."""
    found: list[str] = []

    def note(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        layer: str,
        cross: bool,
        ordinary: Ordinary,
        **about: object,
    ) -> Tensor:
        del about
        if not cross:
            found.append(layer)
        return ordinary(query, key, value)

    with family.attending(note):
        family.predict(x_t, torch.full((len(x_t),), 0.5, device=x_t.device), cond)
    return found


def last(layers: list[str], share: float) -> list[str]:
    """The last part of a list; at least one for a share above 0."""
    return layers[len(layers) - math.ceil(share * len(layers)) :]


@torch.no_grad()
def invert(
    family: Family,
    latents: Float[Tensor, "b c h w"],
    cond: Condition,
    scheduler: SchedulerMixin,
    *,
    refine: int = 3,
) -> list[Float[Tensor, "b c h w"]]:
    """The noisy latents from which the sampler's steps lead to given clean ones, the noisiest first, one a step.

    Args:
        family: The model; one pass a step and refinement, without guidance.
        latents: Clean latents.
        cond: Their condition.
        scheduler: DDIM or the flow-matching Euler, set to its steps.
        refine: Fixed-point iterations a step beyond the usual guess.

    Raises:
        StudioError: The scheduler's steps cannot be undone.
    """
    x, found = latents, []
    for step in reversed(range(len(scheduler.timesteps))):
        t = float(scheduler.timesteps[step]) / NUM_TIMESTEPS
        now, then = _levels(scheduler, step)
        guess, moved = x, math.inf
        for attempt in range(1 + refine):
            prediction = family.predict(guess, torch.full((len(x),), t, device=x.device), cond)
            better = _solved(family, x, guess, prediction, now=now, then=then)
            moves = float((better - guess).norm())
            if attempt and moves > 2 * moved:
                break  # iterating leads away
            guess, moved = better, moves
        x = guess
        found.append(x)
    return found[::-1]


def _solved(
    family: Family, x: Tensor, guess: Tensor, prediction: Tensor, *, now: Level, then: Level
) -> Tensor:
    """The input of a step whose result is x, given what the model says about a guess of it.

    Both lines are the same equation; each divides by the larger of the two factors.
    """
    (alpha, sigma), (alpha_s, sigma_s) = ((a.to(x), s.to(x)) for a, s in (now, then))
    level = {"alpha": alpha.expand(len(x)), "sigma": sigma.expand(len(x)), "kind": family.prediction}
    if alpha_s >= sigma_s:
        eps = to_eps(prediction, guess, **level)
        return alpha / alpha_s * (x - sigma_s * eps) + sigma * eps
    x0 = to_x0(prediction, guess, **level)
    return alpha * x0 + sigma / sigma_s * (x - alpha_s * x0)


def _levels(scheduler: SchedulerMixin, step: int) -> tuple[Level, Level]:
    """Noise before and after a sampler step."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        sigmas = torch.as_tensor(scheduler.sigmas)
        now, then = sigmas[step], sigmas[step + 1]
        return (1 - now, now), (1 - then, then)
    if not isinstance(scheduler, DDIMScheduler):
        raise StudioError(
            f"{type(scheduler).__name__} cannot be run backwards; set --scheduler ddim, or flow-euler for SD3 and FLUX.",
            field="scheduler",
        )
    timestep = int(scheduler.timesteps[step])
    before = timestep - NUM_TIMESTEPS // len(scheduler.timesteps)
    kept = scheduler.alphas_cumprod
    final = torch.as_tensor(scheduler.final_alpha_cumprod)
    after = kept[before] if before >= 0 else final
    return (kept[timestep].sqrt(), (1 - kept[timestep]).sqrt()), (after.sqrt(), (1 - after).sqrt())
