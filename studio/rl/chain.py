"""Back-propagation through sampler steps: pictures as a function of the weights (DRaFT, AlignProp, ReFL).

Axes: `b` pictures, `c h w` latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from studio.diffusion.prediction import expand
from studio.models.draw import start_noise
from studio.rl.policy import Conditions, Policy


@dataclass(frozen=True)
class Span:
    """Sampler steps `first` to `last`, both included, hold a graph; steps before have none, steps after are not taken."""

    first: int
    last: int


def draw_through(
    policy: Policy, prompts: Sequence[str], seeds: Sequence[int], span: Span, *, size: int = 0
) -> Float[Tensor, "b c h w"]:
    """Clean latents of new pictures, with a graph through the steps of the span.

    A span that ends at the sampler's last step gives what the sampler gives; one that ends before gives the clean
    latent that the last prediction implies. More than one step is kept as its input only, and computed again on the
    way back. A picture is a function of its seed.
    """
    family = policy.family
    side = size or family.default_size
    noise, generators = start_noise(family, seeds, side, side)
    conditions = policy.conditions(prompts)
    several = span.last > span.first
    x = noise.to(family.backend.device)
    for index in range(span.last + 1):
        k = torch.full((len(prompts),), index, device=x.device)
        if index == span.last:
            return last_step(policy, x, k, conditions, inner=index + 1 < len(policy.stepper.times))
        z = torch.stack([torch.randn(noise.shape[1:], generator=one) for one in generators]).to(x.device)
        if index < span.first:
            with torch.no_grad():
                x = _step(policy, x, k, conditions, z)
        elif several:
            x = checkpoint(_step, policy, x, k, conditions, z, use_reentrant=False)
    raise ValueError(f"the span {span} has no steps")


def last_step(
    policy: Policy, x: Float[Tensor, "b c h w"], k: Int[Tensor, " b"], conditions: Conditions, *, inner: bool
) -> Float[Tensor, "b c h w"]:
    """The step that ends a span: without noise, or as the clean latent it points to where others would follow."""
    prediction = policy.predict(x, k, conditions)
    return policy.stepper.clean(prediction, x, k) if inner else policy.stepper.gaussian(prediction, x, k)[0]


def _step(policy: Policy, x: Tensor, k: Tensor, conditions: Conditions, z: Tensor) -> Tensor:
    mean, std = policy.gaussian(x, k, conditions)
    return mean + expand(std, mean) * z
